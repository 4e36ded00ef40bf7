//! The policy, enforced on sinks that live by it while others see more.

use std::sync::Arc;

use kaudit_event::Level;
use kaudit_sink::{Emission, Outcome, Reservation, Reserve, Sink};

/// Hands its delegate as much of each event as the policy lets it see. Where nobody asked for more than the
/// policy gives, it passes events on as they are.
///
/// Source: release-1.18 of k8s.io/apiserver plugin/pkg/audit/dynamic/enforced/enforced.go.
#[derive(Debug)]
pub struct Enforced(Arc<dyn Sink>);

impl Enforced {
    /// The policy between the chain and `delegate`.
    #[must_use]
    pub const fn new(delegate: Arc<dyn Sink>) -> Self {
        Self(delegate)
    }
}

impl Sink for Enforced {
    fn reserve(&self, events: u32) -> Reserve {
        self.0.reserve(events)
    }

    fn submit(&self, emission: &Emission<'_>, reservation: &mut Reservation) -> Outcome {
        let Some(policy) = emission.policy() else {
            return self.0.submit(emission, reservation);
        };
        let event = emission.event();
        let is_omitted = event
            .stage
            .known()
            .is_some_and(|stage| policy.omit_stages.contains(stage));
        if policy.level == Level::None || is_omitted {
            return Outcome::Accepted;
        }
        let event = event.at_level(policy.level, policy.managed_fields);
        let enforced = Emission::owned(event).by_rule(emission.rule());
        self.0.submit(&enforced, reservation)
    }

    fn name(&self) -> String {
        format!("enforced<{}>", self.0.name())
    }

    fn shutdown(&self) {
        self.0.shutdown();
    }
}

#[cfg(test)]
mod tests {
    use kaudit_event::{Event, ManagedFields, Stage, StageSet, Unknown};
    use kaudit_sink::recording::Recording;
    use kaudit_sink::{PolicyView, conformance};

    use super::*;

    /// What the delegate is handed of a RequestResponse event at ResponseComplete.
    fn seen(policy: Option<PolicyView>) -> Vec<serde_json::Value> {
        let recording = Recording::default();
        let sink = Enforced::new(Arc::new(recording.clone()));
        let event = Event {
            level: Level::RequestResponse.into(),
            stage: Stage::ResponseComplete.into(),
            request_object: Some(Unknown::json("{}".into())),
            ..conformance::event(0, 0)
        };
        let emission = Emission::new(&event).for_policy(policy);
        assert!(sink.submit(&emission, &mut Reservation::none()).is_accepted());
        let lines = recording.lines();
        lines
            .iter()
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    #[test]
    fn the_delegate_sees_what_the_policy_says() {
        let policy = |level, omit_stages| {
            Some(PolicyView {
                level,
                omit_stages,
                managed_fields: ManagedFields::Keep,
            })
        };
        assert_eq!(seen(None)[0]["level"], "RequestResponse");
        assert!(seen(policy(Level::None, StageSet::EMPTY)).is_empty());
        assert!(
            seen(policy(
                Level::Metadata,
                StageSet::EMPTY.with(Stage::ResponseComplete)
            ))
            .is_empty()
        );
        let metadata = &seen(policy(Level::Metadata, StageSet::EMPTY))[0];
        assert_eq!(metadata["level"], "Metadata");
        assert!(metadata.get("requestObject").is_none());
    }
}
