//! The receiver over real HTTPS: audit webhooks and other kaudits.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod forward;
mod lists;
mod senders;
mod world;
