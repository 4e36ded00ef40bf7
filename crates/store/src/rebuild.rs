//! From columns back to events.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, BinaryArray, Int32Array, Int64Array, ListArray, MapArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use kaudit_event::{json_string_len, push_json_string};
use serde_json::value::RawValue;

use crate::StoreError;
use crate::calendar::time_text;
use crate::columns::OBJECT_COLUMNS;
use crate::line::{HEAD, OBJECT_KEYS};
use crate::schema::{self, Col};

/// The rows of a batch that holds all columns of the schema.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) ts: &'a TimestampMicrosecondArray,
    received_delta: &'a Int64Array,
    pub(crate) seq: &'a Int64Array,
    pub(crate) ingested: &'a TimestampMicrosecondArray,
    policy_rule: &'a Int32Array,
    code: &'a Int32Array,
    bytes: &'a Int32Array,
    annotations: &'a MapArray,
    groups: &'a ListArray,
    impersonated_groups: &'a ListArray,
    source_ips: &'a ListArray,
    raw: &'a BinaryArray,
    texts: [Option<&'a StringArray>; schema::COLUMN_COUNT],
}

/// `extra`, as it is written by [`columns`](crate::columns).
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Extra<'a> {
    #[serde(borrow)]
    authentication_metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    impersonated_user: Option<ExtraUser<'a>>,
    #[serde(borrow)]
    response_status: Option<ExtraStatus<'a>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct ExtraUser<'a> {
    #[serde(borrow)]
    uid: Option<&'a RawValue>,
    #[serde(borrow)]
    extra: Option<&'a RawValue>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ExtraStatus<'a> {
    #[serde(borrow)]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    api_version: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    details: Option<&'a RawValue>,
}

impl<'a> Rows<'a> {
    /// Looks at a batch.
    ///
    /// # Errors
    ///
    /// [`StoreError::Columns`] when a column is missing or of another type.
    pub(crate) fn of(batch: &'a RecordBatch) -> Result<Self, StoreError> {
        let column = |column: Col| {
            batch
                .columns()
                .get(column.at())
                .ok_or_else(|| StoreError::Columns(format!("column {} is missing", column.name())))
        };
        let wrong = |column: Col| StoreError::Columns(format!("column {} has another type", column.name()));
        let mut texts = [None; schema::COLUMN_COUNT];
        for (to, array) in texts.iter_mut().zip(batch.columns()) {
            *to = array.as_string_opt::<i32>();
        }
        let list = |it: Col| column(it)?.as_list_opt::<i32>().ok_or_else(|| wrong(it));
        let int = |it: Col| {
            column(it)?
                .as_primitive_opt::<Int32Type>()
                .ok_or_else(|| wrong(it))
        };
        let long = |it: Col| {
            column(it)?
                .as_primitive_opt::<Int64Type>()
                .ok_or_else(|| wrong(it))
        };
        let time = |it: Col| {
            column(it)?
                .as_primitive_opt::<TimestampMicrosecondType>()
                .ok_or_else(|| wrong(it))
        };
        Ok(Self {
            ts: time(Col::Ts)?,
            received_delta: long(Col::ReceivedDelta)?,
            seq: long(Col::Seq)?,
            ingested: time(Col::Ingested)?,
            policy_rule: int(Col::PolicyRule)?,
            code: int(Col::Code)?,
            bytes: int(Col::Bytes)?,
            annotations: column(Col::Annotations)?
                .as_map_opt()
                .ok_or_else(|| wrong(Col::Annotations))?,
            groups: list(Col::Groups)?,
            impersonated_groups: list(Col::ImpersonatedGroups)?,
            source_ips: list(Col::SourceIps)?,
            raw: column(Col::Raw)?
                .as_binary_opt::<i32>()
                .ok_or_else(|| wrong(Col::Raw))?,
            texts,
        })
    }

    /// The text of a column; `None` when it is NULL.
    pub(crate) fn text(&self, column: Col, row: usize) -> Option<&'a str> {
        let array = (*self.texts.get(column.at())?)?;
        (row < array.len() && array.is_valid(row)).then(|| array.value(row))
    }

    /// Appends the event as it was received, in log-line form without an LF.
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.raw.is_valid(row) {
            out.extend_from_slice(self.raw.value(row));
        } else {
            self.write_line(row, out);
        }
    }

    /// Whether the encoder writes what stands in the columns as `line`.
    pub(crate) fn gives(&self, row: usize, line: &[u8], scratch: &mut Vec<u8>) -> bool {
        let mut compared = Compared {
            rest: Some(line),
            scratch,
        };
        self.write_line(row, &mut compared);
        compared.rest.is_some_and(<[u8]>::is_empty)
    }

    /// Gives the event as the encoder writes what stands in the columns.
    fn write_line(&self, row: usize, out: &mut impl Out) {
        let extra: Extra<'_> = self
            .text(Col::Extra, row)
            .and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default();
        out.bytes(HEAD.as_bytes());
        out.string(self.text(Col::Level, row).unwrap_or_default().as_bytes());
        for (key, column) in [
            (",\"auditID\":", Col::AuditId),
            (",\"stage\":", Col::Stage),
            (",\"requestURI\":", Col::RequestUri),
            (",\"verb\":", Col::Verb),
        ] {
            out.bytes(key.as_bytes());
            out.string(self.text(column, row).unwrap_or_default().as_bytes());
        }
        out.bytes(b",\"user\":");
        let mut user = Object::begin(out);
        user.text(
            "\"username\":",
            self.text(Col::User, row).filter(|name| !name.is_empty()),
        );
        user.text("\"uid\":", self.text(Col::UserUid, row));
        user.list("\"groups\":", self.groups, row);
        user.json("\"extra\":", self.text(Col::UserExtra, row));
        user.end();
        if let Some(name) = self.text(Col::ImpersonatedUser, row) {
            let inner = extra.impersonated_user.unwrap_or_default();
            out.bytes(b",\"impersonatedUser\":");
            let mut user = Object::begin(out);
            user.text("\"username\":", Some(name).filter(|name| !name.is_empty()));
            user.json("\"uid\":", inner.uid.map(RawValue::get));
            user.list("\"groups\":", self.impersonated_groups, row);
            user.json("\"extra\":", inner.extra.map(RawValue::get));
            user.end();
        }
        if let Some(metadata) = extra.authentication_metadata {
            out.bytes(b",\"authenticationMetadata\":");
            out.bytes(metadata.get().as_bytes());
        }
        if self.source_ips.is_valid(row) {
            out.bytes(b",\"sourceIPs\":");
            push_list(out, self.source_ips, row);
        }
        if let Some(agent) = self.text(Col::UserAgent, row) {
            out.bytes(b",\"userAgent\":");
            out.string(agent.as_bytes());
        }
        if OBJECT_COLUMNS
            .iter()
            .any(|column| self.text(*column, row).is_some())
        {
            out.bytes(b",\"objectRef\":");
            let mut object = Object::begin(out);
            for (key, column) in OBJECT_KEYS.into_iter().zip(OBJECT_COLUMNS) {
                object.text(key, self.text(column, row));
            }
            object.end();
        }
        self.write_response(row, &extra.response_status, out);
        for (key, column) in [
            (",\"requestObject\":", Col::RequestObject),
            (",\"responseObject\":", Col::ResponseObject),
        ] {
            if let Some(body) = self.text(column, row) {
                out.bytes(key.as_bytes());
                out.bytes(body.as_bytes());
            }
        }
        out.bytes(b",\"requestReceivedTimestamp\":");
        if self.received_delta.is_valid(row) {
            out.bytes(&time_text(
                self.ts.value(row).wrapping_sub(self.received_delta.value(row)),
            ));
        } else {
            out.bytes(b"null");
        }
        out.bytes(b",\"stageTimestamp\":");
        out.bytes(&time_text(self.ts.value(row)));
        if self.annotations.is_valid(row) {
            out.bytes(b",\"annotations\":{");
            for (at, (key, value)) in self.annotations(row).enumerate() {
                if at > 0 {
                    out.byte(b',');
                }
                out.string(key.as_bytes());
                out.byte(b':');
                out.string(value.as_bytes());
            }
            out.byte(b'}');
        }
        out.byte(b'}');
    }

    fn write_response(&self, row: usize, extra: &Option<ExtraStatus<'_>>, out: &mut impl Out) {
        let texts = [Col::Status, Col::Message, Col::Reason].map(|column| self.text(column, row));
        let has_code = self.code.is_valid(row);
        if extra.is_none() && !has_code && texts.iter().all(Option::is_none) {
            return;
        }
        out.bytes(b",\"responseStatus\":");
        let mut status = Object::begin(out);
        let extra = extra.as_ref();
        let metadata = extra.and_then(|extra| extra.metadata).map_or("{}", RawValue::get);
        status.json("\"kind\":", extra.and_then(|extra| extra.kind).map(RawValue::get));
        status.json(
            "\"apiVersion\":",
            extra.and_then(|extra| extra.api_version).map(RawValue::get),
        );
        status.json("\"metadata\":", Some(metadata));
        let [word, message, reason] = texts;
        status.text("\"status\":", word);
        status.text("\"message\":", message);
        status.text("\"reason\":", reason);
        status.json(
            "\"details\":",
            extra.and_then(|extra| extra.details).map(RawValue::get),
        );
        if has_code {
            status.number("\"code\":", i64::from(self.code.value(row)));
        }
        status.end();
    }

    /// The policy rule of a row.
    pub(crate) fn policy_rule(&self, row: usize) -> Option<u32> {
        let is_there = self.policy_rule.is_valid(row);
        is_there
            .then(|| u32::try_from(self.policy_rule.value(row)).ok())
            .flatten()
    }

    /// How many rows keep the received bytes.
    pub(crate) fn raw_rows(&self) -> usize {
        self.raw.len() - self.raw.null_count()
    }

    /// Bytes of the events together.
    pub(crate) fn event_bytes(&self) -> u64 {
        let sum = self
            .bytes
            .values()
            .iter()
            .map(|bytes| i64::from(*bytes))
            .sum::<i64>();
        u64::try_from(sum).unwrap_or_default()
    }

    /// The annotations of a row, in their order.
    fn annotations(&self, row: usize) -> impl Iterator<Item = (&'a str, &'a str)> {
        map_texts(self.annotations, row)
    }
}

