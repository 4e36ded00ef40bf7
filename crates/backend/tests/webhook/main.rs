//! The webhook backend against servers that misbehave.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod delivery;
mod https;
mod retries;
#[path = "../vectors/server.rs"]
mod server;
