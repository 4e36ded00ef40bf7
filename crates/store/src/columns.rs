//! From journal records to columns.
//!
//! Every finished batch is read back: each event is put together from its columns and compared with what was
//! received; where they differ the row keeps the received bytes in `raw`.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::builder::{
    BinaryBuilder, Int32Builder, Int64Builder, ListBuilder, MapBuilder, MapFieldNames, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use kaudit_event::record::RecordHead;
use kaudit_event::{DecodedEvent, EventView, MicroTime, ObjectView, push_json_string};

use crate::StoreError;
use crate::line::{Line, User, pairs, texts, unescaped};
use crate::rebuild::Rows;
use crate::schema::{self, Col};

/// The annotation in which the authorizer says what it decided.
const DECISION: &str = "authorization.k8s.io/decision";

/// How many bytes a thousand rows took in each column of texts, of batches that were built before: room that is taken at
/// once need not be moved as it grows.
#[derive(Debug)]
pub(crate) struct Sizes([AtomicUsize; schema::COLUMN_COUNT]);

const ROWS_OF_SIZE: usize = 1000;

impl Default for Sizes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicUsize::new(0)))
    }
}

impl Sizes {
    fn builder(&self, column: usize, rows: usize) -> StringBuilder {
        let size = self.0.get(column).map_or(0, |size| size.load(Ordering::Relaxed));
        let bytes = size.saturating_mul(rows) / ROWS_OF_SIZE;
        StringBuilder::with_capacity(rows, (bytes + bytes / 8).min(MOST_TAKEN_BYTES))
    }

    fn note(&self, column: usize, rows: usize, bytes: usize) {
        if let (Some(size), Some(of_rows)) = (self.0.get(column), (bytes * ROWS_OF_SIZE).checked_div(rows)) {
            size.store(of_rows, Ordering::Relaxed);
        }
    }
}

/// More room is not taken at once.
const MOST_TAKEN_BYTES: usize = 16 << 20;

/// Collects rows for one batch.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    originals: Vec<&'a [u8]>,
    ts: TimestampMicrosecondBuilder,
    received_delta: Int64Builder,
    seq: Int64Builder,
    ingested: TimestampMicrosecondBuilder,
    policy_rule: Int32Builder,
    code: Int32Builder,
    bytes: Int32Builder,
    /// Columns of texts, at their places in the schema.
    texts: Vec<Option<StringBuilder>>,
    impersonated_groups: ListBuilder<StringBuilder>,
    groups: ListBuilder<StringBuilder>,
    source_ips: ListBuilder<StringBuilder>,
    annotations: MapBuilder<StringBuilder, StringBuilder>,
    extra: String,
}

fn micros_builder(rows: usize) -> TimestampMicrosecondBuilder {
    TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC")
}

fn list_builder(column: Col, rows: usize, sizes: &Sizes) -> ListBuilder<StringBuilder> {
    let texts = sizes.builder(column.at(), rows);
    ListBuilder::with_capacity(texts, rows).with_field(schema::list_item())
}

