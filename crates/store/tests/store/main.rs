//! The store as others use it: events go through a journal into files and come back.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers stop at the first surprise, and a folder of logs may be named in the environment"
)]

mod agreement;
mod bed;
mod round_trip;
mod upkeep;
