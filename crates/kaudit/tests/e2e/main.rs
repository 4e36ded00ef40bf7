//! The binary as its users meet it: `kaudit dev` with kubectl, `kaudit policy` with files.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]
#![expect(clippy::print_stdout, reason = "tests talk to the developer")]

mod api;
mod capture;
mod collector;
mod completeness;
mod cookbook;
mod dev;
mod gateway;
mod import;
mod kubectl;
mod metrics;
mod order;
mod policy;
mod query;
mod restart;
mod setup;
mod source;
mod stop;
mod store;
mod webhook;