impl<'a> Builder<'a> {
    pub(crate) fn new(rows: usize, sizes: &Sizes) -> Self {
        let schema = schema::schema();
        let texts = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(at, field)| {
                let is_text = *field.data_type() == arrow_schema::DataType::Utf8;
                is_text.then(|| sizes.builder(at, rows))
            })
            .collect();
        let names = MapFieldNames {
            entry: schema::MAP_ENTRIES.to_owned(),
            key: schema::MAP_KEY.to_owned(),
            value: schema::MAP_VALUE.to_owned(),
        };
        let value = arrow_schema::Field::new(schema::MAP_VALUE, arrow_schema::DataType::Utf8, false);
        Self {
            originals: Vec::with_capacity(rows),
            ts: micros_builder(rows),
            received_delta: Int64Builder::with_capacity(rows),
            seq: Int64Builder::with_capacity(rows),
            ingested: micros_builder(rows),
            policy_rule: Int32Builder::with_capacity(rows),
            code: Int32Builder::with_capacity(rows),
            bytes: Int32Builder::with_capacity(rows),
            texts,
            impersonated_groups: list_builder(Col::ImpersonatedGroups, rows, sizes),
            groups: list_builder(Col::Groups, rows, sizes),
            source_ips: list_builder(Col::SourceIps, rows, sizes),
            annotations: MapBuilder::with_capacity(
                Some(names),
                sizes.builder(Col::Annotations.at(), rows),
                sizes.builder(Col::Annotations.at(), rows),
                rows,
            )
            .with_values_field(value),
            extra: String::new(),
        }
    }

    /// Adds a row. An event without a stageTimestamp is filed under the time it was taken in.
    pub(crate) fn push(&mut self, seq: u64, record: &RecordHead<'_>, event: &'a [u8]) {
        let event = event.strip_suffix(b"\n").unwrap_or(event);
        self.seq.append_value(i64::try_from(seq).unwrap_or(i64::MAX));
        self.ingested.append_value(record.received_micros);
        self.text(Col::Cluster, Some(record.cluster));
        self.text(Col::Source, Some(record.source));
        self.text(Col::Instance, Some(record.instance));
        self.policy_rule
            .append_option(record.matched_rule.and_then(|rule| i32::try_from(rule).ok()));
        self.text(Col::PolicyHash, None);
        self.bytes
            .append_value(i32::try_from(event.len()).unwrap_or(i32::MAX));
        let fields = std::str::from_utf8(event)
            .ok()
            .and_then(Line::scan)
            .and_then(|line| Fields::of_line(&line));
        match fields {
            Some(fields) => self.fields(&fields, record.received_micros),
            None => match DecodedEvent::parse(Bytes::copy_from_slice(event)) {
                Ok(decoded) => self.fields(&Fields::of_view(decoded.view()), record.received_micros),
                Err(_) => self.fields(&Fields::default(), record.received_micros),
            },
        }
        self.originals.push(event);
    }

    fn text(&mut self, column: Col, value: Option<&str>) {
        if let Some(Some(builder)) = self.texts.get_mut(column.at()) {
            builder.append_option(value);
        }
    }

    fn fields(&mut self, fields: &Fields<'_>, ingested: i64) {
        let ts = fields.stage_time.unwrap_or(ingested);
        self.ts.append_value(ts);
        let delta = fields
            .received
            .filter(|_| fields.stage_time.is_some())
            .and_then(|received| ts.checked_sub(received));
        self.received_delta.append_option(delta);
        for (column, value) in [
            (Col::AuditId, &fields.audit_id),
            (Col::Level, &fields.level),
            (Col::Stage, &fields.stage),
            (Col::Verb, &fields.verb),
            (Col::User, &fields.user),
            (Col::RequestUri, &fields.request_uri),
        ] {
            self.text(column, Some(value));
        }
        for (column, value) in [
            (Col::UserUid, &fields.user_uid),
            (Col::ImpersonatedUser, &fields.impersonated_user),
            (Col::UserAgent, &fields.user_agent),
            (Col::Reason, &fields.reason),
            (Col::Message, &fields.message),
            (Col::Status, &fields.status),
        ] {
            self.text(column, value.as_deref());
        }
        for (column, value) in OBJECT_COLUMNS.into_iter().zip(&fields.object) {
            self.text(column, value.as_deref());
        }
        self.text(Col::UserExtra, fields.user_extra.as_deref());
        self.text(Col::RequestObject, fields.request_object.as_deref());
        self.text(Col::ResponseObject, fields.response_object.as_deref());
        self.code.append_option(fields.code);
        push_list(
            &mut self.impersonated_groups,
            fields.impersonated_groups.as_deref(),
        );
        push_list(&mut self.groups, fields.groups.as_deref());
        push_list(&mut self.source_ips, fields.source_ips.as_deref());
        let mut decision = None;
        for (key, value) in fields.annotations.iter().flatten() {
            if key == DECISION && decision.is_none() {
                decision = Some(&**value);
            }
            self.annotations.keys().append_value(key);
            self.annotations.values().append_value(value);
        }
        // The parts have the same length, so this is no error.
        drop(self.annotations.append(fields.annotations.is_some()));
        self.text(Col::Decision, decision);
        let mut extra = std::mem::take(&mut self.extra);
        extra.clear();
        fields.extra.write(&mut extra);
        self.text(Col::Extra, (!extra.is_empty()).then_some(extra.as_str()));
        self.extra = extra;
    }

    pub(crate) const fn rows(&self) -> usize {
        self.originals.len()
    }

    /// The rows as a batch.
    pub(crate) fn finish(mut self, sizes: &Sizes) -> Result<RecordBatch, StoreError> {
        let rows = self.rows();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema::COLUMN_COUNT);
        for (column, list) in [
            (Col::Groups, &mut self.groups),
            (Col::SourceIps, &mut self.source_ips),
        ] {
            sizes.note(column.at(), rows, list.values().values_slice().len());
        }
        let keys = self.annotations.keys().values_slice().len();
        let longer = keys.max(self.annotations.values().values_slice().len());
        sizes.note(Col::Annotations.at(), rows, longer);
        for column in Col::all() {
            columns.push(match column {
                Col::Ts => Arc::new(self.ts.finish()),
                Col::ReceivedDelta => Arc::new(self.received_delta.finish()),
                Col::Seq => Arc::new(self.seq.finish()),
                Col::Ingested => Arc::new(self.ingested.finish()),
                Col::PolicyRule => Arc::new(self.policy_rule.finish()),
                Col::ImpersonatedGroups => Arc::new(self.impersonated_groups.finish()),
                Col::Groups => Arc::new(self.groups.finish()),
                Col::SourceIps => Arc::new(self.source_ips.finish()),
                Col::Code => Arc::new(self.code.finish()),
                Col::Annotations => Arc::new(self.annotations.finish()),
                Col::Bytes => Arc::new(self.bytes.finish()),
                Col::Raw => arrow_array::new_null_array(&arrow_schema::DataType::Binary, rows),
                _ => {
                    let builder = self.texts.get_mut(column.at()).and_then(Option::as_mut);
                    if let Some(builder) = &builder {
                        sizes.note(column.at(), rows, builder.values_slice().len());
                    }
                    Arc::new(builder.map_or_else(|| StringBuilder::new().finish(), StringBuilder::finish))
                }
            });
        }
        let batch = RecordBatch::try_new(schema::schema(), columns.clone())?;
        let mut raw = BinaryBuilder::with_capacity(rows, 0);
        let mut raw_rows = 0;
        let read = Rows::of(&batch)?;
        let mut scratch = Vec::new();
        for (row, original) in self.originals.iter().enumerate() {
            if read.gives(row, original, &mut scratch) {
                raw.append_null();
            } else {
                raw.append_value(original);
                raw_rows += 1;
            }
        }
        if raw_rows == 0 {
            return Ok(batch);
        }
        if let Some(column) = columns.get_mut(Col::Raw.at()) {
            *column = Arc::new(raw.finish());
        }
        Ok(RecordBatch::try_new(schema::schema(), columns)?)
    }
}

