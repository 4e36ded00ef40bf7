//! What policies mean, and what is said about them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod explain;
mod format;
mod generate;
mod lint;
mod presets;
mod properties;
