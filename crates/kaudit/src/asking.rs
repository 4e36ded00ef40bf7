//! Questions over files, without a server, a store or an index; and over the store of a running kaudit.
//!
//! Of files, all cores read the same inputs: one after the other takes the next block of lines, and counts or collects what it
//! finds there; what they found is put together at the end.

mod blocks;
mod counts;
mod export;
mod files;
mod follow;
mod found;
mod masked;
mod remote;
mod scan;
mod sequence;
pub(crate) mod times;

pub(crate) use counts::{
    COMPARED_FIELDS, Comparison, Looked, Values, compare, compared, count, key_json, values,
};
pub(crate) use files::{Inputs, inputs, refuse_a_filter};
pub(crate) use follow::{Following, Wants, follow_input};
pub(crate) use found::{Found, Hit, Newest, Order};
pub(crate) use masked::masked;
pub(crate) use remote::{Parameters, Remote};
pub(crate) use scan::{Fold, Place, Question, Scanned, scan};
pub(crate) use sequence::Sequence;
