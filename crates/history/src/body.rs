//! Bodies of events as values.

use std::borrow::Cow;

use serde_json::Value;

/// A longer body is not looked into. An event as a whole is no longer either.
pub const MAX_BODY_BYTES: usize = 64 << 20;

/// How deep a body may nest to be looked into.
pub const MAX_BODY_DEPTH: usize = 127;

/// A body, and whether it reads as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) value: Value,
    /// Bytes that are not UTF-8 were read as U+FFFD.
    pub(crate) is_lossy: bool,
}

/// Reads a body, or says in words why it cannot be read.
pub(crate) fn parse(text: &[u8]) -> Result<Parsed, String> {
    if text.len() > MAX_BODY_BYTES {
        return Err(format!("a body of {} bytes is not looked into", text.len()));
    }
    let text = String::from_utf8_lossy(text);
    let value = serde_json::from_str(&text).map_err(|error| {
        if error.to_string().starts_with("recursion limit") {
            format!("a body nests deeper than {MAX_BODY_DEPTH} levels")
        } else {
            format!("a body is no JSON: {error}")
        }
    })?;
    Ok(Parsed {
        value,
        is_lossy: matches!(text, Cow::Owned(_)),
    })
}

/// How deep a value nests, and about how much memory it takes.
pub(crate) fn measure(value: &Value) -> (usize, usize) {
    let (mut deepest, mut bytes) = (0, 0_usize);
    let mut stack = vec![(value, 0)];
    while let Some((value, depth)) = stack.pop() {
        deepest = deepest.max(depth);
        bytes += size_of::<Value>();
        match value {
            Value::String(text) => bytes += text.len(),
            Value::Array(items) => stack.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => {
                for (key, value) in fields {
                    bytes += size_of::<String>() + key.len();
                    stack.push((value, depth + 1));
                }
            }
            _ => {}
        }
    }
    (deepest, bytes)
}
