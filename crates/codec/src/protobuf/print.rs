//! From the wire to JSON, by the table.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kaudit_event::{MicroTime, push_compact_json, push_json_string};

use super::table::{Around, Field, Form, Number, Omit, Struct, Table};
use super::wire::{Message, Value};
use crate::Unprintable;
use crate::scalars::{duration_text, is_canonical_quantity, push_double, push_int};

/// Structs within structs; a JSON schema is the one that goes deep.
const MAX_DEPTH: usize = 200;

type Printed = Result<(), Unprintable>;

const NOT_UNDERSTOOD: Unprintable = Unprintable::NotUnderstood;

/// Prints one object.
#[derive(Debug)]
pub(super) struct Printer<'a> {
    table: &'static Table,
    out: Vec<u8>,
    limit: usize,
    depth: usize,
    /// The fields of the structs that are being printed, those of the innermost at the end.
    open: Vec<(u8, Value<'a>)>,
    /// The members of the maps that are being printed, likewise.
    members: Vec<(&'a str, Option<Value<'a>>)>,
}

/// The kind of an item that says what it is.
#[derive(Clone, Copy, Debug)]
struct TypeMeta<'a> {
    version: &'a str,
    kind: &'a str,
}

/// What a list as a whole has that no other struct has.
#[derive(Clone, Copy, Debug)]
enum List<'a> {
    /// It is `[]` without items, where a struct's list would be `null`.
    OfObjects,
    /// Its items say what they are.
    OfMetadata(TypeMeta<'a>),
}

/// Kinds that are the same in every version.
///
/// Source: k8s.io/apimachinery pkg/apis/meta/v1/register.go.
const UNVERSIONED: [&str; 5] = [
    "APIGroup",
    "APIGroupList",
    "APIResourceList",
    "APIVersions",
    "Status",
];

const ITEMS: &str = "\"items\":";

