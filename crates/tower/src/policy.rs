//! The policy in force, which may change while requests are served.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};
use kaudit_policy::Policy;

/// Shares one policy between the chain and whoever reloads it. A request is recorded by one policy from
/// its beginning to its end.
#[derive(Clone, Debug)]
pub struct PolicyHandle(Arc<ArcSwapOption<Policy>>);

impl PolicyHandle {
    /// A handle on `policy`.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self(Arc::new(ArcSwapOption::from_pointee(policy)))
    }

    /// No policy: nothing is recorded.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::new(ArcSwapOption::empty()))
    }

    /// Puts `policy` in force for requests from now on.
    pub fn replace(&self, policy: Policy) {
        self.0.store(Some(Arc::new(policy)));
    }

    /// The policy in force; cheap, and not to be held across a wait.
    #[must_use]
    pub fn current(&self) -> Guard<Option<Arc<Policy>>> {
        self.0.load()
    }
}

impl From<Policy> for PolicyHandle {
    fn from(policy: Policy) -> Self {
        Self::new(policy)
    }
}
