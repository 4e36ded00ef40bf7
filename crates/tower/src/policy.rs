//! The policy in force, which may change while requests are served.

use std::sync::{Arc, PoisonError, RwLock};

use kaudit_policy::Policy;

/// Shares one policy between the chain and whoever reloads it. A request is recorded by one policy from
/// its beginning to its end.
#[derive(Clone, Debug)]
pub struct PolicyHandle(Arc<RwLock<Option<Arc<Policy>>>>);

impl PolicyHandle {
    /// A handle on `policy`.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self(Arc::new(RwLock::new(Some(Arc::new(policy)))))
    }

    /// No policy: nothing is recorded.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::new(RwLock::new(None)))
    }

    /// Puts `policy` in force for requests from now on.
    pub fn replace(&self, policy: Policy) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(policy));
    }

    /// The policy in force.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Policy>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl From<Policy> for PolicyHandle {
    fn from(policy: Policy) -> Self {
        Self::new(policy)
    }
}
