//! One event on its way to the sinks.

use std::cell::OnceCell;

use kaudit_event::{EncodeError, Event, Level, ManagedFields, StageSet};

/// What the policy lets sinks see of an event that was recorded in more detail for somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the three things that a policy decides")]
pub struct PolicyView {
    /// The level that the policy gives the request.
    pub level: Level,
    /// Stages that make no event by the policy.
    pub omit_stages: StageSet,
    /// Whether recorded objects keep their managedFields by the policy.
    pub managed_fields: ManagedFields,
}

/// An event and its JSON line, which is encoded at most once however many sinks want it.
#[derive(Debug)]
pub struct Emission<'a> {
    event: &'a Event,
    policy: Option<PolicyView>,
    line: OnceCell<Result<Vec<u8>, EncodeError>>,
}

impl<'a> Emission<'a> {
    /// An event that nobody has encoded yet.
    #[must_use]
    pub const fn new(event: &'a Event) -> Self {
        Self {
            event,
            policy: None,
            line: OnceCell::new(),
        }
    }

    /// The same event, of which sinks that live by the policy may see only so much. `None` is all of it.
    #[must_use]
    pub fn for_policy(mut self, policy: Option<PolicyView>) -> Self {
        self.policy = policy;
        self
    }

    /// What the policy lets a sink see, where that is not all.
    #[must_use]
    pub const fn policy(&self) -> Option<PolicyView> {
        self.policy
    }

    /// The event.
    #[must_use]
    pub const fn event(&self) -> &'a Event {
        self.event
    }

    /// The log line of format `json`, with its final LF.
    ///
    /// # Errors
    ///
    /// The encoder's error, the same for every caller.
    pub fn line(&self) -> Result<&[u8], &EncodeError> {
        self.line
            .get_or_init(|| {
                let mut line = Vec::with_capacity(1024);
                self.event.write_json_line(&mut line).map(|()| line)
            })
            .as_ref()
            .map(Vec::as_slice)
    }
}
