//! The one table, `events`: its columns, and how they are written.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use crate::StoreError;

/// Rows of a row group, at most.
pub(crate) const GROUP_ROWS: usize = 128 << 10;
/// Rows of a page, at most.
const PAGE_ROWS: usize = 8192;

/// The columns in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Col {
    Ts,
    ReceivedDelta,
    Seq,
    Ingested,
    Cluster,
    Source,
    Instance,
    PolicyRule,
    PolicyHash,
    AuditId,
    Level,
    Stage,
    Verb,
    Decision,
    User,
    UserUid,
    ImpersonatedUser,
    ImpersonatedGroups,
    Groups,
    SourceIps,
    UserExtra,
    UserAgent,
    RequestUri,
    Resource,
    Namespace,
    Name,
    Subresource,
    ApiGroup,
    ApiVersion,
    ObjectUid,
    ResourceVersion,
    Code,
    Reason,
    Message,
    Status,
    Annotations,
    Bytes,
    RequestObject,
    ResponseObject,
    Extra,
    Raw,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Micros,
    Long,
    Int,
    Text,
    Texts,
    Map,
    Binary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Null {
    Never,
    Absent,
}

type Definition = (Col, &'static str, Kind, Null);

const COLUMNS: [Definition; 41] = [
    (Col::Ts, "ts", Kind::Micros, Null::Never),
    (Col::ReceivedDelta, "received_delta", Kind::Long, Null::Absent),
    (Col::Seq, "seq", Kind::Long, Null::Never),
    (Col::Ingested, "ingested", Kind::Micros, Null::Never),
    (Col::Cluster, "cluster", Kind::Text, Null::Never),
    (Col::Source, "source", Kind::Text, Null::Never),
    (Col::Instance, "instance", Kind::Text, Null::Never),
    (Col::PolicyRule, "policy_rule", Kind::Int, Null::Absent),
    (Col::PolicyHash, "policy_hash", Kind::Text, Null::Absent),
    (Col::AuditId, "audit_id", Kind::Text, Null::Never),
    (Col::Level, "level", Kind::Text, Null::Never),
    (Col::Stage, "stage", Kind::Text, Null::Never),
    (Col::Verb, "verb", Kind::Text, Null::Never),
    (Col::Decision, "decision", Kind::Text, Null::Absent),
    (Col::User, "user", Kind::Text, Null::Never),
    (Col::UserUid, "user_uid", Kind::Text, Null::Absent),
    (
        Col::ImpersonatedUser,
        "impersonated_user",
        Kind::Text,
        Null::Absent,
    ),
    (
        Col::ImpersonatedGroups,
        "impersonated_groups",
        Kind::Texts,
        Null::Absent,
    ),
    (Col::Groups, "groups", Kind::Texts, Null::Absent),
    (Col::SourceIps, "source_ips", Kind::Texts, Null::Absent),
    (Col::UserExtra, "user_extra", Kind::Text, Null::Absent),
    (Col::UserAgent, "user_agent", Kind::Text, Null::Absent),
    (Col::RequestUri, "request_uri", Kind::Text, Null::Never),
    (Col::Resource, "resource", Kind::Text, Null::Absent),
    (Col::Namespace, "namespace", Kind::Text, Null::Absent),
    (Col::Name, "name", Kind::Text, Null::Absent),
    (Col::Subresource, "subresource", Kind::Text, Null::Absent),
    (Col::ApiGroup, "api_group", Kind::Text, Null::Absent),
    (Col::ApiVersion, "api_version", Kind::Text, Null::Absent),
    (Col::ObjectUid, "object_uid", Kind::Text, Null::Absent),
    (Col::ResourceVersion, "resource_version", Kind::Text, Null::Absent),
    (Col::Code, "code", Kind::Int, Null::Absent),
    (Col::Reason, "reason", Kind::Text, Null::Absent),
    (Col::Message, "message", Kind::Text, Null::Absent),
    (Col::Status, "status", Kind::Text, Null::Absent),
    (Col::Annotations, "annotations", Kind::Map, Null::Absent),
    (Col::Bytes, "bytes", Kind::Int, Null::Never),
    (Col::RequestObject, "request_object", Kind::Text, Null::Absent),
    (Col::ResponseObject, "response_object", Kind::Text, Null::Absent),
    (Col::Extra, "extra", Kind::Text, Null::Absent),
    (Col::Raw, "raw", Kind::Binary, Null::Absent),
];

/// How many columns there are.
pub(crate) const COLUMN_COUNT: usize = COLUMNS.len();

impl Col {
    /// The column's place in the schema.
    pub(crate) const fn at(self) -> usize {
        self as usize
    }

    /// All columns.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        COLUMNS.iter().map(|(column, ..)| *column)
    }

    /// Whether its texts repeat, so that a test need not look at each row.
    const fn has_few_texts(self) -> bool {
        matches!(
            self,
            Self::Cluster
                | Self::Source
                | Self::Instance
                | Self::Level
                | Self::Stage
                | Self::Verb
                | Self::Decision
                | Self::User
                | Self::UserUid
                | Self::ImpersonatedUser
                | Self::UserAgent
                | Self::Resource
                | Self::Namespace
                | Self::Subresource
                | Self::ApiGroup
                | Self::ApiVersion
                | Self::Reason
                | Self::Status
        )
    }

    /// Its name in the files.
    pub(crate) fn name(self) -> &'static str {
        COLUMNS.get(self.at()).map_or("", |(_, name, ..)| name)
    }
}

