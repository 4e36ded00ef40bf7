//! Audit backends of kube-apiserver.
//!
//! The [log](Log) backend writes one event per line to a file that rotates as upstream's does, or to
//! standard output; the webhook backend (feature `webhook`) posts EventLists. A mode decorates them:
//! [`blocking`](IgnoreErrors) ignores failures, `blocking-strict`, the bare backend, lets them refuse the
//! request, [`batch`](Buffered) puts a bounded queue and a thread in between. [`Truncate`] bounds the size
//! of events. [`BackendOptions`] builds them as upstream's flags say.

mod buffered;
#[cfg(feature = "dynamic")]
pub mod dynamic;
mod enforced;
mod ignore_errors;
mod log;
mod options;
mod rotate;
mod truncate;
mod turns;
#[cfg(feature = "webhook")]
pub mod webhook;

pub use buffered::{BatchConfig, Buffered, Throttle, WhenFull};
pub use enforced::Enforced;
pub use ignore_errors::IgnoreErrors;
pub use log::{Format, Log, LogError};
#[cfg(feature = "webhook")]
pub use options::WebhookOptions;
pub use options::{BackendOptions, Backends, LogOptions, OptionsError};
pub use rotate::{RotatingFile, Rotation, RotationError};
pub use truncate::{Truncate, TruncateConfig};
pub use turns::Turns;
#[cfg(feature = "webhook")]
pub use webhook::{AttemptFailed, Webhook, WebhookConfig};