impl<'a> Printer<'a> {
    /// Appends nothing once its JSON has more than `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            table: Table::get(),
            out: Vec::new(),
            limit,
            depth: 0,
            open: Vec::new(),
            members: Vec::new(),
        }
    }

    /// The object of the given version and kind that `raw` is.
    ///
    /// A list is what kube-apiserver records of it, where the wire does not tell.
    ///
    /// Source: k8s.io/apiserver pkg/endpoints/handlers/response.go, transformResponseObject and
    /// asPartialObjectMetadataList.
    pub(super) fn object(
        mut self,
        version: &'a str,
        kind: &'a str,
        raw: &'a [u8],
    ) -> Result<Vec<u8>, Unprintable> {
        let number = match version {
            // Discovery documents come without a version, and are of this one.
            "" if UNVERSIONED.contains(&kind) => self.table.kind("v1", kind),
            version => self.table.kind(version, kind),
        };
        let number = number.ok_or(NOT_UNDERSTOOD)?;
        let list = match kind {
            "PartialObjectMetadataList" => Some(List::OfMetadata(TypeMeta {
                version,
                kind: "PartialObjectMetadata",
            })),
            kind => kind.ends_with("List").then_some(List::OfObjects),
        };
        self.out.reserve(raw.len().saturating_mul(2).min(self.limit));
        self.out.push(b'{');
        let mut is_first = true;
        self.type_meta(TypeMeta { version, kind }, &mut is_first);
        self.fields(number, raw, list, &mut is_first)?;
        self.out.push(b'}');
        self.check()?;
        Ok(self.out)
    }

    fn check(&self) -> Printed {
        if self.out.len() > self.limit {
            return Err(Unprintable::TooLarge);
        }
        Ok(())
    }

    fn push(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn type_meta(&mut self, meta: TypeMeta<'_>, is_first: &mut bool) {
        self.push("\"kind\":");
        push_json_string(&mut self.out, meta.kind.as_bytes());
        if !meta.version.is_empty() {
            self.push(",\"apiVersion\":");
            push_json_string(&mut self.out, meta.version.as_bytes());
        }
        *is_first = false;
    }

    fn message(&mut self, number: Number, bytes: &'a [u8]) -> Printed {
        self.out.push(b'{');
        self.fields(number, bytes, None, &mut true)?;
        self.out.push(b'}');
        Ok(())
    }

    /// The fields of a struct, without braces.
    fn fields(
        &mut self,
        number: Number,
        bytes: &'a [u8],
        list: Option<List<'a>>,
        is_first: &mut bool,
    ) -> Printed {
        if self.depth == MAX_DEPTH {
            return Err(NOT_UNDERSTOOD);
        }
        self.depth += 1;
        let table = self.table;
        let known = table.of(number).ok_or(NOT_UNDERSTOOD)?;
        let start = self.open.len();
        self.read(known, bytes)?;
        let mut from = start;
        for (place, field) in (0_u8..).zip(&known.fields) {
            let rest = self.open.get(from..).unwrap_or_default();
            let to = from + rest.iter().take_while(|(at, _)| *at == place).count();
            self.field(field, from..to, list, is_first)?;
            self.check()?;
            from = to;
        }
        self.open.truncate(start);
        self.depth -= 1;
        Ok(())
    }

    /// Puts the fields that stand on the wire on top of what is open, in the order of the struct.
    fn read(&mut self, known: &Struct, bytes: &'a [u8]) -> Printed {
        let start = self.open.len();
        for field in Message::new(bytes).fields() {
            let (number, value) = field.map_err(|_| NOT_UNDERSTOOD)?;
            let place = known.place(number).ok_or(NOT_UNDERSTOOD)?;
            self.open.push((place, value));
        }
        let read = self.open.get_mut(start..).unwrap_or_default();
        if !read.is_sorted_by_key(|(place, _)| *place) {
            read.sort_by_key(|(place, _)| *place);
        }
        Ok(())
    }

    fn nth(&self, at: usize) -> Option<Value<'a>> {
        self.open.get(at).map(|(_, value)| *value)
    }

    fn field(
        &mut self,
        field: &Field,
        values: std::ops::Range<usize>,
        list: Option<List<'a>>,
        is_first: &mut bool,
    ) -> Printed {
        let count = values.len();
        let list = list.filter(|_| field.key == ITEMS && field.around == Around::List);
        match field.around {
            // What is there twice is merged by Go's decoder, and written by no encoder.
            Around::Nothing | Around::Pointer if count > 1 => return Err(NOT_UNDERSTOOD),
            Around::Nothing => {
                let value = self.nth(values.start).filter(|_| count == 1);
                if field.key.is_empty() {
                    let Form::Struct(number) = field.form else {
                        return Err(NOT_UNDERSTOOD);
                    };
                    return self.fields(number, message(value)?, None, is_first);
                }
                if field.omit != Omit::Never && is_empty(field, value)? {
                    return Ok(());
                }
                self.key(field, is_first);
                return self.value(field.form, value);
            }
            _ if count == 0 && list.is_some_and(|list| matches!(list, List::OfObjects)) => {
                self.key(field, is_first);
                self.push("[]");
                return Ok(());
            }
            _ if count == 0 => {
                if field.omit == Omit::Never {
                    self.key(field, is_first);
                    self.push("null");
                }
                return Ok(());
            }
            _ => self.key(field, is_first),
        }
        match field.around {
            Around::Map => self.map(field.form, values),
            Around::List => {
                self.out.push(b'[');
                for at in values.clone() {
                    if at != values.start {
                        self.out.push(b',');
                    }
                    let value = self.nth(at);
                    match (list, field.form) {
                        (Some(List::OfMetadata(meta)), Form::Struct(number)) => {
                            self.out.push(b'{');
                            let mut is_first = true;
                            self.type_meta(meta, &mut is_first);
                            self.fields(number, message(value)?, None, &mut is_first)?;
                            self.out.push(b'}');
                        }
                        _ => self.value(field.form, value)?,
                    }
                    self.check()?;
                }
                self.out.push(b']');
                Ok(())
            }
            Around::Nothing | Around::Pointer => self.value(field.form, self.nth(values.start)),
        }
    }

    fn key(&mut self, field: &Field, is_first: &mut bool) {
        if !*is_first {
            self.out.push(b',');
        }
        *is_first = false;
        self.push(&field.key);
    }

    /// A map by its keys' bytes. Each member is a message: its key is field 1, its value field 2.
    fn map(&mut self, form: Form, values: std::ops::Range<usize>) -> Printed {
        let start = self.members.len();
        for at in values {
            let (mut key, mut value) = ("", None);
            for field in Message::new(message(self.nth(at))?).fields() {
                match field.map_err(|_| NOT_UNDERSTOOD)? {
                    (1, Value::Bytes(bytes)) => key = text(bytes)?,
                    (2, read) if value.is_none() => value = Some(read),
                    _ => return Err(NOT_UNDERSTOOD),
                }
            }
            self.members.push((key, value));
        }
        let members = self.members.get_mut(start..).unwrap_or_default();
        members.sort_by_key(|(key, _)| *key);
        if members.array_windows().any(|[(one, _), (next, _)]| one == next) {
            return Err(NOT_UNDERSTOOD);
        }
        self.out.push(b'{');
        let mut at = start;
        while let Some((key, value)) = self.members.get(at).copied() {
            if at != start {
                self.out.push(b',');
            }
            push_json_string(&mut self.out, key.as_bytes());
            self.out.push(b':');
            // Behind a key there are always bytes, and a list, if an empty one.
            let is_never_null = matches!(form, Form::Bytes | Form::Texts);
            let value = value.or(is_never_null.then_some(Value::Bytes(b"")));
            self.value(form, value)?;
            self.check()?;
            at += 1;
        }
        self.members.truncate(start);
        self.out.push(b'}');
        Ok(())
    }

    /// One value; `None` is its type's zero.
    fn value(&mut self, form: Form, value: Option<Value<'a>>) -> Printed {
        match form {
            Form::Bool => {
                let is_so = truth(value)?;
                self.push(if is_so { "true" } else { "false" });
            }
            Form::Int32 => push_int(&mut self.out, int32(value)?.into()),
            Form::Int64 => push_int(&mut self.out, int64(value)?),
            Form::Double => {
                push_double(&mut self.out, double(value)?).ok_or(NOT_UNDERSTOOD)?;
            }
            Form::Text => push_json_string(&mut self.out, text(message(value)?)?.as_bytes()),
            Form::Bytes => match value {
                None => self.push("null"),
                Some(_) => {
                    let text = STANDARD.encode(message(value)?);
                    self.push("\"");
                    self.push(&text);
                    self.push("\"");
                }
            },
            Form::Struct(number) => self.message(number, message(value)?)?,
            Form::Texts => match value {
                None => self.push("null"),
                Some(_) => self.texts(message(value)?)?,
            },
            Form::Time => {
                let time = instant(message(value)?)?;
                self.time(MicroTime::from_unix(time.unix_seconds, 0), "Z")?;
            }
            Form::MicroTime => {
                let time = instant(message(value)?)?;
                let fraction = format!(".{:06}Z", time.nanos / 1000);
                let micros = time.nanos / 1000 * 1000;
                self.time(MicroTime::from_unix(time.unix_seconds, micros), &fraction)?;
            }
            Form::Duration => {
                let [nanos] = small(message(value)?)?;
                let text = duration_text(int64(nanos)?);
                push_json_string(&mut self.out, text.as_bytes());
            }
            Form::Quantity => {
                let [quantity] = small(message(value)?)?;
                let text = match quantity {
                    None => "0",
                    Some(_) => text(message(quantity)?)?,
                };
                if !is_canonical_quantity(text) {
                    return Err(NOT_UNDERSTOOD);
                }
                push_json_string(&mut self.out, text.as_bytes());
            }
            Form::IntOrString => {
                let [which, int, string] = small(message(value)?)?;
                match int64(which)? {
                    0 => push_int(&mut self.out, int32(int)?.into()),
                    1 => push_json_string(&mut self.out, text(message(string)?)?.as_bytes()),
                    _ => return Err(NOT_UNDERSTOOD),
                }
            }
            Form::RawExtension => {
                let [raw] = small(message(value)?)?;
                match raw {
                    None => self.push("null"),
                    Some(_) => self.json(message(raw)?)?,
                }
            }
            Form::AnyJson => {
                let [raw] = small(message(value)?)?;
                match message(raw)? {
                    [] => self.push("null"),
                    raw => self.json(raw)?,
                }
            }
            Form::SchemaOrBool(number) => {
                let [allows, schema] = small(message(value)?)?;
                let allows = truth(allows)?;
                match schema {
                    Some(_) => self.message(number, message(schema)?)?,
                    None => self.push(if allows { "true" } else { "false" }),
                }
            }
            Form::SchemaOrSchemas(number) => self.schema_or(number, message(value)?, |printer, all| {
                printer.out.push(b'[');
                let mut is_first = true;
                for schema in all {
                    if !std::mem::take(&mut is_first) {
                        printer.out.push(b',');
                    }
                    printer.message(number, schema)?;
                    printer.check()?;
                }
                printer.out.push(b']');
                Ok(())
            })?,
            Form::SchemaOrTexts(number) => {
                let bytes = message(value)?;
                self.schema_or(number, bytes, |printer, all| printer.list_of_texts(all))?;
            }
        }
        Ok(())
    }

    /// A schema in field 1, unless there is something in field 2, which may be repeated.
    fn schema_or(
        &mut self,
        number: Number,
        bytes: &'a [u8],
        print: impl FnOnce(&mut Self, Vec<&'a [u8]>) -> Printed,
    ) -> Printed {
        let (mut schema, mut others) = (None, Vec::new());
        for field in Message::new(bytes).fields() {
            match field.map_err(|_| NOT_UNDERSTOOD)? {
                (1, Value::Bytes(bytes)) if schema.is_none() => schema = Some(bytes),
                (2, Value::Bytes(bytes)) => others.push(bytes),
                _ => return Err(NOT_UNDERSTOOD),
            }
        }
        match schema {
            // Both are said by no one.
            Some(_) if !others.is_empty() => Err(NOT_UNDERSTOOD),
            Some(schema) => self.message(number, schema),
            None if others.is_empty() => {
                self.push("null");
                Ok(())
            }
            None => print(self, others),
        }
    }

    /// The texts of a message whose one field is a list of them.
    fn texts(&mut self, bytes: &'a [u8]) -> Printed {
        let mut texts = Vec::new();
        for field in Message::new(bytes).fields() {
            match field.map_err(|_| NOT_UNDERSTOOD)? {
                (1, Value::Bytes(bytes)) => texts.push(bytes),
                _ => return Err(NOT_UNDERSTOOD),
            }
        }
        self.list_of_texts(texts)
    }

    fn list_of_texts(&mut self, texts: Vec<&'a [u8]>) -> Printed {
        self.out.push(b'[');
        let mut is_first = true;
        for bytes in texts {
            if !std::mem::take(&mut is_first) {
                self.out.push(b',');
            }
            push_json_string(&mut self.out, text(bytes)?.as_bytes());
        }
        self.out.push(b']');
        Ok(())
    }

    fn time(&mut self, time: MicroTime, behind: &str) -> Printed {
        if time.is_zero() {
            self.push("null");
            return Ok(());
        }
        let digits = time.utc_digits().ok_or(NOT_UNDERSTOOD)?;
        self.out.push(b'"');
        self.out.extend_from_slice(&digits);
        self.push(behind);
        self.out.push(b'"');
        Ok(())
    }

    /// JSON within the message. Bytes that are not UTF-8 would not be valid in what is printed.
    fn json(&mut self, raw: &[u8]) -> Printed {
        text(raw)?;
        push_compact_json(&mut self.out, raw).map_err(|_| NOT_UNDERSTOOD)
    }
}

