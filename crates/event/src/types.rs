//! The owned form of an event, as producers fill it.
//!
//! Field order is the emission order. Source: k8s.io/apiserver pkg/apis/audit/v1/types.go.

use std::fmt;

use bytes::Bytes;

use crate::{MicroTime, Text};

/// How much of a request is recorded.
///
/// The order is upstream's: each level includes the ones before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the API has exactly these four, and callers must look at each"
)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, what, when, from where, with what result.
    Metadata,
    /// Metadata and the request's body.
    Request,
    /// Metadata and both bodies.
    RequestResponse,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Self; 4] = [Self::None, Self::Metadata, Self::Request, Self::RequestResponse];

    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }

    /// The level of that name; case matters.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|level| level.as_str().as_bytes() == name)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When in the life of a request an event was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the API has exactly these four, and callers must look at each"
)]
pub enum Stage {
    /// Before the request is handed to its handler.
    RequestReceived,
    /// The response's head is about to be sent; long-running requests only. Also the stage that a
    /// new audit context starts in, as upstream's does.
    #[default]
    ResponseStarted,
    /// The response's last byte was sent.
    ResponseComplete,
    /// The handler panicked.
    Panic,
}

impl Stage {
    /// All stages, in upstream's order.
    pub const ALL: [Self; 4] = [
        Self::RequestReceived,
        Self::ResponseStarted,
        Self::ResponseComplete,
        Self::Panic,
    ];

    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }

    /// The stage of that name; case matters.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|stage| stage.as_str().as_bytes() == name)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StageSet(u8);

impl StageSet {
    /// The set without members.
    pub const EMPTY: Self = Self(0);

    const fn bit(stage: Stage) -> u8 {
        match stage {
            Stage::RequestReceived => 1,
            Stage::ResponseStarted => 2,
            Stage::ResponseComplete => 4,
            Stage::Panic => 8,
        }
    }

    /// This set and `stage`.
    #[must_use]
    pub const fn with(self, stage: Stage) -> Self {
        Self(self.0 | Self::bit(stage))
    }

    /// Members of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Members that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether `stage` is a member.
    #[must_use]
    pub const fn contains(self, stage: Stage) -> bool {
        self.0 & Self::bit(stage) != 0
    }

    /// The members in upstream's order.
    pub fn iter(self) -> impl Iterator<Item = Stage> {
        Stage::ALL.into_iter().filter(move |stage| self.contains(*stage))
    }
}

impl FromIterator<Stage> for StageSet {
    fn from_iter<I: IntoIterator<Item = Stage>>(stages: I) -> Self {
        stages.into_iter().fold(Self::EMPTY, Self::with)
    }
}

/// A value of an enumeration that may also hold a text nobody expected.
///
/// Producers write known values; a decoded event may carry anything, and it must survive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "known or not: there is no third case")]
pub enum Open<T> {
    /// One of the API's values.
    Known(T),
    /// Any other text, including the empty one.
    Other(Text),
}

impl<T: Copy> Open<T> {
    /// The API's value, if it is one.
    #[must_use]
    pub fn known(&self) -> Option<T> {
        match self {
            Self::Known(value) => Some(*value),
            Self::Other(_) => None,
        }
    }
}

impl<T> Default for Open<T> {
    fn default() -> Self {
        Self::Other(Text::default())
    }
}

impl<T> From<T> for Open<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl Open<Level> {
    /// The bytes that stand in the event.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Known(level) => level.as_str().as_bytes(),
            Self::Other(text) => text.as_bytes(),
        }
    }

    /// The level of that name, or the text as it is.
    #[must_use]
    pub fn from_text(text: Text) -> Self {
        Level::from_name(text.as_bytes()).map_or(Self::Other(text), Self::Known)
    }
}

impl Open<Stage> {
    /// The bytes that stand in the event.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Known(stage) => stage.as_str().as_bytes(),
            Self::Other(text) => text.as_bytes(),
        }
    }

    /// The stage of that name, or the text as it is.
    #[must_use]
    pub fn from_text(text: Text) -> Self {
        Stage::from_name(text.as_bytes()).map_or(Self::Other(text), Self::Known)
    }
}

/// Extra facts about a user: keys with their values, a nil list kept apart from an empty one.
pub type Extra = Vec<(Text, Option<Vec<Text>>)>;

/// Annotations: unique keys with one value each, in the order they were added.
pub type Annotations = Vec<(Text, Text)>;

