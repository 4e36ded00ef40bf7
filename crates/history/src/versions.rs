//! The versions of one object, from the events about it.
//!
//! An event's answer is the object after it: such a version is exact. Without the answer, the request
//! applied to the version before gives the version after, as far as a request tells: what the server fills
//! in, and what admission changes, is not in it. With neither, it is known that something changed and by
//! whom, but not what.

mod bodies;
mod origin;
mod reconstruct;
mod step;

use std::collections::VecDeque;
use std::sync::Arc;

use kaudit_event::EventView;
use serde_json::Value;

use crate::body;
use crate::target::Target;
pub use origin::Origin;

/// How well a version is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "these are all, and callers must show each"
)]
pub enum Exactness {
    /// The server said so.
    Exact,
    /// Made from the request and the version before.
    Reconstructed,
    /// Not known.
    Unavailable,
}

impl Exactness {
    /// As it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Reconstructed => "reconstructed",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What became of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "callers must show each")]
pub enum Effect {
    /// It came to be.
    Created,
    /// It was written.
    Changed,
    /// It was written as it was: the server gave it no new version.
    Unchanged,
    /// Somebody read it, and it was not as the events before tell: it changed without an event.
    Observed,
    /// It is to go, and stays until its finalizers or its grace period have ended.
    Terminating,
    /// It is gone.
    Deleted,
    /// It may have been created, under a name that the server made up.
    MayHaveBeenCreated,
    /// It may have been deleted, with others.
    MayHaveBeenDeleted,
}

/// What one event made of the object.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Version {
    /// Who wrote it.
    pub origin: Origin,
    /// What became of the object.
    pub effect: Effect,
    /// How well [`object`](Self::object) is known.
    pub exactness: Exactness,
    /// Why it is not known better, in words; empty for most exact versions.
    pub reason: String,
    /// The object after the event; absent if it is not known, and if there is none.
    pub object: Option<Arc<Value>>,
    /// The server's version, if known. It counts the writes to a whole cluster, so two that follow each
    /// other say nothing about what was between them.
    pub resource_version: Option<String>,
    /// The object's own identity, if known.
    pub uid: Option<String>,
    /// Counts the objects that had this name, from 0.
    pub incarnation: u32,
    /// In words, what shows that the object changed between this version and the one before without an
    /// event.
    pub unseen: Option<String>,
    /// What the request alone makes of the version before, where that version is not exact or something
    /// happened in between: tells this request's changes from the others.
    pub(crate) predicted: Option<Arc<Value>>,
}

impl Version {
    /// About how much memory it takes.
    fn size(&self) -> usize {
        let size = |object: &Option<Arc<Value>>| object.as_ref().map_or(0, |object| body::measure(object).1);
        size_of::<Self>() + self.reason.len() + size(&self.object) + size(&self.predicted)
    }
}

/// How much is kept of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "one field for each thing that grows")]
pub struct Limits {
    /// Versions; the oldest go first, the newest always stays.
    pub versions: usize,
    /// Bytes of memory that the kept versions take, about.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            versions: 1_000,
            bytes: 256 << 20,
        }
    }
}

/// What became of an event that was given to a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "callers may count each")]
pub enum Taken {
    /// It made a version.
    Version,
    /// It is not about the object.
    Unrelated,
    /// It is of a stage that tells nothing yet, or of a request that panicked.
    Stage,
    /// The request failed.
    Failed,
    /// A dry run.
    DryRun,
    /// It changed nothing: a read that agrees with what is known, or a subresource beside the object.
    NoChange,
}

/// The versions of one object, oldest first.
#[derive(Clone, Debug)]
pub struct History {
    target: Target,
    limits: Limits,
    /// With the size of each.
    versions: VecDeque<(Version, usize)>,
    forgotten: usize,
    bytes: usize,
    now: State,
}

/// What is known of the object as of the last event.
#[derive(Clone, Debug, Default)]
struct State {
    object: Option<Arc<Value>>,
    exactness: Option<Exactness>,
    resource_version: Option<String>,
    uid: Option<String>,
    incarnation: u32,
    /// The object is gone: what comes next is another one.
    is_gone: bool,
    /// Something was said of the object.
    is_begun: bool,
}

impl History {
    /// A history without versions.
    #[must_use]
    pub fn new(target: Target, limits: Limits) -> Self {
        Self {
            target,
            limits,
            versions: VecDeque::new(),
            forgotten: 0,
            bytes: 0,
            now: State::default(),
        }
    }

    /// The object.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Takes the next event, in order of stageTimestamp, then of arrival. `event` is the number by which
    /// the caller knows it.
    pub fn push(&mut self, event: u64, view: &EventView<'_>) -> Taken {
        match step::step(&self.target, &self.now, event, view) {
            Err(taken) => taken,
            Ok(version) => {
                self.take(version);
                Taken::Version
            }
        }
    }

    fn take(&mut self, version: Version) {
        let now = &mut self.now;
        now.is_begun = true;
        match version.effect {
            Effect::MayHaveBeenCreated | Effect::MayHaveBeenDeleted => {}
            effect => {
                now.object.clone_from(&version.object);
                now.exactness = Some(version.exactness);
                now.resource_version.clone_from(&version.resource_version);
                now.uid.clone_from(&version.uid);
                now.incarnation = version.incarnation;
                now.is_gone = effect == Effect::Deleted;
            }
        }
        let size = version.size();
        self.bytes += size;
        self.versions.push_back((version, size));
        while self.versions.len() > 1
            && (self.versions.len() > self.limits.versions || self.bytes > self.limits.bytes)
        {
            if let Some((_, size)) = self.versions.pop_front() {
                self.bytes -= size;
                self.forgotten += 1;
            }
        }
    }

    /// The kept versions, oldest first.
    pub fn versions(&self) -> impl DoubleEndedIterator<Item = &Version> + ExactSizeIterator {
        self.versions.iter().map(|(version, _)| version)
    }

    /// A version by its place among the kept ones.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Version> {
        self.versions.get(index).map(|(version, _)| version)
    }

    /// How many older versions the limits made it forget.
    #[must_use]
    pub const fn forgotten(&self) -> usize {
        self.forgotten
    }

    /// The place of the newest version whose object is known, not later than `micros` (microseconds since
    /// 1970) if a time is given.
    #[must_use]
    pub fn newest_known(&self, micros: Option<i64>) -> Option<usize> {
        self.versions().rposition(|version| {
            let time = version.origin.time;
            let at = time
                .unix_seconds
                .saturating_mul(1_000_000)
                .saturating_add(i64::from(time.nanos / 1_000));
            version.object.is_some() && micros.is_none_or(|limit| at <= limit)
        })
    }

    /// The place of the newest version before `index` that tells what the object was then: what a diff
    /// compares with. `None` for the first of an object.
    #[must_use]
    pub fn before(&self, index: usize) -> Option<usize> {
        let incarnation = self.get(index)?.incarnation;
        self.versions()
            .take(index)
            .rposition(|version| version.object.is_some() && version.incarnation == incarnation)
    }
}
