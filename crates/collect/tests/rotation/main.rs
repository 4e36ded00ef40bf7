//! Log files that rotate in every way that loses or doubles lines elsewhere.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::string_slice,
    reason = "tests stop at the first surprise"
)]

mod cases;
mod containers;
mod model;
mod reader;
mod real;
mod rewind;
mod writer;