/// Whether a value is what Go leaves out. Only called where something is left out at all.
fn is_empty(field: &Field, value: Option<Value<'_>>) -> Result<bool, Unprintable> {
    Ok(match field.form {
        Form::Bool => !truth(value)?,
        Form::Int32 => int32(value)? == 0,
        Form::Int64 => int64(value)? == 0,
        Form::Double => double(value)? == 0.0,
        Form::Text | Form::Bytes | Form::Texts => message(value)?.is_empty(),
        Form::Time if field.omit == Omit::Zero => {
            let time = instant(message(value)?)?;
            MicroTime::from_unix(time.unix_seconds, 0).is_zero()
        }
        Form::Struct(_)
        | Form::Time
        | Form::MicroTime
        | Form::Duration
        | Form::Quantity
        | Form::IntOrString
        | Form::RawExtension
        | Form::AnyJson
        | Form::SchemaOrBool(_)
        | Form::SchemaOrSchemas(_)
        | Form::SchemaOrTexts(_) => false,
    })
}

/// The fields 1 to `N` of a message that has no others, each at most once.
fn small<const N: usize>(bytes: &[u8]) -> Result<[Option<Value<'_>>; N], Unprintable> {
    let mut values = [None; N];
    for field in Message::new(bytes).fields() {
        let (number, value) = field.map_err(|_| NOT_UNDERSTOOD)?;
        let place = usize::try_from(number)
            .ok()
            .and_then(|number| number.checked_sub(1));
        match place.and_then(|place| values.get_mut(place)) {
            Some(empty @ None) => *empty = Some(value),
            _ => return Err(NOT_UNDERSTOOD),
        }
    }
    Ok(values)
}