/// The columns of `objectRef` in the order of its members.
pub(crate) const OBJECT_COLUMNS: [Col; 8] = [
    Col::Resource,
    Col::Namespace,
    Col::Name,
    Col::ObjectUid,
    Col::ApiGroup,
    Col::ApiVersion,
    Col::ResourceVersion,
    Col::Subresource,
];

fn push_list(builder: &mut ListBuilder<StringBuilder>, texts: Option<&[Cow<'_, str>]>) {
    for text in texts.into_iter().flatten() {
        builder.values().append_value(text);
    }
    builder.append(texts.is_some());
}

/// The values of a row that come from the event.
#[derive(Debug, Default)]
struct Fields<'a> {
    level: Cow<'a, str>,
    audit_id: Cow<'a, str>,
    stage: Cow<'a, str>,
    request_uri: Cow<'a, str>,
    verb: Cow<'a, str>,
    user: Cow<'a, str>,
    user_uid: Option<Cow<'a, str>>,
    groups: Option<Vec<Cow<'a, str>>>,
    user_extra: Option<Cow<'a, str>>,
    impersonated_user: Option<Cow<'a, str>>,
    impersonated_groups: Option<Vec<Cow<'a, str>>>,
    source_ips: Option<Vec<Cow<'a, str>>>,
    user_agent: Option<Cow<'a, str>>,
    object: [Option<Cow<'a, str>>; 8],
    code: Option<i32>,
    reason: Option<Cow<'a, str>>,
    message: Option<Cow<'a, str>>,
    status: Option<Cow<'a, str>>,
    annotations: Option<Vec<(Cow<'a, str>, Cow<'a, str>)>>,
    request_object: Option<Cow<'a, str>>,
    response_object: Option<Cow<'a, str>>,
    received: Option<i64>,
    stage_time: Option<i64>,
    extra: Extra<'a>,
}

/// What no column takes, as JSON values; `None` for what is absent.
#[derive(Debug, Default)]
struct Extra<'a> {
    authentication: Option<Cow<'a, str>>,
    impersonated_uid: Option<&'a str>,
    impersonated_extra: Option<&'a str>,
    response_kind: Option<&'a str>,
    response_api_version: Option<&'a str>,
    response_metadata: Option<&'a str>,
    response_details: Option<Cow<'a, str>>,
    unknown: Vec<(String, &'a str)>,
}

impl Extra<'_> {
    const fn is_empty(&self) -> bool {
        self.authentication.is_none()
            && self.impersonated_uid.is_none()
            && self.impersonated_extra.is_none()
            && self.response_kind.is_none()
            && self.response_api_version.is_none()
            && self.response_metadata.is_none()
            && self.response_details.is_none()
            && self.unknown.is_empty()
    }

    /// Writes a JSON object, or nothing when there is nothing.
    fn write(&self, out: &mut String) {
        if self.is_empty() {
            return;
        }
        let quoted = |text: Option<&str>| text.map(|inner| format!("\"{inner}\""));
        let plain = |text: Option<&str>| text.map(str::to_owned);
        let user = [
            ("uid", quoted(self.impersonated_uid)),
            ("extra", plain(self.impersonated_extra)),
        ];
        let status = [
            ("kind", quoted(self.response_kind)),
            ("apiVersion", quoted(self.response_api_version)),
            ("metadata", plain(self.response_metadata)),
            ("details", plain(self.response_details.as_deref())),
        ];
        let mut members: Vec<(Cow<'_, str>, String)> = Vec::new();
        if let Some(json) = &self.authentication {
            members.push((Cow::Borrowed("\"authenticationMetadata\""), json.to_string()));
        }
        for (name, inner) in [
            ("\"impersonatedUser\"", user.as_slice()),
            ("\"responseStatus\"", &status),
        ] {
            let inner: Vec<String> = inner
                .iter()
                .filter_map(|(key, json)| json.as_ref().map(|json| format!("\"{key}\":{json}")))
                .collect();
            if !inner.is_empty() {
                members.push((Cow::Borrowed(name), format!("{{{}}}", inner.join(","))));
            }
        }
        for (key, json) in &self.unknown {
            members.push((Cow::Borrowed(key), (*json).to_owned()));
        }
        for (at, (key, json)) in members.iter().enumerate() {
            out.push(if at == 0 { '{' } else { ',' });
            out.push_str(key);
            out.push(':');
            out.push_str(json);
        }
        if !members.is_empty() {
            out.push('}');
        }
    }
}

const LEVELS: [&str; 4] = ["None", "Metadata", "Request", "RequestResponse"];
const STAGES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];

