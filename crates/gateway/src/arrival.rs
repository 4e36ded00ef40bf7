//! How a request came, and as whom it goes on.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kaudit_event::UserInfo;
use tokio::time::Instant;

use crate::cache::Key;
use crate::headers::Peer;
use crate::traffic::Passing;

/// What a certificate was worth holds for as long, unless authorities change.
const JUDGED: Duration = Duration::from_secs(10);

/// What is known of a request beside its head; in its extensions.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) peer: Peer,
    pub(crate) certificates: Option<Arc<Shown>>,
    /// Counted until the last of the request is gone.
    pub(crate) passing: Passing,
    passage: OnceLock<Passage>,
}

/// With whose credentials a request goes to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// With the client's own, or without any. The key names them.
    AsItCame(Key),
    /// With the gateway's, impersonating the user.
    Impersonating,
}

impl Arrival {
    pub(crate) const fn new(peer: Peer, certificates: Option<Arc<Shown>>, passing: Passing) -> Self {
        Self {
            peer,
            certificates,
            passing,
            passage: OnceLock::new(),
        }
    }

    /// Says how the request goes on; whoever finds out who asks says it.
    pub(crate) fn set_passage(&self, passage: Passage) {
        // A request is authenticated once: what was said first stays.
        self.passage.get_or_init(|| passage);
    }

    /// INVARIANT G-3: a request of which this was not said goes no further.
    pub(crate) fn passage(&self) -> Option<Passage> {
        self.passage.get().copied()
    }
}

/// The certificates that a peer showed, leaf first, and what they were worth when last looked at.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) chain: Vec<Bytes>,
    judged: Mutex<Option<Judged>>,
}

/// What certificates are worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Worth {
    /// Whether they are the front proxy's, whose headers come first.
    pub(crate) is_front_proxy: bool,
    pub(crate) as_user: AsUser,
}

/// What certificates are worth as a user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AsUser {
    /// They name this user.
    Named(Arc<UserInfo>),
    /// They are good and name nobody.
    Nameless,
    /// Nobody whom the gateway believes signed them.
    Foreign,
}

#[derive(Debug)]
struct Judged {
    generation: u64,
    until: Instant,
    worth: Worth,
}

impl Shown {
    pub(crate) const fn new(chain: Vec<Bytes>) -> Self {
        Self {
            chain,
            judged: Mutex::new(None),
        }
    }

    /// What the certificates are worth: as it was found before, or as `judge` finds now.
    pub(crate) fn worth(&self, generation: u64, judge: impl FnOnce(&[Bytes]) -> Worth) -> Worth {
        let now = Instant::now();
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = &*judged
            && before.generation == generation
            && before.until > now
        {
            return before.worth.clone();
        }
        let worth = judge(&self.chain);
        *judged = Some(Judged {
            generation,
            until: now + JUDGED,
            worth: worth.clone(),
        });
        worth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn certificates_are_judged_again_after_a_time_and_when_authorities_change() {
        let shown = Shown::new(vec![Bytes::from_static(b"certificate")]);
        let judge = |generation, as_user: AsUser| {
            let is_front_proxy = false;
            shown
                .worth(generation, |_| Worth {
                    is_front_proxy,
                    as_user,
                })
                .as_user
        };
        assert_eq!(judge(1, AsUser::Nameless), AsUser::Nameless);
        assert_eq!(judge(1, AsUser::Foreign), AsUser::Nameless);
        assert_eq!(judge(2, AsUser::Foreign), AsUser::Foreign);
        assert_eq!(judge(2, AsUser::Nameless), AsUser::Foreign);
        tokio::time::advance(JUDGED).await;
        assert_eq!(judge(2, AsUser::Nameless), AsUser::Nameless);
    }
}
