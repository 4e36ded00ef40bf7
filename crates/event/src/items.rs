//! Many events in one text: a log file, or the body of a webhook's request. A bad item never costs its
//! neighbours.

use std::ops::Range;

use crate::decode::MAX_EVENT_BYTES;
use crate::decode::json::value_len;
use crate::{BodyError, check_json};

/// A part of a text that is not an item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes {} to {}: {reason}", span.start, span.end)]
#[non_exhaustive]
pub struct BadItem {
    /// Where it stands.
    pub span: Range<usize>,
    /// What is wrong.
    pub reason: BadItemReason,
}

/// What is wrong with an item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadItemReason {
    /// It is not JSON.
    #[error("not JSON: {0}")]
    Syntax(BodyError),
    /// It is JSON, but no object.
    #[error("not a JSON object")]
    NotObject,
    /// It is larger than an event may be.
    #[error("larger than {MAX_EVENT_BYTES} bytes")]
    TooLarge,
    /// The text ends before the item does.
    #[error("the text ends in the middle of it")]
    Cut,
}

/// The items of a log in JSON lines. Empty lines are passed over; a line that is not a JSON object is a
/// [`BadItem`] and the next line goes on.
pub fn ndjson_items(text: &[u8]) -> impl Iterator<Item = Result<&[u8], BadItem>> {
    let mut start = 0;
    text.split(|byte| *byte == b'\n').filter_map(move |line| {
        let span = start..start + line.len();
        start = span.end + 1;
        let line = line.trim_ascii();
        (!line.is_empty()).then(|| checked(line, span))
    })
}

/// The items of an EventList. An item that is not an object is a [`BadItem`] and the next one goes on, as
/// long as brackets can be counted; from there on the rest of the text is one.
///
/// A text that is no list at all is one [`BadItem`].
pub fn event_list_items(text: &[u8]) -> impl Iterator<Item = Result<&[u8], BadItem>> {
    let mut at = items_start(text);
    std::iter::from_fn(move || {
        let start = match at? {
            Ok(start) => skip_separators(text, start),
            Err(()) => {
                at = None;
                let reason =
                    check_json(text).map_or_else(BadItemReason::Syntax, |()| BadItemReason::NotObject);
                return Some(Err(BadItem {
                    span: 0..text.len(),
                    reason,
                }));
            }
        };
        let rest = text.get(start..).unwrap_or_default();
        if rest.first() == Some(&b']') {
            at = None;
            return None;
        }
        let Some(length) = value_len(rest).filter(|length| *length > 0) else {
            at = None;
            return Some(Err(BadItem {
                span: start..text.len(),
                reason: BadItemReason::Cut,
            }));
        };
        at = Some(Ok(start + length));
        let item = rest.get(..length).unwrap_or_default();
        Some(checked(item, start..start + length))
    })
}

fn checked(item: &[u8], span: Range<usize>) -> Result<&[u8], BadItem> {
    let reason = if item.len() > MAX_EVENT_BYTES {
        BadItemReason::TooLarge
    } else if serde_json::from_slice::<serde::de::IgnoredAny>(item).is_err()
        && let Err(error) = check_json(item)
    {
        BadItemReason::Syntax(error)
    } else if item.first() == Some(&b'{') {
        return Ok(item);
    } else {
        BadItemReason::NotObject
    };
    Err(BadItem { span, reason })
}

/// Where the items of the list begin; `None` without a list, an error when there is no object.
fn items_start(text: &[u8]) -> Option<Result<usize, ()>> {
    let mut at = skip_separators(text, 0);
    if text.get(at) != Some(&b'{') {
        return Some(Err(()));
    }
    at += 1;
    loop {
        at = skip_separators(text, at);
        let rest = text.get(at..)?;
        match rest.first() {
            Some(b'}') => return None,
            Some(b'"') => {}
            _ => return Some(Err(())),
        }
        let Some(length) = value_len(rest) else {
            return Some(Err(()));
        };
        let is_items = rest.get(..length) == Some(b"\"items\"");
        at = skip_separators(text, at + length);
        let rest = text.get(at..)?;
        if is_items && rest.first() == Some(&b'[') {
            return Some(Ok(at + 1));
        }
        match value_len(rest).filter(|length| *length > 0) {
            Some(length) => at += length,
            None => return Some(Err(())),
        }
    }
}

fn skip_separators(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    let blanks = rest
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':'))
        .count();
    at + blanks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<'a>(items: impl Iterator<Item = Result<&'a [u8], BadItem>>) -> Vec<String> {
        items
            .map(|item| match item {
                Ok(item) => String::from_utf8_lossy(item).into_owned(),
                Err(bad) => format!("bad {:?}", bad.span),
            })
            .collect()
    }

    #[test]
    fn a_bad_line_costs_only_itself() {
        let text = b"{\"a\":1}\n\nnonsense\r\n {\"b\":2} \n[1]\n{\"c\":";
        assert_eq!(
            shown(ndjson_items(text)),
            ["{\"a\":1}", "bad 9..18", "{\"b\":2}", "bad 29..32", "bad 33..38"]
        );
    }

    #[test]
    fn a_bad_item_costs_only_itself() {
        let text =
            br#"{"kind":"EventList","metadata":{"x":[1]}, "items" : [{"a":1}, 7, {"b":nul}, {"c":"]"} ]}"#;
        assert_eq!(
            shown(event_list_items(text)),
            [r#"{"a":1}"#, "bad 62..63", "bad 65..74", r#"{"c":"]"}"#]
        );
        let cut = br#"{"items":[{"a":1},{"b":"#;
        assert_eq!(shown(event_list_items(cut)), [r#"{"a":1}"#, "bad 18..23"]);
    }

    #[test]
    fn a_list_without_items_has_none_and_other_text_is_bad() {
        assert!(shown(event_list_items(br#"{"kind":"EventList","items":null}"#)).is_empty());
        assert!(shown(event_list_items(br#"{"items":[]}"#)).is_empty());
        assert_eq!(shown(event_list_items(b"[1]")), ["bad 0..3"]);
        assert_eq!(shown(event_list_items(b"")), ["bad 0..0"]);
        assert_eq!(shown(event_list_items(br#"{"items":[}"#)), ["bad 10..11"]);
    }
}
