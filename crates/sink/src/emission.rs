//! One event on its way to the sinks.

use std::cell::OnceCell;

use bytes::Bytes;
use kaudit_event::{EncodeError, Event, Level, ManagedFields, StageSet, Text, write_json_item_of_line};

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
    rule: Option<u32>,
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
    /// Only its line was kept, and what of the event does not stand in it. It is read again where somebody
    /// needs the event after all, to report its loss.
    Line {
        kind: Text,
        api_version: Text,
        event: OnceCell<Box<Event>>,
    },
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
            Held::Line { event, .. } => event.get_or_init(|| {
                let line = self.line.get().and_then(|line| line.as_ref().ok());
                // What our encoder wrote our decoder reads.
                let event = line.and_then(|line| Event::from_json_line(line).ok());
                Box::new(event.unwrap_or_default())
            }),
        }
    }

    /// The type meta of the event itself, which its line always has.
    fn type_meta(&self) -> (&Text, &Text) {
        match &self.event {
            Held::Live(event) => (&event.kind, &event.api_version),
            Held::Kept(event) => (&event.kind, &event.api_version),
            Held::Line {
                kind, api_version, ..
            } => (kind, api_version),
        }
    }

    fn line(&self) -> Result<&Bytes, &EncodeError> {
        self.line
            .get_or_init(|| {
                // What an event at Metadata takes, mostly.
                let mut line = Vec::with_capacity(1536);
                self.event()
                    .write_json_line(&mut line)
                    .map(|()| Bytes::from(line))
            })
            .as_ref()
    }

    fn into_kept(self) -> Form<'static> {
        let event = match self.event {
            Held::Live(event) => Held::Kept(Box::new(event.clone())),
            Held::Kept(event) => Held::Kept(event),
            Held::Line {
                kind,
                api_version,
                event,
            } => Held::Line {
                kind,
                api_version,
                event,
            },
        };
        Form {
            event,
            line: self.line,
        }
    }

    /// The form with its line alone; `None` where the event cannot be encoded.
    fn line_alone(&self) -> Option<Form<'static>> {
        let line = self.line().ok()?.clone();
        let (kind, api_version) = self.type_meta();
        Some(Form {
            event: Held::Line {
                kind: kind.clone(),
                api_version: api_version.clone(),
                event: OnceCell::new(),
            },
            line: OnceCell::from(Ok(line)),
        })
    }

    fn share(&self) -> Form<'_> {
        if matches!(self.event, Held::Line { .. })
            && let Some(form) = self.line_alone()
        {
            return form;
        }
        Form {
            event: Held::Live(self.event()),
            line: self.line.clone(),
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
            rule: None,
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
            rule: None,
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
            rule: None,
        }
    }

    /// An event of which its line is at hand, with its LF, and the type meta that its item in an EventList
    /// has. For a sink that [takes lines](crate::Sink::takes_lines) and kept one outside of this process.
    #[must_use]
    pub fn of_line(line: Bytes, kind: Text, api_version: Text) -> Emission<'static> {
        Emission {
            live: Form {
                event: Held::Line {
                    kind,
                    api_version,
                    event: OnceCell::new(),
                },
                line: OnceCell::from(Ok(line)),
            },
            marked: OnceCell::new(),
            annotations: Sharing::Own,
            policy: None,
            rule: None,
        }
    }

    /// The type meta of the event itself, which is seldom set: kind and API version. The line always has it.
    #[must_use]
    pub fn type_meta(&self) -> (&Text, &Text) {
        self.form().type_meta()
    }

    /// The same event, of which sinks that live by the policy may see only so much. `None` is all of it.
    #[must_use]
    pub fn for_policy(mut self, policy: Option<PolicyView>) -> Self {
        self.policy = policy;
        self
    }

    /// The same event, recorded by this rule of the policy, the first being 0.
    #[must_use]
    pub const fn by_rule(mut self, rule: Option<u32>) -> Self {
        self.rule = rule;
        self
    }

    /// The rule of the policy that recorded it, where its producer says.
    #[must_use]
    pub const fn rule(&self) -> Option<u32> {
        self.rule
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
            rule: self.rule,
        }
    }

    /// As [`Emission::keep`], for a sink that [takes lines](crate::Sink::takes_lines): the event is encoded
    /// now and only its line is kept, which is one piece of memory where the event is dozens.
    #[must_use]
    pub fn keep_line(&self) -> Emission<'static> {
        match self.form().line_alone() {
            Some(live) => Emission {
                live,
                marked: OnceCell::new(),
                annotations: self.annotations,
                policy: self.policy,
                rule: self.rule,
            },
            None => self.keep(),
        }
    }

    /// Appends the event as an item of an EventList, without encoding it again.
    ///
    /// # Errors
    ///
    /// As [`Emission::line`]; then nothing is appended.
    pub fn push_item(&self, out: &mut Vec<u8>) -> Result<(), &EncodeError> {
        let form = self.form();
        let line = form.line()?;
        let (kind, api_version) = form.type_meta();
        write_json_item_of_line(kind, api_version, line, out);
        Ok(())
    }

    /// The same event and line once more, for another sink.
    #[must_use]
    pub fn share(&self) -> Emission<'_> {
        Emission {
            live: self.form().share(),
            marked: OnceCell::new(),
            annotations: self.annotations,
            policy: self.policy,
            rule: self.rule,
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
    fn a_line_that_was_kept_alone_is_the_same_line_and_item_and_gives_the_event_again() {
        let event = annotated();
        let emission = Emission::new(&event);
        let kept = emission.keep_line();
        assert_eq!(kept.line().unwrap().as_ptr(), emission.line().unwrap().as_ptr());
        assert_eq!(kept.share().line().unwrap(), emission.line().unwrap());
        let item = |emission: &Emission<'_>| {
            let mut item = Vec::new();
            emission.push_item(&mut item).unwrap();
            item
        };
        let mut expected = Vec::new();
        event.write_json_item(&mut expected).unwrap();
        assert_eq!(item(&kept), expected);
        assert_eq!(item(&kept.into_kept()), expected);
        let again = emission.keep_line();
        assert_eq!(again.event().annotations, event.annotations);
    }

    #[test]
    fn what_is_kept_or_shared_knows_its_rule() {
        let event = annotated();
        let emission = Emission::new(&event).by_rule(Some(3));
        for other in [
            emission.keep(),
            emission.keep_line(),
            emission.keep_line().into_kept(),
            emission.share(),
        ] {
            assert_eq!(other.rule(), Some(3));
        }
    }

    #[test]
    fn an_event_of_a_line_has_that_line_and_the_item_of_its_type_meta() {
        let event = annotated();
        let emission = Emission::new(&event);
        let (kind, api_version) = emission.type_meta();
        let line = Bytes::copy_from_slice(emission.line().unwrap());
        let again = Emission::of_line(line, kind.clone(), api_version.clone());
        assert_eq!(again.line(), emission.line());
        let item = |emission: &Emission<'_>| {
            let mut item = Vec::new();
            emission.push_item(&mut item).unwrap();
            item
        };
        assert_eq!(item(&again), item(&emission));
        assert_eq!(again.event().annotations, event.annotations);
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
