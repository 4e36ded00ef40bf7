//! The encoder and the decoder against cases recorded from upstream.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests stop at the first surprise"
)]

mod description;
mod encode;
mod roundtrip;
