//! One event with what its journal record says of it, and the values of its columns.

use std::borrow::Cow;

use kaudit_event::{EventView, MicroTime, ObjectView};

use crate::column::Column;
use crate::derived;
use crate::json;

/// An event and its envelope.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "readers build it")]
pub struct Row<'a> {
    /// The event.
    pub event: EventView<'a>,
    /// What is known beside it.
    pub envelope: Envelope<'a>,
}

/// What a journal record says of its event; a file says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "readers build it")]
pub struct Envelope<'a> {
    /// The cluster it is about.
    pub cluster: Option<&'a str>,
    /// Where it was collected.
    pub source: Option<&'a str>,
    /// The apiserver it comes from.
    pub instance: Option<&'a str>,
    /// Its number in the journal.
    pub seq: Option<u64>,
    /// When it was taken in, microseconds since 1970 in UTC.
    pub received_micros: Option<i64>,
    /// The policy rule that decided its level.
    pub policy_rule: Option<u32>,
    /// How many bytes the event has.
    pub event_bytes: Option<u64>,
}

/// A value of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "who shows values must know each kind")]
pub enum Value<'a> {
    /// There is none.
    Absent,
    /// One text.
    Text(Cow<'a, [u8]>),
    /// Several texts, at least one.
    Texts(Vec<Cow<'a, [u8]>>),
    /// A whole number.
    Number(i64),
    /// True or false.
    Bool(bool),
    /// An instant, microseconds since 1970 in UTC.
    Time(i64),
    /// Microseconds.
    Duration(i64),
    /// The JSON values at a path, at least one, as they stand.
    Json(Vec<&'a [u8]>),
}

/// Microseconds since 1970 in UTC; of what is beyond 292,000 years the nearest.
#[must_use]
pub const fn micros(time: MicroTime) -> i64 {
    time.unix_seconds
        .saturating_mul(1_000_000)
        .saturating_add((time.nanos / 1000) as i64)
}

/// A text of which an empty one is an absent one.
fn present(text: Cow<'_, [u8]>) -> Option<Cow<'_, [u8]>> {
    (!text.is_empty()).then_some(text)
}

impl<'a> Row<'a> {
    /// An event from a file.
    #[must_use]
    pub fn of(event: EventView<'a>) -> Self {
        Self {
            event,
            envelope: Envelope::default(),
        }
    }

    /// The value of a column, for displays and counting. Allocates for lists; a filter does not use it.
    #[must_use]
    pub fn value(&self, column: &Column) -> Value<'a> {
        use crate::ColumnType as T;
        match column.column_type() {
            T::Text => self.text(column).map_or(Value::Absent, Value::Text),
            T::TextList => {
                let mut texts = Vec::new();
                self.texts(column, &mut |text| {
                    texts.push(text);
                    false
                });
                if texts.is_empty() {
                    Value::Absent
                } else {
                    Value::Texts(texts)
                }
            }
            T::Number => self.number(column).map_or(Value::Absent, Value::Number),
            T::Bool => self.bool(column).map_or(Value::Absent, Value::Bool),
            T::Time => self.number(column).map_or(Value::Absent, Value::Time),
            T::Duration => self.number(column).map_or(Value::Absent, Value::Duration),
            T::Json => {
                let mut values = Vec::new();
                self.json(column, &mut |value| {
                    values.push(value);
                    false
                });
                if values.is_empty() {
                    Value::Absent
                } else {
                    Value::Json(values)
                }
            }
        }
    }

    fn reference(&self, key: &str) -> Option<Cow<'a, [u8]>> {
        present(self.event.object_ref()?.text(key))
    }

    fn status(&self, key: &str) -> Option<Cow<'a, [u8]>> {
        present(self.event.response_status()?.text(key))
    }

    fn code(&self) -> Option<i64> {
        self.event.response_status()?.integer("code")
    }

    fn decision(&self) -> Option<Cow<'a, [u8]>> {
        self.event.annotation(derived::DECISION).and_then(present)
    }

    /// The value of a column of texts.
    pub(crate) fn text(&self, column: &Column) -> Option<Cow<'a, [u8]>> {
        let event = &self.event;
        let envelope = |text: Option<&'a str>| text.map(|text| Cow::Borrowed(text.as_bytes()));
        let name = |name: &'static str| Some(Cow::Borrowed(name.as_bytes()));
        match column {
            Column::Level => event.level().and_then(|level| name(level.as_str())),
            Column::Stage => event.stage().and_then(|stage| name(stage.as_str())),
            Column::AuditId => present(event.audit_id()),
            Column::RequestUri => present(event.request_uri()),
            Column::Verb => present(event.verb()),
            Column::UserUsername => present(event.user().text("username")),
            Column::UserUid => present(event.user().text("uid")),
            Column::ImpersonatedUsername => present(event.impersonated_user()?.text("username")),
            Column::ImpersonatedUid => present(event.impersonated_user()?.text("uid")),
            Column::ImpersonationConstraint => self.impersonation_constraint(),
            Column::ActorKind => {
                let user = event.user();
                name(derived::actor_kind(&user.text("username")).as_str())
            }
            Column::SourceIp => event.source_ips().last().and_then(present),
            Column::UserAgent => present(event.user_agent()),
            Column::Client => match event.user_agent() {
                Cow::Borrowed(agent) => derived::client(agent),
                Cow::Owned(agent) => derived::client(&agent).map(|client| Cow::Owned(client.into_owned())),
            },
            Column::ObjectResource => self.reference("resource"),
            Column::ObjectNamespace => self.reference("namespace"),
            Column::ObjectName => self.reference("name"),
            Column::ObjectUid => self.reference("uid"),
            Column::ObjectApiGroup => self.reference("apiGroup"),
            Column::ObjectApiVersion => self.reference("apiVersion"),
            Column::ObjectResourceVersion => self.reference("resourceVersion"),
            Column::ObjectSubresource => self.reference("subresource"),
            Column::ResponseStatus => self.status("status"),
            Column::ResponseReason => self.status("reason"),
            Column::ResponseMessage => self.status("message"),
            Column::Annotation(key) => event.annotation(key),
            Column::Decision => self.decision(),
            Column::DeniedBy => {
                let message = self.status("message").unwrap_or_default();
                derived::denied_by(self.code(), &self.decision().unwrap_or_default(), &message)
                    .and_then(|by| name(by.as_str()))
            }
            Column::ExecCommand => {
                let subresource = self.reference("subresource").unwrap_or_default();
                derived::exec_command(&subresource, &event.request_uri()).map(Cow::Owned)
            }
            Column::Cluster => envelope(self.envelope.cluster),
            Column::Source => envelope(self.envelope.source),
            Column::Instance => envelope(self.envelope.instance),
            _ => None,
        }
    }

    fn impersonation_constraint(&self) -> Option<Cow<'a, [u8]>> {
        present(
            self.event
                .authentication_metadata()?
                .text("impersonationConstraint"),
        )
    }

    /// Gives the texts of a list to `found` until it answers true.
    pub(crate) fn texts(&self, column: &Column, found: &mut dyn FnMut(Cow<'a, [u8]>) -> bool) -> bool {
        let user = self.event.user();
        let impersonated = || self.event.impersonated_user();
        let of = |user: Option<ObjectView<'a>>, key: &str, found: &mut dyn FnMut(Cow<'a, [u8]>) -> bool| {
            user.is_some_and(|user| user.texts(key).any(found))
        };
        match column {
            Column::UserGroups => user.texts("groups").any(found),
            Column::UserExtra(key) => of(Some(user.object("extra")), key, found),
            Column::ImpersonatedGroups => of(impersonated(), "groups", found),
            Column::ImpersonatedExtra(key) => of(impersonated().map(|user| user.object("extra")), key, found),
            Column::SourceIps => self.event.source_ips().any(found),
            _ => false,
        }
    }

    /// The value of a column of numbers, times or durations.
    pub(crate) fn number(&self, column: &Column) -> Option<i64> {
        match column {
            Column::ResponseCode => self.code(),
            Column::StageTimestamp => self.event.stage_timestamp().map(micros),
            Column::RequestReceivedTimestamp => self.event.request_received_timestamp().map(micros),
            Column::Latency => derived::latency(
                self.event.request_received_timestamp().map(micros),
                self.event.stage_timestamp().map(micros),
            ),
            Column::Seq => i64::try_from(self.envelope.seq?).ok(),
            Column::PolicyRule => self.envelope.policy_rule.map(i64::from),
            Column::EventBytes => i64::try_from(self.envelope.event_bytes?).ok(),
            _ => None,
        }
    }

    /// The value of a column of yes and no.
    pub(crate) fn bool(&self, column: &Column) -> Option<bool> {
        let verb = self.event.verb();
        match column {
            Column::Mutating => Some(derived::mutating(&verb)),
            Column::Bulk => {
                let part = |key| self.reference(key).unwrap_or_default();
                Some(derived::bulk(
                    &verb,
                    &part("resource"),
                    &part("namespace"),
                    &part("name"),
                ))
            }
            _ => None,
        }
    }

    /// Gives the values at a body's path to `found` until it answers true.
    pub(crate) fn json(&self, column: &Column, found: &mut dyn FnMut(&'a [u8]) -> bool) -> bool {
        let (body, path) = match column {
            Column::RequestObject(path) => (self.event.request_object(), path),
            Column::ResponseObject(path) => (self.event.response_object(), path),
            _ => return false,
        };
        body.is_some_and(|body| json::at_path(body, path.segments(), found))
    }
}
