//! Places at which a test may stop the work as a crash would.

#[cfg(test)]
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::StoreError;

/// What has just been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A file is durable under its temporary name.
    Written,
    /// A file has its name.
    Published,
    /// The manifest names the files.
    Committed,
    /// The files that were replaced are gone, or the cursor has moved.
    Done,
}

/// Stops at the chosen step, in tests.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// 0 for never, otherwise the step that fails, counted down.
    #[cfg(test)]
    left: AtomicUsize,
}

impl Faults {
    /// Fails at the `count`th step from now.
    #[cfg(test)]
    pub(crate) fn set(&self, count: usize) {
        self.left.store(count, Ordering::Relaxed);
    }

    /// Whether the step that was set has not been reached.
    #[cfg(test)]
    pub(crate) fn is_left(&self) -> bool {
        self.left.load(Ordering::Relaxed) > 0
    }

    #[cfg(test)]
    pub(crate) fn after(&self, step: Step) -> Result<(), StoreError> {
        match self.left.load(Ordering::Relaxed) {
            0 => Ok(()),
            left => {
                self.left.store(left - 1, Ordering::Relaxed);
                if left == 1 {
                    return Err(StoreError::Columns(format!("a fault after {step:?}")));
                }
                Ok(())
            }
        }
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "in tests it may fail"
    )]
    pub(crate) const fn after(&self, _step: Step) -> Result<(), StoreError> {
        Ok(())
    }
}
