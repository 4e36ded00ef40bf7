//! Whole events.

use std::io::{self, Write};

use kaudit_history::Mask;
use kaudit_query::{Column, Row, Value};

use crate::asking::{Hit, masked};

/// What `kaudit event` takes: when, and which of those that were then.
pub(crate) fn reference(row: &Row<'_>) -> String {
    let time = match row.value(&Column::StageTimestamp) {
        Value::Time(micros) => kaudit_query::instant(micros),
        _ => "-".to_owned(),
    };
    format!("{time}-{}", row.envelope.seq.unwrap_or_default())
}

/// An EventList of events.
pub(crate) fn write_list(out: &mut impl Write, hits: &[Hit], mask: &Mask) -> io::Result<()> {
    out.write_all(br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#)?;
    for (index, hit) in hits.iter().enumerate() {
        out.write_all(if index == 0 { b"\n" } else { b",\n" })?;
        let view = hit.event.view();
        out.write_all(&masked(hit.event.text(), &view, mask))?;
    }
    out.write_all(if hits.is_empty() { b"]}\n" } else { b"\n]}\n" })
}

/// One YAML document for each event.
pub(crate) fn write_yaml(out: &mut Vec<u8>, hits: &[Hit], mask: &Mask) -> anyhow::Result<()> {
    for hit in hits {
        let text = masked(hit.event.text(), &hit.event.view(), mask);
        // Bytes that are not UTF-8 have no place in YAML.
        let event: serde_json::Value = serde_json::from_str(&String::from_utf8_lossy(&text))?;
        out.extend_from_slice(b"---\n");
        out.extend_from_slice(serde_saphyr::to_string(&event)?.as_bytes());
        if out.last() != Some(&b'\n') {
            out.push(b'\n');
        }
    }
    Ok(())
}