impl<'a> Fields<'a> {
    /// `None` when a text has escapes that only the decoder understands, or level or stage are not known.
    fn of_line(line: &Line<'a>) -> Option<Self> {
        if !LEVELS.contains(&line.level) || !STAGES.contains(&line.stage) {
            return None;
        }
        let user = plain_user(&line.user)?;
        let impersonated = line.impersonated.as_ref();
        let mut object = <[Option<Cow<'a, str>>; 8]>::default();
        for (to, from) in object.iter_mut().zip(line.object) {
            *to = optional(from)?;
        }
        let response = &line.response;
        Some(Self {
            level: Cow::Borrowed(line.level),
            audit_id: unescaped(line.audit_id)?,
            stage: Cow::Borrowed(line.stage),
            request_uri: unescaped(line.request_uri)?,
            verb: unescaped(line.verb)?,
            user: user.unwrap_or_default(),
            user_uid: optional(line.user.uid)?,
            groups: list(line.user.groups)?,
            user_extra: line.user.extra.map(Cow::Borrowed),
            impersonated_user: match impersonated {
                None => None,
                Some(user) => Some(plain_user(user)?.unwrap_or_default()),
            },
            impersonated_groups: list(impersonated.and_then(|user| user.groups))?,
            source_ips: list(line.source_ips)?,
            user_agent: optional(line.user_agent)?,
            object,
            code: response.code,
            reason: optional(response.reason)?,
            message: optional(response.message)?,
            status: optional(response.status)?,
            annotations: match line.annotations {
                None => None,
                Some(object) => Some(
                    pairs(object)
                        .map(|pair| pair.and_then(|(key, value)| Some((unescaped(key)?, unescaped(value)?))))
                        .collect::<Option<_>>()?,
                ),
            },
            request_object: line.request_object.map(Cow::Borrowed),
            response_object: line.response_object.map(Cow::Borrowed),
            received: line.received,
            stage_time: line.stage_time,
            extra: Extra {
                authentication: line.authentication.map(Cow::Borrowed),
                impersonated_uid: impersonated.and_then(|user| user.uid),
                impersonated_extra: impersonated.and_then(|user| user.extra),
                response_kind: response.kind,
                response_api_version: response.api_version,
                response_metadata: response.metadata,
                response_details: response.details.map(Cow::Borrowed),
                unknown: Vec::new(),
            },
        })
    }

    /// The values that the decoder sees, for the columns of a row that keeps its bytes anyway.
    fn of_view(view: EventView<'a>) -> Self {
        let user = view.user();
        let impersonated = view.impersonated_user();
        let reference = view.object_ref();
        let response = view.response_status();
        let of =
            |object: &Option<ObjectView<'a>>, key: &str| object.as_ref().and_then(|it| some(it.text(key)));
        let json = |raw: &'a [u8]| (!raw.is_empty()).then(|| String::from_utf8_lossy(raw));
        Self {
            level: Cow::Borrowed(view.level().map_or("", kaudit_event::Level::as_str)),
            audit_id: lossy(view.audit_id()),
            stage: Cow::Borrowed(view.stage().map_or("", kaudit_event::Stage::as_str)),
            request_uri: lossy(view.request_uri()),
            verb: lossy(view.verb()),
            user: lossy(user.text("username")),
            user_uid: some(user.text("uid")),
            groups: some_list(user.texts("groups").map(lossy).collect()),
            user_extra: json(user.object("extra").raw()),
            impersonated_user: impersonated.as_ref().map(|user| lossy(user.text("username"))),
            impersonated_groups: impersonated
                .as_ref()
                .and_then(|user| some_list(user.texts("groups").map(lossy).collect())),
            source_ips: some_list(view.source_ips().map(lossy).collect()),
            user_agent: some(view.user_agent()),
            object: OBJECT_NAMES.map(|key| of(&reference, key)),
            code: response
                .as_ref()
                .and_then(|status| status.integer("code"))
                .and_then(|code| i32::try_from(code).ok()),
            reason: of(&response, "reason"),
            message: of(&response, "message"),
            status: of(&response, "status"),
            annotations: Some(
                view.annotations()
                    .map(|(key, value)| (lossy(key), lossy(value)))
                    .collect(),
            )
            .filter(|annotations: &Vec<_>| !annotations.is_empty()),
            request_object: view.request_object().and_then(json),
            response_object: view.response_object().and_then(json),
            received: view.request_received_timestamp().and_then(micros),
            stage_time: view.stage_timestamp().and_then(micros),
            extra: Extra {
                response_details: response.and_then(|status| json(status.object("details").raw())),
                unknown: view
                    .unknown_fields()
                    .filter_map(|(key, value)| {
                        let mut quoted = Vec::new();
                        push_json_string(&mut quoted, &key);
                        Some((String::from_utf8(quoted).ok()?, std::str::from_utf8(value).ok()?))
                    })
                    .collect(),
                ..Extra::default()
            },
        }
    }
}

const OBJECT_NAMES: [&str; 8] = [
    "resource",
    "namespace",
    "name",
    "uid",
    "apiGroup",
    "apiVersion",
    "resourceVersion",
    "subresource",
];

fn micros(time: MicroTime) -> Option<i64> {
    if time.is_zero() {
        return None;
    }
    time.unix_seconds
        .checked_mul(1_000_000)?
        .checked_add(i64::from(time.nanos / 1000))
}

fn lossy(text: Cow<'_, [u8]>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

fn some(text: Cow<'_, [u8]>) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then(|| lossy(text))
}

fn some_list(texts: Vec<Cow<'_, str>>) -> Option<Vec<Cow<'_, str>>> {
    (!texts.is_empty()).then_some(texts)
}

#[expect(
    clippy::option_option,
    reason = "the outer one is an escape that is not understood, the inner one absence"
)]
fn optional(text: Option<&str>) -> Option<Option<Cow<'_, str>>> {
    match text {
        None => Some(None),
        Some(text) => unescaped(text).map(Some),
    }
}

#[expect(
    clippy::option_option,
    reason = "the outer one is an escape that is not understood, the inner one absence"
)]
fn plain_user<'a>(user: &User<'a>) -> Option<Option<Cow<'a, str>>> {
    optional(user.username)
}

#[expect(
    clippy::option_option,
    reason = "the outer one is what is no list of texts, the inner one absence"
)]
fn list(array: Option<&str>) -> Option<Option<Vec<Cow<'_, str>>>> {
    match array {
        None => Some(None),
        Some(array) => texts(array)
            .map(|text| text.and_then(unescaped))
            .collect::<Option<Vec<_>>>()
            .map(Some),
    }
}