/// The pairs of a map, in their order.
pub(crate) fn map_texts(map: &MapArray, row: usize) -> impl Iterator<Item = (&str, &str)> {
    let offsets = map.value_offsets();
    let range = match (offsets.get(row), offsets.get(row + 1)) {
        (Some(from), Some(to)) if map.is_valid(row) => index(*from)..index(*to),
        _ => 0..0,
    };
    let keys = map.keys().as_string_opt::<i32>();
    let values = map.values().as_string_opt::<i32>();
    range.filter_map(move |at| Some((keys?.value(at), values?.value(at))))
}

fn index(offset: i32) -> usize {
    usize::try_from(offset).unwrap_or_default()
}

/// Where an event goes that is put together.
trait Out {
    /// What stands there as it is.
    fn bytes(&mut self, bytes: &[u8]);

    /// A JSON string of these bytes.
    fn string(&mut self, bytes: &[u8]);

    fn byte(&mut self, byte: u8) {
        self.bytes(&[byte]);
    }
}

impl Out for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn string(&mut self, bytes: &[u8]) {
        push_json_string(self, bytes);
    }

    fn byte(&mut self, byte: u8) {
        self.push(byte);
    }
}

/// Compares what would be written with what is there already.
struct Compared<'a> {
    /// What was not compared yet; `None` from the first difference on.
    rest: Option<&'a [u8]>,
    scratch: &'a mut Vec<u8>,
}

