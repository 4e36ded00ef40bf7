//! What audit events tell about an object over time.
//!
//! [`History`] makes the versions of one object from the events about it and says of each how exact it is;
//! [`diff()`] tells what changed between two of them, [`Blame`] who wrote each line of one. [`Mask`] hides
//! what nobody should read in passing. [`patch`] has the four kinds of patch of the API, with which the
//! sandbox server writes too.
//!
//! Nothing here does I/O or takes the time from anywhere.

mod align;
pub mod blame;
mod body;
pub mod diff;
pub mod mask;
pub mod patch;
mod path;
mod target;
mod versions;

pub use blame::{Author, Blame, BlameLine};
pub use body::{MAX_BODY_BYTES, MAX_BODY_DEPTH};
pub use diff::{Change, Diff, Noise, What, diff, shown};
pub use mask::{Mask, Reveal};
pub use path::{Path, PathError, Step};
pub use target::{Relation, Target, TargetError};
pub use versions::{Effect, Exactness, History, Limits, Origin, Taken, Version};
