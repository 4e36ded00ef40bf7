//! Reading the families of `testdata/vectors`.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;

/// The cases of a family.
pub(crate) fn cases(file: &str) -> Vec<Value> {
    let folder = std::env::var_os("KAUDIT_VECTORS").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/vectors").into(),
        std::path::PathBuf::from,
    );
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A byte string: text, or base64 where it is not UTF-8.
pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        other => BASE64_STANDARD.decode(other["b64"].as_str().unwrap()).unwrap(),
    }
}

/// Fails with the first differences of a family.
#[track_caller]
pub(crate) fn report(wrong: &[String], total: usize) {
    assert!(total > 0, "the family is empty");
    assert!(
        wrong.is_empty(),
        "{} of {total} differ\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}