/// A Timestamp; without bytes it is Go's zero time.
fn instant(bytes: &[u8]) -> Result<MicroTime, Unprintable> {
    if bytes.is_empty() {
        return Ok(MicroTime::ZERO);
    }
    let [seconds, nanos] = small(bytes)?;
    let nanos = u32::try_from(int32(nanos)?)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000);
    let time = MicroTime::from_unix(int64(seconds)?, nanos.ok_or(NOT_UNDERSTOOD)?);
    // Go's year 0 and below are no dates of RFC 3339.
    if time.unix_seconds < MicroTime::ZERO.unix_seconds {
        return Err(NOT_UNDERSTOOD);
    }
    Ok(time)
}

fn text(bytes: &[u8]) -> Result<&str, Unprintable> {
    str::from_utf8(bytes).map_err(|_| NOT_UNDERSTOOD)
}

fn message(value: Option<Value<'_>>) -> Result<&[u8], Unprintable> {
    match value {
        None => Ok(b""),
        Some(Value::Bytes(bytes)) => Ok(bytes),
        Some(_) => Err(NOT_UNDERSTOOD),
    }
}

fn int64(value: Option<Value<'_>>) -> Result<i64, Unprintable> {
    match value {
        None => Ok(0),
        Some(Value::Varint(int)) => Ok(int.cast_signed()),
        Some(_) => Err(NOT_UNDERSTOOD),
    }
}

fn int32(value: Option<Value<'_>>) -> Result<i32, Unprintable> {
    // It is written as its 64-bit sign extension.
    i32::try_from(int64(value)?).map_err(|_| NOT_UNDERSTOOD)
}

fn truth(value: Option<Value<'_>>) -> Result<bool, Unprintable> {
    match int64(value)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(NOT_UNDERSTOOD),
    }
}

fn double(value: Option<Value<'_>>) -> Result<f64, Unprintable> {
    match value {
        None => Ok(0.0),
        Some(Value::Fixed64(bits)) => Ok(f64::from_bits(bits)),
        Some(_) => Err(NOT_UNDERSTOOD),
    }
}