/// One audit event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Type meta of the event itself: empty for events that producers make. A log line always says
    /// `Event`, whatever stands here; an item of an EventList repeats it.
    pub kind: Text,
    /// See [`Event::kind`].
    pub api_version: Text,
    /// How much was recorded.
    pub level: Open<Level>,
    /// Joins the events of one request; chosen by the client if it wants to.
    pub audit_id: Text,
    /// When in the request's life this event was made.
    pub stage: Open<Stage>,
    /// Path and query as Go's `URL.RequestURI` prints them.
    pub request_uri: Text,
    /// The Kubernetes verb, or the lower-case method of a non-resource request.
    pub verb: Text,
    /// Who asked, before impersonation.
    pub user: UserInfo,
    /// Who the request was carried out as.
    pub impersonated_user: Option<UserInfo>,
    /// How impersonation was constrained.
    pub authentication_metadata: Option<AuthenticationMetadata>,
    /// Addresses the request came through, claimed ones first, the peer last.
    pub source_ips: Vec<Text>,
    /// The client's own name for itself, cut at 1024 bytes.
    pub user_agent: Text,
    /// What was asked for; absent for non-resource requests.
    pub object_ref: Option<ObjectReference>,
    /// How the request ended.
    pub response_status: Option<Status>,
    /// The request's body.
    pub request_object: Option<Unknown>,
    /// The response's body.
    pub response_object: Option<Unknown>,
    /// When the request arrived.
    pub request_received_timestamp: MicroTime,
    /// When this stage was reached.
    pub stage_timestamp: MicroTime,
    /// What authenticators, authorizers, admission and others had to say.
    pub annotations: Annotations,
}

/// A user as an authenticator describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// The name that policies and RBAC match.
    pub username: Text,
    /// Tells apart two users of one name over time.
    pub uid: Text,
    /// Groups; `None` is Go's nil, which the legacy line tells apart from an empty list.
    pub groups: Option<Vec<Text>>,
    /// Further facts.
    pub extra: Extra,
}

/// How an identity was obtained.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthenticationMetadata {
    /// The constrained impersonation mode that applied.
    pub impersonation_constraint: Text,
}

/// The object a request was about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the fields are the parts of an object's address and named so"
)]
pub struct ObjectReference {
    pub resource: Text,
    pub namespace: Text,
    pub name: Text,
    pub uid: Text,
    pub api_group: Text,
    pub api_version: Text,
    pub resource_version: Text,
    pub subresource: Text,
}

/// `metav1.Status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `Status` where it was an object; empty in events.
    pub kind: Text,
    /// `v1` where it was an object; empty in events.
    pub api_version: Text,
    /// Always printed, `{}` if empty.
    pub metadata: ListMeta,
    /// `Success` or `Failure`.
    pub status: Text,
    /// For people.
    pub message: Text,
    /// For machines.
    pub reason: Text,
    /// About the object and the causes.
    pub details: Option<StatusDetails>,
    /// The HTTP status; 0 is not printed.
    pub code: i32,
}

/// `metav1.ListMeta`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields of metav1.ListMeta under their own names")]
pub struct ListMeta {
    pub self_link: Text,
    pub resource_version: Text,
    pub continue_token: Text,
    pub remaining_item_count: Option<i64>,
    pub shard_info: Option<ShardInfo>,
}

/// `metav1.ShardInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardInfo {
    /// The selector that defines the shard.
    pub selector: Text,
}

/// `metav1.StatusDetails`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields of metav1.StatusDetails under their own names")]
pub struct StatusDetails {
    pub name: Text,
    pub group: Text,
    pub kind: Text,
    pub uid: Text,
    pub causes: Vec<StatusCause>,
    pub retry_after_seconds: i32,
}

/// `metav1.StatusCause`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields of metav1.StatusCause under their own names")]
pub struct StatusCause {
    pub reason: Text,
    pub message: Text,
    pub field: Text,
}

/// A body kept as the bytes it was encoded to: Go's `runtime.Unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unknown {
    /// The bytes; `None` is Go's nil and prints `null`.
    pub raw: Option<Bytes>,
    /// Empty or `application/json` for JSON; anything else cannot be printed.
    pub content_type: Text,
}

impl Unknown {
    /// A body that is JSON text.
    #[must_use]
    pub fn json(raw: Bytes) -> Self {
        Self {
            raw: Some(raw),
            content_type: Text::from_static("application/json"),
        }
    }
}
