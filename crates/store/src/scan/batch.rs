//! Columns of some rows as they were read, texts coded or plain, and the values of the language's columns
//! in them.

use std::borrow::Cow;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, BinaryArray, Int32Array, Int64Array, ListArray, MapArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow_buffer::BooleanBuffer;
use kaudit_query::{Column, ColumnType, Expr, Test, TextTest, Value, derived};

use crate::Volume;
use crate::rebuild::{list_texts, map_texts};
use crate::schema::{COLUMN_COUNT, Col};

/// Columns of some rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    columns: [Option<Values<'a>>; COLUMN_COUNT],
    rows: usize,
}

/// A column as it was read.
#[derive(Clone, Copy, Debug)]
enum Values<'a> {
    Texts(Texts<'a>),
    Micros(&'a TimestampMicrosecondArray),
    Longs(&'a Int64Array),
    Ints(&'a Int32Array),
    Lists(&'a ListArray),
    Maps(&'a MapArray),
    Bytes(&'a BinaryArray),
}

impl<'a> Values<'a> {
    fn of(array: &'a ArrayRef) -> Option<Self> {
        if let Some(texts) = array.as_string_opt::<i32>() {
            return Some(Self::Texts(Texts::Plain(texts)));
        }
        if let Some(coded) = array.as_dictionary_opt::<Int32Type>() {
            let values = coded.values().as_string_opt::<i32>()?;
            return Some(Self::Texts(Texts::Coded(coded.keys(), values)));
        }
        array
            .as_primitive_opt::<TimestampMicrosecondType>()
            .map(Self::Micros)
            .or_else(|| array.as_primitive_opt::<Int64Type>().map(Self::Longs))
            .or_else(|| array.as_primitive_opt::<Int32Type>().map(Self::Ints))
            .or_else(|| array.as_list_opt::<i32>().map(Self::Lists))
            .or_else(|| array.as_map_opt().map(Self::Maps))
            .or_else(|| array.as_binary_opt::<i32>().map(Self::Bytes))
    }
}

/// A column of texts.
#[derive(Clone, Copy, Debug)]
enum Texts<'a> {
    Plain(&'a StringArray),
    Coded(&'a Int32Array, &'a StringArray),
}

/// A text, if it is not absent, and how often it occurs.
pub(crate) type TextCount<'a> = (Option<&'a [u8]>, u64);

/// A text that is empty is absent.
fn present(text: &str) -> Option<&[u8]> {
    (!text.is_empty()).then_some(text.as_bytes())
}

impl<'a> Texts<'a> {
    fn get(self, row: usize) -> Option<&'a str> {
        match self {
            Self::Plain(texts) => (row < texts.len() && texts.is_valid(row)).then(|| texts.value(row)),
            Self::Coded(keys, values) => {
                let key = (row < keys.len() && keys.is_valid(row)).then(|| keys.value(row))?;
                let key = usize::try_from(key).ok().filter(|key| *key < values.len())?;
                values.is_valid(key).then(|| values.value(key))
            }
        }
    }

    /// The rows of whose text `holds` is true; each distinct text is looked at once where texts are coded.
    fn select(self, rows: usize, holds: impl Fn(Option<&[u8]>) -> bool) -> BooleanBuffer {
        match self {
            Self::Plain(_) => BooleanBuffer::collect_bool(rows, |row| holds(self.get(row).and_then(present))),
            Self::Coded(keys, values) => {
                let table: Vec<bool> = (0..values.len())
                    .map(|at| holds(values.is_valid(at).then(|| values.value(at)).and_then(present)))
                    .collect();
                let absent = holds(None);
                BooleanBuffer::collect_bool(rows, |row| {
                    if keys.is_null(row) {
                        return absent;
                    }
                    let key = usize::try_from(keys.value(row)).unwrap_or(usize::MAX);
                    table.get(key).copied().unwrap_or(absent)
                })
            }
        }
    }
}

/// The column that holds the text of one of the language's columns as it is.
pub(crate) const fn text_column(column: &Column) -> Option<Col> {
    Some(match column {
        Column::Level => Col::Level,
        Column::Stage => Col::Stage,
        Column::AuditId => Col::AuditId,
        Column::RequestUri => Col::RequestUri,
        Column::Verb => Col::Verb,
        Column::UserUsername => Col::User,
        Column::UserUid => Col::UserUid,
        Column::ImpersonatedUsername => Col::ImpersonatedUser,
        Column::UserAgent => Col::UserAgent,
        Column::ObjectResource => Col::Resource,
        Column::ObjectNamespace => Col::Namespace,
        Column::ObjectName => Col::Name,
        Column::ObjectUid => Col::ObjectUid,
        Column::ObjectApiGroup => Col::ApiGroup,
        Column::ObjectApiVersion => Col::ApiVersion,
        Column::ObjectResourceVersion => Col::ResourceVersion,
        Column::ObjectSubresource => Col::Subresource,
        Column::ResponseStatus => Col::Status,
        Column::ResponseReason => Col::Reason,
        Column::ResponseMessage => Col::Message,
        Column::Decision => Col::Decision,
        _ => return None,
    })
}

/// The columns from which one of the language's columns is read; `None` when it takes the whole event.
pub(crate) fn sources(column: &Column) -> Option<&'static [Col]> {
    Some(match column {
        Column::Level => &[Col::Level],
        Column::Stage => &[Col::Stage],
        Column::AuditId => &[Col::AuditId],
        Column::RequestUri => &[Col::RequestUri],
        Column::Verb | Column::Mutating => &[Col::Verb],
        Column::UserUsername | Column::ActorKind => &[Col::User],
        Column::UserUid => &[Col::UserUid],
        Column::UserGroups => &[Col::Groups],
        Column::ImpersonatedUsername => &[Col::ImpersonatedUser],
        Column::ImpersonatedGroups => &[Col::ImpersonatedGroups],
        Column::SourceIps | Column::SourceIp => &[Col::SourceIps],
        Column::UserAgent | Column::Client => &[Col::UserAgent],
        Column::ObjectResource => &[Col::Resource],
        Column::ObjectNamespace => &[Col::Namespace],
        Column::ObjectName => &[Col::Name],
        Column::ObjectUid => &[Col::ObjectUid],
        Column::ObjectApiGroup => &[Col::ApiGroup],
        Column::ObjectApiVersion => &[Col::ApiVersion],
        Column::ObjectResourceVersion => &[Col::ResourceVersion],
        Column::ObjectSubresource => &[Col::Subresource],
        Column::ResponseCode => &[Col::Code],
        Column::ResponseStatus => &[Col::Status],
        Column::ResponseReason => &[Col::Reason],
        Column::ResponseMessage => &[Col::Message],
        Column::Annotation(_) => &[Col::Annotations],
        Column::Decision => &[Col::Decision],
        Column::DeniedBy => &[Col::Code, Col::Decision, Col::Message],
        Column::Bulk => &[Col::Verb, Col::Resource, Col::Namespace, Col::Name],
        Column::ExecCommand => &[Col::Subresource, Col::RequestUri],
        Column::RequestObject(_) => &[Col::RequestObject],
        Column::ResponseObject(_) => &[Col::ResponseObject],
        Column::StageTimestamp => &[Col::Ts],
        Column::RequestReceivedTimestamp => &[Col::Ts, Col::ReceivedDelta],
        Column::Latency => &[Col::ReceivedDelta],
        Column::Cluster => &[Col::Cluster],
        Column::Source => &[Col::Source],
        Column::Instance => &[Col::Instance],
        Column::Seq => &[Col::Seq],
        Column::PolicyRule => &[Col::PolicyRule],
        Column::EventBytes => &[Col::Bytes],
        _ => return None,
    })
}

/// Something of each distinct text, and at last of rows that have none; `add` is given the one of each row.
fn of_codes<'a, T: Clone + Default>(
    keys: &Int32Array,
    values: &'a StringArray,
    mut add: impl FnMut(&mut T, usize),
) -> Vec<(Option<&'a str>, T)> {
    let mut all = vec![T::default(); values.len() + 1];
    let absent = values.len();
    let slot = |key: i32| usize::try_from(key).ok().filter(|key| *key < absent);
    for (row, key) in keys.values().iter().enumerate() {
        let at = slot(*key).filter(|_| keys.is_valid(row)).unwrap_or(absent);
        if let Some(own) = all.get_mut(at) {
            add(own, row);
        }
    }
    let text = |at: usize| (at < absent && values.is_valid(at)).then(|| values.value(at));
    let all = all.into_iter().enumerate();
    all.map(|(at, own)| (text(at), own)).collect()
}

impl<'a> Batch<'a> {
    /// A batch whose columns are named as in the schema.
    pub(crate) fn of(batch: &'a RecordBatch) -> Self {
        let mut columns = [None; COLUMN_COUNT];
        let schema = crate::schema::schema();
        for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            if let Ok(at) = schema.index_of(field.name())
                && let Some(slot) = columns.get_mut(at)
            {
                *slot = Values::of(array);
            }
        }
        Self {
            columns,
            rows: batch.num_rows(),
        }
    }

    pub(crate) const fn rows(&self) -> usize {
        self.rows
    }

    fn column(&self, column: Col) -> Option<Values<'a>> {
        self.columns.get(column.at()).copied().flatten()
    }

    fn texts(&self, column: Col) -> Option<Texts<'a>> {
        match self.column(column)? {
            Values::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    /// The text of a column; `None` when it is NULL.
    pub(crate) fn text(&self, column: Col, row: usize) -> Option<&'a str> {
        self.texts(column)?.get(row)
    }

    fn bytes(&self, column: Col, row: usize) -> Option<&'a [u8]> {
        self.text(column, row).and_then(present)
    }

    fn bytes_or_empty(&self, column: Col, row: usize) -> &'a [u8] {
        self.bytes(column, row).unwrap_or_default()
    }

    /// The number or time of a column.
    pub(crate) fn number(&self, column: Col, row: usize) -> Option<i64> {
        let is_there = |array: &dyn Array| row < array.len() && array.is_valid(row);
        match self.column(column)? {
            Values::Micros(times) => is_there(times).then(|| times.value(row)),
            Values::Longs(longs) => is_there(longs).then(|| longs.value(row)),
            Values::Ints(ints) => is_there(ints).then(|| i64::from(ints.value(row))),
            _ => None,
        }
    }

    /// The times of all rows; `None` where they were not read.
    pub(crate) fn times(&self) -> Option<&'a [i64]> {
        match self.column(Col::Ts)? {
            Values::Micros(times) => Some(times.values()),
            _ => None,
        }
    }

    /// The received bytes that a row keeps; `None` where the column was not read.
    pub(crate) fn raw(&self, row: usize) -> Option<&'a [u8]> {
        match self.column(Col::Raw)? {
            Values::Bytes(raw) => (row < raw.len() && raw.is_valid(row)).then(|| raw.value(row)),
            _ => None,
        }
    }

    fn list(&self, column: Col, row: usize) -> impl Iterator<Item = &'a str> + use<'a> {
        let list = match self.column(column) {
            Some(Values::Lists(list)) => Some(list),
            _ => None,
        };
        list.into_iter().flat_map(move |list| list_texts(list, row))
    }

    fn annotation(&self, key: &str, row: usize) -> Option<&'a [u8]> {
        let Some(Values::Maps(map)) = self.column(Col::Annotations) else {
            return None;
        };
        map_texts(map, row)
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.as_bytes())
    }

    /// How often each text of a column occurs; `None` where the column has no texts of its own or is not
    /// coded.
    pub(crate) fn text_counts(&self, column: &Column) -> Option<Vec<TextCount<'a>>> {
        let Texts::Coded(keys, values) = self.texts(text_column(column)?)? else {
            return None;
        };
        let counts = of_codes(keys, values, |count: &mut u64, _| *count += 1);
        let known = counts.into_iter().filter(|(_, count)| *count > 0);
        Some(
            known
                .map(|(text, count)| (text.and_then(present), count))
                .collect(),
        )
    }

    /// The volume of each text of a column, which has to be read with the bytes of events; `None` where the column has no
    /// texts of its own or is not coded.
    pub(crate) fn text_volumes(&self, column: &Column) -> Option<Vec<(Option<&'a str>, Volume)>> {
        let Texts::Coded(keys, values) = self.texts(text_column(column)?)? else {
            return None;
        };
        let Values::Ints(bytes) = self.column(Col::Bytes)? else {
            return None;
        };
        let bytes = bytes.values();
        let mut volumes = of_codes(keys, values, |volume: &mut Volume, row| {
            volume.events += 1;
            let bytes = bytes.get(row).copied().unwrap_or_default();
            volume.event_bytes += u64::try_from(bytes).unwrap_or_default();
        });
        volumes.retain(|(_, volume)| volume.events > 0);
        Some(volumes)
    }

    /// The rows of which a condition is true. All columns that it looks at must be there.
    pub(crate) fn select(&self, expr: &Expr) -> BooleanBuffer {
        match expr {
            Expr::Everything => BooleanBuffer::new_set(self.rows),
            Expr::Nothing => BooleanBuffer::new_unset(self.rows),
            Expr::Not(inner) => !&self.select(inner),
            Expr::And(parts) => parts
                .iter()
                .fold(BooleanBuffer::new_set(self.rows), |rows, part| {
                    &rows & &self.select(part)
                }),
            Expr::Or(parts) => parts
                .iter()
                .fold(BooleanBuffer::new_unset(self.rows), |rows, part| {
                    &rows | &self.select(part)
                }),
            Expr::Test(test) => self.select_test(test),
            Expr::Text(test) => self.select_text(test),
        }
    }

    fn select_test(&self, test: &Test) -> BooleanBuffer {
        let column = &test.column;
        let texts = match column {
            Column::Client => self.texts(Col::UserAgent),
            Column::ActorKind | Column::Mutating | Column::Cluster | Column::Source | Column::Instance => {
                self.texts(match column {
                    Column::ActorKind => Col::User,
                    Column::Cluster => Col::Cluster,
                    Column::Source => Col::Source,
                    Column::Instance => Col::Instance,
                    _ => Col::Verb,
                })
            }
            column => text_column(column).and_then(|column| self.texts(column)),
        };
        if let Some(texts) = texts {
            return match column {
                Column::Client => texts.select(self.rows, |agent| {
                    test.holds_text(agent.and_then(derived::client).as_deref())
                }),
                Column::ActorKind => texts.select(self.rows, |user| {
                    let kind = derived::actor_kind(user.unwrap_or_default());
                    test.holds_text(Some(kind.as_str().as_bytes()))
                }),
                Column::Mutating => texts.select(self.rows, |verb| {
                    test.holds_bool(Some(derived::mutating(verb.unwrap_or_default())))
                }),
                // Names in the envelope may be empty texts, which are values.
                Column::Cluster | Column::Source | Column::Instance => {
                    texts.select(self.rows, |text| test.holds_text(Some(text.unwrap_or_default())))
                }
                _ => texts.select(self.rows, |text| test.holds_text(text)),
            };
        }
        if let Column::RequestObject(_) | Column::ResponseObject(_) = column {
            return self.select_body(test);
        }
        BooleanBuffer::collect_bool(self.rows, |row| self.holds(test, row))
    }

    fn select_body(&self, test: &Test) -> BooleanBuffer {
        let column = match &test.column {
            Column::RequestObject(_) => Col::RequestObject,
            _ => Col::ResponseObject,
        };
        let test = test.of_bodies();
        BooleanBuffer::collect_bool(self.rows, |row| {
            self.bytes(column, row).is_some_and(|body| test.holds(body))
        })
    }

    fn holds(&self, test: &Test, row: usize) -> bool {
        match &test.column {
            Column::UserGroups => test.holds_texts(self.list(Col::Groups, row).map(str::as_bytes)),
            Column::SourceIps => test.holds_texts(self.list(Col::SourceIps, row).map(str::as_bytes)),
            Column::ImpersonatedGroups => {
                test.holds_texts(self.list(Col::ImpersonatedGroups, row).map(str::as_bytes))
            }
            column => match column.column_type() {
                ColumnType::Bool => test.holds_bool(self.bool(column, row)),
                ColumnType::Number | ColumnType::Time | ColumnType::Duration => {
                    test.holds_number(self.number_of(column, row))
                }
                _ => test.holds_text(self.text_of(column, row).as_deref()),
            },
        }
    }

    fn select_text(&self, test: &TextTest) -> BooleanBuffer {
        let mut found = BooleanBuffer::new_unset(self.rows);
        for column in TEXT_SOURCES {
            if let Some(texts) = self.texts(column) {
                found = &found | &texts.select(self.rows, |text| test.holds_text(text));
            }
        }
        if test.bodies == kaudit_query::Bodies::Searched {
            for column in [Col::RequestObject, Col::ResponseObject] {
                if let Some(texts) = self.texts(column) {
                    let bodies = BooleanBuffer::collect_bool(self.rows, |row| {
                        !found.value(row) && test.holds_body(texts.get(row).map(str::as_bytes))
                    });
                    found = &found | &bodies;
                }
            }
        }
        found
    }

    fn number_of(&self, column: &Column, row: usize) -> Option<i64> {
        match column {
            Column::ResponseCode => self.number(Col::Code, row),
            Column::StageTimestamp => self.number(Col::Ts, row),
            Column::RequestReceivedTimestamp => self
                .number(Col::Ts, row)?
                .checked_sub(self.number(Col::ReceivedDelta, row)?),
            Column::Latency => self.number(Col::ReceivedDelta, row),
            Column::Seq => self.number(Col::Seq, row),
            Column::PolicyRule => self.number(Col::PolicyRule, row),
            Column::EventBytes => self.number(Col::Bytes, row),
            _ => None,
        }
    }

    fn bool(&self, column: &Column, row: usize) -> Option<bool> {
        match column {
            Column::Mutating => Some(derived::mutating(self.bytes_or_empty(Col::Verb, row))),
            Column::Bulk => Some(derived::bulk(
                self.bytes_or_empty(Col::Verb, row),
                self.bytes_or_empty(Col::Resource, row),
                self.bytes_or_empty(Col::Namespace, row),
                self.bytes_or_empty(Col::Name, row),
            )),
            _ => None,
        }
    }

    fn text_of(&self, column: &Column, row: usize) -> Option<Cow<'a, [u8]>> {
        if let Some(column) = text_column(column) {
            return self.bytes(column, row).map(Cow::Borrowed);
        }
        match column {
            Column::Cluster => self
                .text(Col::Cluster, row)
                .map(|text| Cow::Borrowed(text.as_bytes())),
            Column::Source => self
                .text(Col::Source, row)
                .map(|text| Cow::Borrowed(text.as_bytes())),
            Column::Instance => self
                .text(Col::Instance, row)
                .map(|text| Cow::Borrowed(text.as_bytes())),
            Column::ActorKind => {
                let kind = derived::actor_kind(self.bytes_or_empty(Col::User, row));
                Some(Cow::Borrowed(kind.as_str().as_bytes()))
            }
            Column::Client => derived::client(self.bytes(Col::UserAgent, row)?),
            Column::SourceIp => {
                let last = self.list(Col::SourceIps, row).last()?;
                present(last).map(Cow::Borrowed)
            }
            Column::Annotation(key) => self.annotation(key, row).map(Cow::Borrowed),
            Column::DeniedBy => derived::denied_by(
                self.number(Col::Code, row),
                self.bytes_or_empty(Col::Decision, row),
                self.bytes_or_empty(Col::Message, row),
            )
            .map(|by| Cow::Borrowed(by.as_str().as_bytes())),
            Column::ExecCommand => derived::exec_command(
                self.bytes_or_empty(Col::Subresource, row),
                self.bytes_or_empty(Col::RequestUri, row),
            )
            .map(Cow::Owned),
            _ => None,
        }
    }

    /// The value of one of the language's columns whose [`sources`] are there.
    pub(crate) fn value(&self, column: &Column, row: usize) -> Value<'a> {
        match column.column_type() {
            ColumnType::Text => self.text_of(column, row).map_or(Value::Absent, Value::Text),
            ColumnType::TextList => {
                let source = match column {
                    Column::UserGroups => Col::Groups,
                    Column::ImpersonatedGroups => Col::ImpersonatedGroups,
                    _ => Col::SourceIps,
                };
                let texts: Vec<_> = self
                    .list(source, row)
                    .map(|text| Cow::Borrowed(text.as_bytes()))
                    .collect();
                if texts.is_empty() {
                    Value::Absent
                } else {
                    Value::Texts(texts)
                }
            }
            ColumnType::Number => self.number_of(column, row).map_or(Value::Absent, Value::Number),
            ColumnType::Time => self.number_of(column, row).map_or(Value::Absent, Value::Time),
            ColumnType::Duration => self.number_of(column, row).map_or(Value::Absent, Value::Duration),
            ColumnType::Bool => self.bool(column, row).map_or(Value::Absent, Value::Bool),
            ColumnType::Json => Value::Absent,
        }
    }
}

/// The columns in which free text is looked for.
pub(crate) const TEXT_SOURCES: [Col; 5] = [
    Col::Name,
    Col::User,
    Col::ImpersonatedUser,
    Col::RequestUri,
    Col::UserAgent,
];
