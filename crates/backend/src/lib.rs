//! Audit backends of kube-apiserver.
//!
//! The [log](Log) backend writes one event per line to a file that rotates as upstream's does, or to
//! standard output. A mode decorates it: [`blocking`](Mode::Blocking) ignores failures,
//! [`blocking-strict`](Mode::BlockingStrict) lets them refuse the request, [`batch`](Mode::Batch) puts a
//! bounded queue and a thread in between.

mod buffered;
#[cfg(feature = "dynamic")]
pub mod dynamic;
mod enforced;
mod ignore_errors;
mod log;
mod options;
mod rotate;

pub use buffered::{BatchConfig, Buffered, Throttle};
pub use enforced::Enforced;
pub use ignore_errors::IgnoreErrors;
pub use log::{Format, Log, LogError};
pub use options::{LogOptions, Mode, OptionsError};
pub use rotate::{Rotation, RotationError};
