//! The real kubectl against a sandbox on loopback.
//!
//! Where there is no kubectl the tests say so and pass; CI checks separately that they ran.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers fail as tests do, and CI reads how many scenarios ran"
)]

mod access;
mod cluster;
mod objects;
mod workloads;
