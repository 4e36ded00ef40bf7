//! The server called in this process, one behaviour at a time.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod answers;
mod client;
mod lists;
mod objects;
