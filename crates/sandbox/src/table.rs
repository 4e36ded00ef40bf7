//! Objects as the tables that `kubectl get` prints, with upstream's columns.
//!
//! Source: kubernetes pkg/printers/internalversion/printers.go.

mod cells;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds::Kind;

/// What stands in each row besides the cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    None,
    Metadata,
    Object,
}

impl IncludeObject {
    /// The value of the `includeObject` parameter.
    pub(crate) fn from_name(name: &str) -> Self {
        match name {
            "None" => Self::None,
            "Object" => Self::Object,
            _ => Self::Metadata,
        }
    }
}

/// A column: name, type, format and priority (above 0: only with `-o wide`).
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: &'static str,
    pub(crate) priority: i64,
}

/// One object or a list of them as a Table.
pub(crate) fn render(
    kind: &Kind,
    object: &Value,
    version: &str,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    let is_list = object.get("items").is_some_and(Value::is_array)
        && object.get("kind").and_then(Value::as_str) == Some(&*kind.list_kind);
    let objects: Vec<&Value> = if is_list {
        object
            .get("items")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .collect()
    } else {
        vec![object]
    };
    let columns = cells::columns(kind);
    let definitions: Vec<Value> = columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.kind,
                "format": column.format,
                "description": "",
                "priority": column.priority,
            })
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut row = json!({"cells": cells::row(kind, object, now)});
            let body = match include {
                IncludeObject::None => None,
                IncludeObject::Metadata => Some(partial(object, version)),
                IncludeObject::Object => Some(typed(kind, object)),
            };
            if let (Value::Object(row), Some(body)) = (&mut row, body) {
                row.insert("object".to_owned(), body);
            }
            row
        })
        .collect();
    let metadata = if is_list {
        object.get("metadata").cloned().unwrap_or_default()
    } else {
        let revision = object
            .pointer("/metadata/resourceVersion")
            .cloned()
            .unwrap_or_default();
        json!({"resourceVersion": revision})
    };
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

/// An object with its type, which items of lists leave out.
fn typed(kind: &Kind, object: &Value) -> Value {
    let mut out = json!({"kind": kind.kind, "apiVersion": kind.api_version()});
    if let (Value::Object(out), Value::Object(fields)) = (&mut out, object) {
        out.extend(fields.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    out
}

/// An object's metadata alone.
pub(crate) fn partial(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or_default(),
    })
}

/// The metadata of an object, or of each object of a list.
pub(crate) fn partial_list(object: &Value, version: &str) -> Value {
    match object.get("items").and_then(Value::as_array) {
        None => partial(object, version),
        Some(items) => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": object.get("metadata").cloned().unwrap_or_default(),
            "items": items.iter().map(|item| partial(item, version)).collect::<Vec<_>>(),
        }),
    }
}

/// `5s`, `3m12s`, `4h`, `2d3h`, `40d`, as kubectl prints ages.
///
/// Source: k8s.io/apimachinery pkg/util/duration/duration.go, HumanDuration.
pub(crate) fn age(since: &str, now: Timestamp) -> String {
    let Ok(since) = since.parse::<Timestamp>() else {
        return "<unknown>".to_owned();
    };
    human(now.as_second() - since.as_second())
}

fn human(seconds: i64) -> String {
    let pair = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{big}{big_unit}")
        } else {
            format!("{big}{big_unit}{small}{small_unit}")
        }
    };
    let (minutes, hours, days, years) = (
        seconds / 60,
        seconds / 3600,
        seconds / 86_400,
        seconds / 31_536_000,
    );
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    #[test]
    fn ages_are_printed_as_kubectl_prints_them() {
        for (seconds, text) in [
            (5, "5s"),
            (119, "119s"),
            (125, "2m5s"),
            (180, "3m"),
            (601, "10m"),
            (10_860, "3h1m"),
            (30_000, "8h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
        ] {
            assert_eq!(human(seconds), text);
        }
        assert_eq!(age("nonsense", Timestamp::UNIX_EPOCH), "<unknown>");
    }

    #[test]
    fn every_kind_has_as_many_cells_as_columns() {
        for kind in Kinds::new([].into_iter()).iter() {
            let object = json!({"kind": kind.kind, "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}});
            let table = render(
                kind,
                &object,
                "v1",
                IncludeObject::Metadata,
                Timestamp::UNIX_EPOCH,
            );
            let columns = table["columnDefinitions"].as_array().unwrap();
            let cells = table["rows"][0]["cells"].as_array().unwrap();
            assert_eq!(columns.len(), cells.len(), "{}", kind.plural);
            assert_eq!(
                cells[0],
                if kind.plural == "events" {
                    json!("<unknown>")
                } else {
                    json!("a")
                },
                "{}",
                kind.plural
            );
        }
    }

    #[test]
    fn a_pods_row_says_ready_and_status() {
        let kinds = Kinds::new([].into_iter());
        let pod = json!({
            "kind": "Pod",
            "metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"nodeName": "n", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [{"ready": true, "restartCount": 2}]},
        });
        let table = render(
            kinds.find("", "v1", "pods").unwrap(),
            &pod,
            "v1",
            IncludeObject::None,
            Timestamp::from_second(5).unwrap(),
        );
        assert_eq!(
            table["rows"][0]["cells"],
            json!([
                "a", "1/1", "Running", "2", "5s", "10.0.0.1", "n", "<none>", "<none>"
            ])
        );
        assert!(table["rows"][0].get("object").is_none());
    }
}