/// The names of a map's parts as other engines expect them.
pub(crate) const MAP_ENTRIES: &str = "key_value";
pub(crate) const MAP_KEY: &str = "key";
pub(crate) const MAP_VALUE: &str = "value";
/// The name of a list's item.
pub(crate) const LIST_ITEM: &str = "element";

/// A list's item as a field.
pub(crate) fn list_item() -> Field {
    Field::new(LIST_ITEM, DataType::Utf8, false)
}

fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Micros => micros(),
        Kind::Long => DataType::Int64,
        Kind::Int => DataType::Int32,
        Kind::Text => DataType::Utf8,
        Kind::Texts => DataType::List(Arc::new(list_item())),
        Kind::Map => {
            let entries = Fields::from(vec![
                Field::new(MAP_KEY, DataType::Utf8, false),
                Field::new(MAP_VALUE, DataType::Utf8, false),
            ]);
            let entries = Field::new(MAP_ENTRIES, DataType::Struct(entries), false);
            DataType::Map(Arc::new(entries), false)
        }
        Kind::Binary => DataType::Binary,
    }
}

fn micros() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let fields: Vec<Field> = COLUMNS
        .iter()
        .map(|(_, name, kind, null)| Field::new(*name, data_type(*kind), *null == Null::Absent))
        .collect();
    Arc::new(Schema::new(fields))
});

/// The schema of every batch and every file.
pub(crate) fn schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

static CODED: LazyLock<SchemaRef> = LazyLock::new(|| {
    let coded = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let fields: Vec<Field> = COLUMNS
        .iter()
        .map(|(column, name, kind, null)| {
            let data_type = if column.has_few_texts() {
                coded.clone()
            } else {
                data_type(*kind)
            };
            Field::new(*name, data_type, *null == Null::Absent)
        })
        .collect();
    Arc::new(Schema::new(fields))
});

/// The same columns, with each distinct text once where there are few.
pub(crate) fn coded() -> SchemaRef {
    Arc::clone(&CODED)
}

/// How a file is written: by its sort order and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// By time, soon to be replaced.
    Sealed,
    /// By object, to stay.
    Compacted,
}

impl Form {
    const fn zstd(self) -> i32 {
        match self {
            // Level 3 takes half as much time again, for one part in a hundred.
            Self::Sealed => 1,
            Self::Compacted => 9,
        }
    }
}

/// The writer's properties.
pub(crate) fn properties(form: Form, rows: usize) -> Result<WriterProperties, StoreError> {
    let path = |column: Col| ColumnPath::from(column.name());
    let zstd = ZstdLevel::try_new(form.zstd())?;
    let rows = u64::try_from(rows.clamp(1, GROUP_ROWS)).unwrap_or(u64::MAX);
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by("kaudit".to_owned())
        .set_compression(Compression::ZSTD(zstd))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(1024)
        .set_column_index_truncate_length(Some(64))
        .set_statistics_truncate_length(Some(64));
    let mut encodings = vec![(Col::Seq, Encoding::DELTA_BINARY_PACKED)];
    encodings.push((Col::Ts, Encoding::DELTA_BINARY_PACKED));
    encodings.push((Col::Ingested, Encoding::DELTA_BINARY_PACKED));
    encodings.push((Col::ReceivedDelta, Encoding::DELTA_BINARY_PACKED));
    encodings.push((Col::Bytes, Encoding::DELTA_BINARY_PACKED));
    for text in [Col::AuditId, Col::RequestObject, Col::ResponseObject, Col::Raw] {
        encodings.push((text, Encoding::DELTA_LENGTH_BYTE_ARRAY));
    }
    for (column, encoding) in encodings {
        builder = builder
            .set_column_dictionary_enabled(path(column), false)
            .set_column_encoding(path(column), encoding);
    }
    for body in [
        Col::RequestObject,
        Col::ResponseObject,
        Col::Raw,
        Col::Extra,
        Col::UserExtra,
    ] {
        builder = builder.set_column_statistics_enabled(path(body), EnabledStatistics::None);
    }
    for (column, distinct) in [
        (Col::AuditId, rows),
        (Col::User, rows.min(4096)),
        (Col::Name, rows),
    ] {
        builder = builder
            .set_column_bloom_filter_enabled(path(column), true)
            .set_column_bloom_filter_fpp(path(column), 0.01)
            .set_column_bloom_filter_max_ndv(path(column), distinct);
    }
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_stands_at_its_own_place() {
        for (at, (column, name, ..)) in COLUMNS.iter().enumerate() {
            assert_eq!(column.at(), at);
            assert_eq!(schema().field(at).name(), name);
        }
    }
}
