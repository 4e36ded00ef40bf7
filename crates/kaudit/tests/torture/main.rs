//! The binary under faults: killed at random and at every system call, on a disk that is full, fails or
//! loses its power, under more load than it can take. What is promised is in `docs/reliability.md`.
//!
//! Every test has a short form, which is what `cargo test` runs, and a long one: `make torture` sets
//! `KAUDIT_TORTURE`, see [`scale`]. All that is random comes from `KAUDIT_TORTURE_SEED`, which every failure
//! names.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests stop at the first surprise"
)]
#![expect(clippy::print_stdout, reason = "tests talk to the developer")]

mod events;
mod full;
mod kill;
mod load;
mod log;
mod memory;
mod mount;
mod oracle;
mod place;
mod power;
mod real;
mod restart;
mod scale;
mod seal;
mod strace;
mod sweep;
