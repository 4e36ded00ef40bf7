//! Memory that all requests together may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that may wait for memory at once; further ones are turned away.
const WAITING: usize = 64;

/// Bytes, shared by all requests, in pieces of a KiB.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    patience: Duration,
}

/// What one request holds.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
    kib: usize,
}

/// There is no memory left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

impl Budget {
    /// `bytes` in all; a request waits for some at most `patience`.
    pub(crate) fn new(bytes: usize, patience: Duration) -> Self {
        Self {
            free: Arc::new(Semaphore::new((bytes / 1024).min(Semaphore::MAX_PERMITS))),
            waiting: Arc::default(),
            patience,
        }
    }

    /// The share of a request that begins.
    pub(crate) const fn share(self) -> Share {
        Share {
            budget: self,
            permit: None,
            kib: 0,
        }
    }
}

impl Share {
    /// Lets the share hold `bytes`, or less than before.
    pub(crate) async fn hold(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let kib = bytes.div_ceil(1024);
        if kib <= self.kib {
            if let Some(permit) = &mut self.permit
                && kib + SLACK_KIB < self.kib
            {
                drop(permit.split(self.kib - kib));
                self.kib = kib;
            }
            return Ok(());
        }
        let more = u32::try_from(kib - self.kib).map_err(|_| Exhausted)?;
        let permit = match Arc::clone(&self.budget.free).try_acquire_many_owned(more) {
            Ok(permit) => permit,
            Err(_) => self.budget.wait(more).await?,
        };
        match &mut self.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        self.kib = kib;
        Ok(())
    }
}

/// So much is not worth giving back and taking again.
const SLACK_KIB: usize = 256;

impl Budget {
    async fn wait(&self, kib: u32) -> Result<OwnedSemaphorePermit, Exhausted> {
        struct Waits<'a>(&'a AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        if before >= WAITING {
            return Err(Exhausted);
        }
        let permit = Arc::clone(&self.free).acquire_many_owned(kib);
        match tokio::time::timeout(self.patience, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Exhausted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_bounded_and_comes_back() {
        let budget = Budget::new(1 << 20, Duration::from_secs(5));
        let mut first = budget.clone().share();
        first.hold(900 << 10).await.unwrap();
        let mut second = budget.clone().share();
        assert_eq!(second.hold(200 << 10).await, Err(Exhausted));
        first.hold(100 << 10).await.unwrap();
        second.hold(900 << 10).await.unwrap();
        drop(first);
        second.hold(1 << 20).await.unwrap();
        drop(second);
        assert_eq!(budget.free.available_permits(), 1024);
        assert_eq!(budget.waiting.load(Ordering::Relaxed), 0);
        // More than there is is never had.
        assert_eq!(budget.share().hold(2 << 20).await, Err(Exhausted));
    }
}
