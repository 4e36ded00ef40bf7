//! Questions over files: no server, no store, no index.
//!
//! All cores read the same inputs: one after the other takes the next block of lines, and counts or collects what it
//! finds there; what they found is put together at the end.

mod blocks;
mod files;
mod found;
mod scan;
mod sequence;

pub(crate) use files::{Input, inputs};
pub(crate) use found::{Found, Hit, Newest, Order};
pub(crate) use scan::{Fold, Question, Scanned, scan};
pub(crate) use sequence::Sequence;
