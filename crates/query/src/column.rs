//! The one table of columns: what a filter, a detection rule and a display may name.

use std::borrow::Cow;
use std::fmt;

use crate::path::{self, Path};

/// What can be asked of an event. Its name in a filter is its path in the event's JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the table COLUMNS says what each one is")]
#[non_exhaustive]
pub enum Column {
    StageTimestamp,
    RequestReceivedTimestamp,
    Latency,
    Verb,
    Level,
    Stage,
    AuditId,
    RequestUri,
    UserUsername,
    UserUid,
    UserGroups,
    /// The values of one key.
    UserExtra(String),
    ImpersonatedUsername,
    ImpersonatedUid,
    ImpersonatedGroups,
    /// The values of one key.
    ImpersonatedExtra(String),
    ImpersonationConstraint,
    ActorKind,
    SourceIps,
    SourceIp,
    UserAgent,
    Client,
    ObjectResource,
    ObjectNamespace,
    ObjectName,
    ObjectUid,
    ObjectApiGroup,
    ObjectApiVersion,
    ObjectResourceVersion,
    ObjectSubresource,
    ResponseCode,
    ResponseStatus,
    ResponseReason,
    ResponseMessage,
    /// The value of one key.
    Annotation(String),
    Decision,
    DeniedBy,
    Mutating,
    Bulk,
    ExecCommand,
    /// The values at a path in the request's body.
    RequestObject(Path),
    /// The values at a path in the response's body.
    ResponseObject(Path),
    Cluster,
    Source,
    Instance,
    Seq,
    PolicyRule,
    EventBytes,
}

/// What a column's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "who reads a column must know each type")]
pub enum ColumnType {
    /// One text; an empty one is an absent one, except in annotations.
    Text,
    /// Texts of which any may satisfy a test.
    TextList,
    /// A whole number.
    Number,
    /// True or false.
    Bool,
    /// An instant, microseconds since 1970 in UTC.
    Time,
    /// Microseconds.
    Duration,
    /// The scalars at a path of a body, of which any may satisfy a test.
    Json,
}

impl ColumnType {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::TextList => "list of texts",
            Self::Number => "number",
            Self::Bool => "true or false",
            Self::Time => "time",
            Self::Duration => "duration",
            Self::Json => "JSON",
        }
    }
}

/// Where a column's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "there is no other place")]
pub enum Origin {
    /// It stands in the event.
    Event,
    /// It is derived from what stands in the event.
    Derived,
    /// It stands in the journal's record of the event; events of a file have none.
    Envelope,
}

/// One row of the table.
#[derive(Debug)]
#[non_exhaustive]
pub struct ColumnInfo {
    /// The name in a filter; of a map or a body, what stands before the key.
    pub name: &'static str,
    /// A shorter name, if there is one; it may also stand before a key.
    pub short: Option<&'static str>,
    /// What the values are.
    pub column_type: ColumnType,
    /// Where they come from.
    pub origin: Origin,
    /// The only values there are, if these are few.
    pub values: &'static [&'static str],
    /// One line for people.
    pub doc: &'static str,
    make: Make,
}

#[derive(Debug)]
enum Make {
    Plain(Column),
    Keyed(fn(String) -> Column),
    Body(fn(Path) -> Column),
}

impl ColumnInfo {
    /// Whether the name is followed by a key.
    #[must_use]
    pub const fn has_key(&self) -> bool {
        matches!(self.make, Keyed(_))
    }

    /// Whether the name may be followed by a path.
    #[must_use]
    pub const fn has_path(&self) -> bool {
        matches!(self.make, Body(_))
    }

    /// The column, unless it needs a key.
    #[must_use]
    pub fn column(&self) -> Option<Column> {
        match &self.make {
            Plain(column) => Some(column.clone()),
            Keyed(_) => None,
            Body(make) => Some(make(Path::default())),
        }
    }
}

/// Rows of the table: name, short name, type, origin, how the column is made, the only values, a line.
macro_rules! table {
    ($($name:literal $short:expr, $type:ident $origin:ident $make:expr, $values:expr, $doc:literal;)*) => {
        /// Every column, in the order in which people look for them.
        pub static COLUMNS: &[ColumnInfo] = &[$(ColumnInfo {
            name: $name,
            short: $short,
            column_type: ColumnType::$type,
            origin: Origin::$origin,
            values: $values,
            doc: $doc,
            make: $make,
        }),*];
    };
}

