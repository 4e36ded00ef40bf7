//! The backends against cases recorded from upstream.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests stop at the first surprise"
)]

#[path = "../../../event/tests/vectors/description.rs"]
mod description;
mod server;
mod truncate;
mod webhook;