impl Out for Compared<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.rest = self.rest.and_then(|rest| rest.strip_prefix(bytes));
    }

    fn string(&mut self, bytes: &[u8]) {
        self.rest = self.rest.and_then(|rest| {
            let length = json_string_len(rest, bytes, self.scratch)?;
            rest.get(length..)
        });
    }

    fn byte(&mut self, byte: u8) {
        self.rest = self.rest.and_then(|rest| match rest {
            [first, rest @ ..] if *first == byte => Some(rest),
            _ => None,
        });
    }
}

/// The texts of a list.
pub(crate) fn list_texts(list: &ListArray, row: usize) -> impl Iterator<Item = &str> {
    let offsets = list.value_offsets();
    let range = match (offsets.get(row), offsets.get(row + 1)) {
        (Some(from), Some(to)) if list.is_valid(row) => index(*from)..index(*to),
        _ => 0..0,
    };
    let values = list.values().as_string_opt::<i32>();
    range.filter_map(move |at| Some(values?.value(at)))
}

fn push_list(out: &mut impl Out, list: &ListArray, row: usize) {
    out.byte(b'[');
    for (at, text) in list_texts(list, row).enumerate() {
        if at > 0 {
            out.byte(b',');
        }
        out.string(text.as_bytes());
    }
    out.byte(b']');
}

/// An object that is being written.
struct Object<'o, O> {
    out: &'o mut O,
    first: bool,
}

impl<'o, O: Out> Object<'o, O> {
    fn begin(out: &'o mut O) -> Self {
        out.byte(b'{');
        Self { out, first: true }
    }

    fn key(&mut self, key: &str) {
        if !self.first {
            self.out.byte(b',');
        }
        self.first = false;
        self.out.bytes(key.as_bytes());
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.key(key);
            self.out.string(value.as_bytes());
        }
    }

    fn json(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.key(key);
            self.out.bytes(value.as_bytes());
        }
    }

    fn list(&mut self, key: &str, list: &ListArray, row: usize) {
        if list.is_valid(row) {
            self.key(key);
            push_list(self.out, list, row);
        }
    }

    fn number(&mut self, key: &str, value: i64) {
        self.key(key);
        self.out.bytes(value.to_string().as_bytes());
    }

    fn end(self) {
        self.out.byte(b'}');
    }
}