use Make::{Body, Keyed, Plain};

static NO_ROW: ColumnInfo = ColumnInfo {
    name: "",
    short: None,
    column_type: ColumnType::Text,
    origin: Origin::Event,
    values: &[],
    doc: "",
    make: Plain(Column::Verb),
};

const LEVELS: &[&str] = &["None", "Metadata", "Request", "RequestResponse"];
const STAGES: &[&str] = &["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];
const ACTOR_KINDS: &[&str] = &[
    "human",
    "serviceaccount",
    "node",
    "component",
    "anonymous",
    "none",
];
const DENIED_BY: &[&str] = &["authn", "rbac", "podsecurity", "policy", "webhook", "quota"];

table! {
    "stageTimestamp" Some("time"), Time Event Plain(Column::StageTimestamp), &[], "when the stage was reached: the time of queries, order and partitions";
    "requestReceivedTimestamp" None, Time Event Plain(Column::RequestReceivedTimestamp), &[], "when the request arrived";
    "latency" None, Duration Derived Plain(Column::Latency), &[], "from the request's arrival to the stage";
    "verb" None, Text Event Plain(Column::Verb), &[], "the Kubernetes verb, or the lower-case method of a non-resource request";
    "level" None, Text Event Plain(Column::Level), LEVELS, "how much was recorded";
    "stage" None, Text Event Plain(Column::Stage), STAGES, "when in the request's life the event was made";
    "auditID" None, Text Event Plain(Column::AuditId), &[], "joins the events of one request; a client may choose it";
    "requestURI" None, Text Event Plain(Column::RequestUri), &[], "path and query as the client sent them";
    "user.username" Some("user"), Text Event Plain(Column::UserUsername), &[], "who asked, before impersonation";
    "user.uid" None, Text Event Plain(Column::UserUid), &[], "tells apart two users of one name";
    "user.groups" Some("group"), TextList Event Plain(Column::UserGroups), &[], "the user's groups";
    "user.extra" None, TextList Event Keyed(Column::UserExtra), &[], "further facts about the user, by key";
    "impersonatedUser.username" Some("as"), Text Event Plain(Column::ImpersonatedUsername), &[], "who the request was carried out as; absent without impersonation";
    "impersonatedUser.uid" None, Text Event Plain(Column::ImpersonatedUid), &[], "the impersonated user's uid";
    "impersonatedUser.groups" None, TextList Event Plain(Column::ImpersonatedGroups), &[], "the impersonated user's groups";
    "impersonatedUser.extra" None, TextList Event Keyed(Column::ImpersonatedExtra), &[], "further facts about the impersonated user, by key";
    "authenticationMetadata.impersonationConstraint" None, Text Event Plain(Column::ImpersonationConstraint), &[], "how impersonation was constrained";
    "actorKind" None, Text Derived Plain(Column::ActorKind), ACTOR_KINDS, "what kind of actor `user` is; `none` is a failed authentication";
    "sourceIPs" Some("ip"), TextList Event Plain(Column::SourceIps), &[], "addresses the request came through; a client can forge all but the last";
    "sourceIP" None, Text Derived Plain(Column::SourceIp), &[], "the last of `sourceIPs`, the one the server saw itself";
    "userAgent" Some("agent"), Text Event Plain(Column::UserAgent), &[], "what the client calls itself; `:` also compares the part before the first `/`";
    "client" None, Text Derived Plain(Column::Client), &[], "the family of the user agent, as kubectl or argocd";
    "objectRef.resource" Some("resource"), Text Event Plain(Column::ObjectResource), &[], "the resource in plural, as pods";
    "objectRef.namespace" Some("ns"), Text Event Plain(Column::ObjectNamespace), &[], "the object's namespace";
    "objectRef.name" Some("name"), Text Event Plain(Column::ObjectName), &[], "the object's name";
    "objectRef.uid" None, Text Event Plain(Column::ObjectUid), &[], "the object's uid";
    "objectRef.apiGroup" None, Text Event Plain(Column::ObjectApiGroup), &[], "the API group; absent for the core group";
    "objectRef.apiVersion" None, Text Event Plain(Column::ObjectApiVersion), &[], "the API version";
    "objectRef.resourceVersion" None, Text Event Plain(Column::ObjectResourceVersion), &[], "the object's resource version";
    "objectRef.subresource" None, Text Event Plain(Column::ObjectSubresource), &[], "the subresource, as exec or status";
    "responseStatus.code" Some("code"), Number Event Plain(Column::ResponseCode), &[], "the HTTP status";
    "responseStatus.status" None, Text Event Plain(Column::ResponseStatus), &[], "Success or Failure, where the server said so";
    "responseStatus.reason" Some("reason"), Text Event Plain(Column::ResponseReason), &[], "why it failed, in one word";
    "responseStatus.message" None, Text Event Plain(Column::ResponseMessage), &[], "why it failed, for people";
    "annotations" None, Text Event Keyed(Column::Annotation), &[], "what authorization, admission and others noted, by key";
    "decision" None, Text Derived Plain(Column::Decision), &[], "what authorization decided: allow or forbid";
    "deniedBy" None, Text Derived Plain(Column::DeniedBy), DENIED_BY, "what refused the request";
    "mutating" None, Bool Derived Plain(Column::Mutating), &[], "whether the verb writes";
    "bulk" None, Bool Derived Plain(Column::Bulk), &[], "deletecollection, or a list or watch without namespace and name";
    "execCommand" None, Text Derived Plain(Column::ExecCommand), &[], "the command of an exec, words joined by blanks";
    "requestObject" Some("req"), Json Event Body(Column::RequestObject), &[], "the request's body, by path; arrays are looked through";
    "responseObject" Some("resp"), Json Event Body(Column::ResponseObject), &[], "the response's body, by path; arrays are looked through";
    "cluster" None, Text Envelope Plain(Column::Cluster), &[], "the cluster the event is about";
    "source" None, Text Envelope Plain(Column::Source), &[], "where it was collected";
    "instance" None, Text Envelope Plain(Column::Instance), &[], "the apiserver it comes from";
    "seq" None, Number Envelope Plain(Column::Seq), &[], "its number in the journal";
    "policyRule" None, Number Envelope Plain(Column::PolicyRule), &[], "the policy rule that decided its level";
    "eventBytes" None, Number Envelope Plain(Column::EventBytes), &[], "how many bytes the event has";
}

impl Column {
    /// The column of a name as a filter writes it, shorthands included. `None` if there is none.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let (segments, length) = path::scan(name).ok()?;
        if length != name.len() {
            return None;
        }
        match Lookup::of(&segments) {
            Lookup::Found(column) => Some(column),
            _ => None,
        }
    }

    /// The row of the table.
    #[must_use]
    pub fn info(&self) -> &'static ColumnInfo {
        let is_it = |info: &&ColumnInfo| match (&info.make, self) {
            (Plain(column), own) => column == own,
            (Keyed(make), own) => std::mem::discriminant(&make(String::new())) == std::mem::discriminant(own),
            (Body(make), own) => {
                std::mem::discriminant(&make(Path::default())) == std::mem::discriminant(own)
            }
        };
        // A test holds that every column has its row.
        COLUMNS.iter().find(is_it).unwrap_or(&NO_ROW)
    }

    /// The name as a filter writes it; keys that are no names are quoted.
    #[must_use]
    pub fn name(&self) -> Cow<'static, str> {
        let name = self.info().name;
        match self {
            Self::UserExtra(key) | Self::ImpersonatedExtra(key) | Self::Annotation(key) => {
                let mut text = format!("{name}.");
                path::push_segment(&mut text, key);
                Cow::Owned(text)
            }
            Self::RequestObject(path) | Self::ResponseObject(path) if !path.segments().is_empty() => {
                Cow::Owned(format!("{name}.{path}"))
            }
            _ => Cow::Borrowed(name),
        }
    }

    /// What its values are.
    #[must_use]
    pub const fn column_type(&self) -> ColumnType {
        match self {
            Self::StageTimestamp | Self::RequestReceivedTimestamp => ColumnType::Time,
            Self::Latency => ColumnType::Duration,
            Self::UserGroups
            | Self::UserExtra(_)
            | Self::ImpersonatedGroups
            | Self::ImpersonatedExtra(_)
            | Self::SourceIps => ColumnType::TextList,
            Self::ResponseCode | Self::Seq | Self::PolicyRule | Self::EventBytes => ColumnType::Number,
            Self::Mutating | Self::Bulk => ColumnType::Bool,
            Self::RequestObject(_) | Self::ResponseObject(_) => ColumnType::Json,
            _ => ColumnType::Text,
        }
    }

    /// Whether an empty text is a value of its own: only in a map of texts and in a body.
    pub(crate) const fn knows_empty(&self) -> bool {
        matches!(
            self,
            Self::Annotation(_) | Self::RequestObject(_) | Self::ResponseObject(_)
        )
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// What a path of names turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    Found(Column),
    /// It is a map, or an object of the event: one of these names must follow.
    Incomplete(Vec<&'static str>),
    Unknown,
}

impl Lookup {
    pub(crate) fn of(segments: &[String]) -> Self {
        let whole = segments.join(".");
        for info in COLUMNS {
            for name in [Some(info.name), info.short].into_iter().flatten() {
                match &info.make {
                    Plain(column) if name == whole => return Self::Found(column.clone()),
                    Plain(_) => {}
                    Keyed(make) => {
                        if whole == name {
                            return Self::Incomplete(vec![info.name]);
                        }
                        if let Some(key) = whole.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) {
                            return Self::Found(make(key.to_owned()));
                        }
                    }
                    Body(make) => {
                        if let Some((first, path)) = segments.split_first()
                            && first == name
                        {
                            return Self::Found(make(Path::new(path.to_vec())));
                        }
                    }
                }
            }
        }
        let inside = |info: &&ColumnInfo| {
            info.name
                .strip_prefix(whole.as_str())
                .is_some_and(|rest| rest.starts_with('.'))
        };
        let names: Vec<_> = COLUMNS.iter().filter(inside).map(|info| info.name).collect();
        if names.is_empty() {
            Self::Unknown
        } else {
            Self::Incomplete(names)
        }
    }
}

