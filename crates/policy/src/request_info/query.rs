//! Query parameters, and the list options among them.

use std::borrow::Cow;

use super::labels;
use crate::target::unescape;

/// Decoded pairs in the order of the query. A pair with `;` or a bad escape is left out, as Go does.
///
/// Source: Go 1.26 net/url, parseQuery.
pub(super) struct Query<'a>(Vec<Pair<'a>>);

type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

impl<'a> Query<'a> {
    pub(super) fn parse(raw: &'a [u8]) -> Self {
        let pairs = raw
            .split(|byte| *byte == b'&')
            .filter(|pair| !pair.is_empty() && memchr::memchr(b';', pair).is_none());
        Self(
            pairs
                .filter_map(|pair| {
                    let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
                    let (key, value) = pair.split_at_checked(at)?;
                    Some((decode(key)?, decode(value.get(1..).unwrap_or_default())?))
                })
                .collect(),
        )
    }

    /// The first value of `key`.
    pub(super) fn first(&self, key: &[u8]) -> Option<&[u8]> {
        self.0
            .iter()
            .find(|(name, _)| **name == *key)
            .map(|(_, value)| &**value)
    }

    /// Whether to watch, and the name that the field selector requires.
    ///
    /// When any option cannot be decoded all are discarded, and `watch` is read by itself.
    /// Source: k8s.io/apimachinery pkg/apis/meta/v1, Convert_url_Values_To_v1_ListOptions.
    pub(super) fn list_options(&self) -> (bool, Option<Vec<u8>>) {
        let watch = self.first(b"watch").is_some_and(is_true);
        let numbers_decode = [b"timeoutSeconds".as_slice(), b"limit"]
            .into_iter()
            .all(|key| self.first(key).is_none_or(is_int64));
        let labels_decode = self.first(b"labelSelector").is_none_or(labels::is_valid);
        if !numbers_decode || !labels_decode {
            return (watch, None);
        }
        let name = self
            .first(b"fieldSelector")
            .and_then(|selector| required_name(selector).unwrap_or_default());
        (watch, name)
    }
}

/// `+` is a blank, `%XX` a byte.
fn decode(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !text.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Some(Cow::Borrowed(text));
    }
    let blanks: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    unescape(&blanks).map(Cow::Owned)
}

fn is_true(value: &[u8]) -> bool {
    !(value == b"0" || value.eq_ignore_ascii_case(b"false"))
}

/// Go's `strconv.ParseInt(value, 10, 64)`.
pub(super) fn is_int64(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| text.parse::<i64>().is_ok())
}

/// The value that `selector` requires of `metadata.name`; an error when it does not parse.
///
/// Source: k8s.io/apimachinery pkg/fields/selector.go, parseSelector.
fn required_name(selector: &[u8]) -> Result<Option<Vec<u8>>, ()> {
    let mut terms = split_terms(selector);
    terms.sort_unstable();
    let mut required = None;
    for term in terms.into_iter().filter(|term| !term.is_empty()) {
        let (field, is_equal, value) = split_term(term).ok_or(())?;
        let value = unescape_value(value).ok_or(())?;
        if required.is_none() && is_equal && field == b"metadata.name" {
            required = Some(value);
        }
    }
    Ok(required)
}

/// At commas that no backslash precedes.
fn split_terms(selector: &[u8]) -> Vec<&[u8]> {
    let mut in_escape = false;
    selector
        .split(|byte| match byte {
            _ if in_escape => {
                in_escape = false;
                false
            }
            b'\\' => {
                in_escape = true;
                false
            }
            byte => *byte == b',',
        })
        .collect()
}

fn split_term(term: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let at = (0..term.len()).find(|at| {
        let rest = term.get(*at..).unwrap_or_default();
        rest.starts_with(b"!=") || rest.starts_with(b"=")
    })?;
    let (field, rest) = term.split_at_checked(at)?;
    let (is_equal, length) = match rest {
        [b'!', b'=', ..] => (false, 2),
        [b'=', b'=', ..] => (true, 2),
        _ => (true, 1),
    };
    Some((field, is_equal, rest.get(length..)?))
}

fn unescape_value(value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(escaped @ (b'\\' | b',' | b'=')) => out.push(*escaped),
                _ => return None,
            },
            b',' | b'=' => return None,
            byte => out.push(*byte),
        }
    }
    Some(out)
}
