//! Requests and policies against cases recorded from upstream.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod cases;
mod client;
mod evaluate;
mod load;
mod request_info;