/// The names nearest to one that does not exist, best first, at most three.
pub(crate) fn nearest(name: &str) -> Vec<&'static ColumnInfo> {
    let wanted = name.to_lowercase();
    let last = wanted.rsplit('.').next().unwrap_or(&wanted);
    let mut found: Vec<(usize, &ColumnInfo)> = COLUMNS
        .iter()
        .filter_map(|info| {
            let own = info.name.to_lowercase();
            let own_last = own.rsplit('.').next().unwrap_or(&own);
            let mut distance = strsim::damerau_levenshtein(&wanted, &own);
            distance = distance.min(1 + strsim::damerau_levenshtein(last, own_last));
            if own_last.len() >= 4 && last.ends_with(own_last) {
                distance = distance.min(2);
            }
            if let Some(short) = info.short {
                distance = distance.min(strsim::damerau_levenshtein(&wanted, short));
            }
            (distance <= 1 + wanted.len().min(12) / 3).then_some((distance, info))
        })
        .collect();
    found.sort_by_key(|(distance, info)| (*distance, info.name.len()));
    found.into_iter().map(|(_, info)| info).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_names_and_by_its_column() {
        for info in COLUMNS {
            let key = if info.has_key() { ".\"a/b.c\"" } else { "" };
            let column = Column::from_name(&format!("{}{key}", info.name)).unwrap();
            assert_eq!(column.info().name, info.name);
            assert_eq!(column.column_type(), info.column_type, "{}", info.name);
            assert_eq!(Column::from_name(&column.name()), Some(column.clone()));
            if let Some(short) = info.short {
                assert_eq!(Column::from_name(&format!("{short}{key}")), Some(column));
            }
        }
    }

    #[test]
    fn the_nearest_names_are_what_was_meant() {
        for (name, expected) in [
            ("usrname", "user.username"),
            ("username", "user.username"),
            ("namespace", "objectRef.namespace"),
            ("object.name", "objectRef.name"),
            ("userAgnt", "userAgent"),
            ("Verb", "verb"),
            ("statusCode", "responseStatus.code"),
            ("status", "responseStatus.status"),
        ] {
            assert_eq!(
                nearest(name).first().map(|info| info.name),
                Some(expected),
                "{name}"
            );
        }
        assert!(nearest("completelyelse").is_empty());
    }
}
