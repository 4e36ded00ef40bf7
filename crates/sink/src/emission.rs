//! One event on its way to the sinks.

use std::cell::OnceCell;

use bytes::Bytes;
use kaudit_event::{EncodeError, Event, Level, ManagedFields, StageSet, Text};

/// The annotation of an event whose bodies were taken out because it was too large.
///
/// Source: k8s.io/apiserver plugin/pkg/audit/truncate/truncate.go.
const TRUNCATED: &str = "audit.k8s.io/truncated";

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

/// An event and its JSON line, which is encoded at most once however many sinks want it and however long
/// it waits in a queue.
#[derive(Debug)]
pub struct Emission<'a> {
    live: Form<'a>,
    /// The event from the moment on that a sink marked it.
    marked: OnceCell<Box<Form<'static>>>,
    annotations: Sharing,
    policy: Option<PolicyView>,
}

/// Whether an annotation that a sink adds to its copy of the event shows in the event itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    /// Go's map that is not nil: the copy has the same one.
    Shared,
    /// Go's nil map: the copy gets its own.
    Own,
}

#[derive(Debug)]
struct Form<'a> {
    event: Held<'a>,
    line: OnceCell<Result<Bytes, EncodeError>>,
}

#[derive(Debug)]
enum Held<'a> {
    Live(&'a Event),
    Kept(Box<Event>),
}

impl<'a> Form<'a> {
    const fn new(event: Held<'a>) -> Self {
        Self {
            event,
            line: OnceCell::new(),
        }
    }

    fn event(&self) -> &Event {
        match &self.event {
            Held::Live(event) => event,
            Held::Kept(event) => event,
        }
    }

    fn line(&self) -> Result<&Bytes, &EncodeError> {
        self.line
            .get_or_init(|| {
                let mut line = Vec::with_capacity(1024);
                self.event()
                    .write_json_line(&mut line)
                    .map(|()| Bytes::from(line))
            })
            .as_ref()
    }

    fn into_kept(self) -> Form<'static> {
        let event = match self.event {
            Held::Live(event) => Box::new(event.clone()),
            Held::Kept(event) => event,
        };
        Form {
            event: Held::Kept(event),
            line: self.line,
        }
    }
}

impl<'a> Emission<'a> {
    /// An event that nobody has encoded yet.
    #[must_use]
    pub const fn new(event: &'a Event) -> Self {
        let annotations = if event.annotations.is_empty() {
            Sharing::Own
        } else {
            Sharing::Shared
        };
        Self {
            live: Form::new(Held::Live(event)),
            marked: OnceCell::new(),
            annotations,
            policy: None,
        }
    }

    /// The same for an event whose annotations are Go's empty map rather than nil: a mark on it lasts
    /// although it has no other annotation.
    #[must_use]
    pub const fn with_annotation_map(event: &'a Event) -> Self {
        Self {
            live: Form::new(Held::Live(event)),
            marked: OnceCell::new(),
            annotations: Sharing::Shared,
            policy: None,
        }
    }

    /// An event of its own, for a sink that hands on a changed copy.
    #[must_use]
    pub fn owned(event: Event) -> Emission<'static> {
        let annotations = if event.annotations.is_empty() {
            Sharing::Own
        } else {
            Sharing::Shared
        };
        Emission {
            live: Form::new(Held::Kept(Box::new(event))),
            marked: OnceCell::new(),
            annotations,
            policy: None,
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

    fn form(&self) -> &Form<'_> {
        self.marked.get().map_or(&self.live, Box::as_ref)
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> &Event {
        self.form().event()
    }

    /// The log line of format `json`, with its final LF.
    ///
    /// # Errors
    ///
    /// The encoder's error, the same for every caller.
    pub fn line(&self) -> Result<&[u8], &EncodeError> {
        self.form().line().map(Bytes::as_ref)
    }

    /// This event and its line, if it has been encoded, to be kept beyond the call. The line's bytes are
    /// shared, and so are the event's texts and bodies.
    #[must_use]
    pub fn keep(&self) -> Emission<'static> {
        self.share().into_kept()
    }

    /// As [`Emission::keep`], without a copy where the event is kept already.
    #[must_use]
    pub fn into_kept(self) -> Emission<'static> {
        let form = match self.marked.into_inner() {
            Some(marked) => *marked,
            None => self.live.into_kept(),
        };
        Emission {
            live: form,
            marked: OnceCell::new(),
            annotations: self.annotations,
            policy: self.policy,
        }
    }

    /// The event alone; its line is let go.
    #[must_use]
    pub fn into_event(self) -> Event {
        match self.into_kept().live.event {
            Held::Live(event) => event.clone(),
            Held::Kept(event) => *event,
        }
    }

    /// The same event and line once more, for another sink.
    #[must_use]
    pub fn share(&self) -> Emission<'_> {
        let form = self.form();
        Emission {
            live: Form {
                event: Held::Live(form.event()),
                line: form.line.clone(),
            },
            marked: OnceCell::new(),
            annotations: self.annotations,
            policy: self.policy,
        }
    }

    /// Says that a sink handed on this event without its bodies.
    ///
    /// As upstream's truncated copy shares the annotations of the event it was made from, the sinks after
    /// this one and the request's later stages carry `audit.k8s.io/truncated` too, if there were
    /// annotations at all.
    pub fn mark_truncated(&self) {
        if self.annotations == Sharing::Shared {
            self.marked.get_or_init(|| {
                let mut event = self.live.event().clone();
                annotate_truncated(&mut event);
                Box::new(Form::new(Held::Kept(Box::new(event))))
            });
        }
    }

    /// Whether a sink marked the event; its producer then [annotates](annotate_truncated) it for the
    /// stages to come.
    #[must_use]
    pub fn is_marked_truncated(&self) -> bool {
        self.marked.get().is_some()
    }
}

/// Sets the annotation `audit.k8s.io/truncated` of `event` to `true`, whatever it was.
pub fn annotate_truncated(event: &mut Event) {
    event.annotations.retain(|(key, _)| *key != TRUNCATED);
    event
        .annotations
        .push((Text::from_static(TRUNCATED), Text::from_static("true")));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated() -> Event {
        Event {
            annotations: vec![(Text::from_static("a"), Text::from_static("b"))],
            ..Event::default()
        }
    }

    #[test]
    fn a_kept_event_shares_the_line_that_was_encoded() {
        let event = annotated();
        let emission = Emission::new(&event);
        let line = emission.line().unwrap().as_ptr();
        let kept = emission.keep().into_kept();
        assert_eq!(kept.line().unwrap().as_ptr(), line);
        assert_eq!(kept.share().line().unwrap().as_ptr(), line);
        assert_eq!(kept.event(), &event);
    }

    #[test]
    fn a_mark_shows_in_the_event_and_its_line_where_there_are_annotations() {
        let event = annotated();
        let emission = Emission::new(&event);
        assert!(!String::from_utf8_lossy(emission.line().unwrap()).contains(TRUNCATED));
        emission.mark_truncated();
        assert!(emission.is_marked_truncated());
        assert!(String::from_utf8_lossy(emission.line().unwrap()).contains(TRUNCATED));
        assert_eq!(emission.keep().event().annotations.len(), 2);

        let bare = Event::default();
        let emission = Emission::new(&bare);
        emission.mark_truncated();
        assert!(!emission.is_marked_truncated());
        let emission = Emission::with_annotation_map(&bare);
        emission.mark_truncated();
        assert!(emission.is_marked_truncated());
    }
}
