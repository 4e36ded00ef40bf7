//! JSON values read where they stand: a body of an event, which is known to be valid JSON. No tree, and
//! recursion only along a path.

use std::borrow::Cow;

use memchr::memchr2;

/// The members of an object or the items of an array; an item has no key.
pub(crate) struct Children<'a> {
    rest: &'a [u8],
    keyed: bool,
}

impl<'a> Children<'a> {
    fn of(value: &'a [u8]) -> Self {
        let (rest, keyed) = match value {
            [b'{', inner @ .., b'}'] => (inner, true),
            [b'[', inner @ .., b']'] => (inner, false),
            _ => (&b""[..], false),
        };
        Self { rest, keyed }
    }

    fn next_value(&mut self) -> Option<&'a [u8]> {
        while let [b' ' | b'\t' | b'\r' | b'\n' | b',' | b':', rest @ ..] = self.rest {
            self.rest = rest;
        }
        let (value, rest) = self.rest.split_at_checked(value_len(self.rest)?)?;
        self.rest = rest;
        Some(value)
    }
}

impl<'a> Iterator for Children<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let key = if self.keyed { self.next_value()? } else { b"" };
        Some((key, self.next_value()?))
    }
}

/// Bytes of the value that `text` begins with.
pub(crate) fn value_len(text: &[u8]) -> Option<usize> {
    match text.first()? {
        b'"' => string_len(text),
        b'{' | b'[' => {
            let mut depth = 0_usize;
            let mut at = 0;
            loop {
                match text.get(at)? {
                    b'"' => at += string_len(text.get(at..)?)?,
                    b'{' | b'[' => {
                        depth += 1;
                        at += 1;
                    }
                    b'}' | b']' => {
                        depth = depth.checked_sub(1)?;
                        at += 1;
                        if depth == 0 {
                            return Some(at);
                        }
                    }
                    _ => at += 1,
                }
            }
        }
        _ => Some(
            text.iter()
                .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n'))
                .unwrap_or(text.len()),
        ),
    }
}

/// Bytes of the string that `text` begins with, quotes included.
fn string_len(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        let rest = text.get(at..)?;
        let found = memchr2(b'"', b'\\', rest)?;
        if rest.get(found) == Some(&b'"') {
            return Some(at + found + 1);
        }
        at += found + 2;
    }
}

/// The text of a string that stands in quotes; what else there is as it stands.
pub(crate) fn text_of(value: &[u8]) -> Cow<'_, [u8]> {
    let [b'"', inner @ .., b'"'] = value else {
        return Cow::Borrowed(value);
    };
    if memchr::memchr(b'\\', inner).is_none() {
        return Cow::Borrowed(inner);
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (before, escape) = rest.split_at_checked(at).unwrap_or((rest, b""));
        out.extend_from_slice(before);
        let (char, length) = match escape {
            [_, b'u', ..] => unicode(escape),
            [_, b'b', ..] => ('\u{8}', 2),
            [_, b'f', ..] => ('\u{c}', 2),
            [_, b'n', ..] => ('\n', 2),
            [_, b'r', ..] => ('\r', 2),
            [_, b't', ..] => ('\t', 2),
            [_, other, ..] => (char::from(*other), 2),
            _ => ('\u{fffd}', escape.len()),
        };
        let mut buffer = [0; 4];
        out.extend_from_slice(char.encode_utf8(&mut buffer).as_bytes());
        rest = escape.get(length..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

/// The character of `\uXXXX`, or of two of them that make a pair, and how long they are.
fn unicode(escape: &[u8]) -> (char, usize) {
    let unit = |at: usize| -> Option<u32> {
        let digits = escape.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let Some(first) = unit(0) else {
        return ('\u{fffd}', escape.len().min(6));
    };
    if let (0xd800..0xdc00, Some(second @ 0xdc00..0xe000)) = (first, unit(6)) {
        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(code).unwrap_or('\u{fffd}'), 12);
    }
    (char::from_u32(first).unwrap_or('\u{fffd}'), 6)
}

/// Arrays directly in arrays are looked through to this depth.
const MAX_ARRAYS: usize = 32;

/// Gives the values at a path to `found` until it answers true: through arrays, and through members whose
/// names are several names of the path with points between them. `null` is no value.
pub(crate) fn at_path<'a>(value: &'a [u8], path: &[String], found: &mut dyn FnMut(&'a [u8]) -> bool) -> bool {
    walk(value, path, 0, found)
}

fn walk<'a>(
    value: &'a [u8],
    path: &[String],
    arrays: usize,
    found: &mut dyn FnMut(&'a [u8]) -> bool,
) -> bool {
    match (value.first(), path.is_empty()) {
        (Some(b'['), _) => {
            arrays < MAX_ARRAYS && Children::of(value).any(|(_, item)| walk(item, path, arrays + 1, found))
        }
        (None | Some(b'n'), _) => false,
        (_, true) => found(value),
        (Some(b'{'), false) => Children::of(value).any(|(key, inner)| {
            names_met(&text_of(key), path)
                .and_then(|names| path.get(names..))
                .is_some_and(|rest| walk(inner, rest, 0, found))
        }),
        _ => false,
    }
}

/// How many names of `path`, with points between them, `key` is.
fn names_met(key: &[u8], path: &[String]) -> Option<usize> {
    let mut rest = key;
    for (at, name) in path.iter().enumerate() {
        rest = rest.strip_prefix(name.as_bytes())?;
        if rest.is_empty() {
            return Some(at + 1);
        }
        rest = rest.strip_prefix(b".")?;
    }
    None
}

/// Gives every scalar in a value to `found` until it answers true, without recursion.
pub(crate) fn scalars<'a>(value: &'a [u8], found: &mut dyn FnMut(&'a [u8]) -> bool) -> bool {
    let mut rest = value;
    loop {
        while let [
            b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' | b'{' | b'}' | b'[' | b']',
            after @ ..,
        ] = rest
        {
            rest = after;
        }
        let Some((scalar, after)) = value_len(rest).and_then(|length| rest.split_at_checked(length)) else {
            return false;
        };
        let blanks = after.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let is_key = after.get(blanks) == Some(&b':');
        if !is_key && scalar != b"null" && found(scalar) {
            return true;
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str, path: &[&str]) -> Vec<String> {
        let path: Vec<String> = path.iter().map(|&name| name.to_owned()).collect();
        let mut all = Vec::new();
        at_path(json.as_bytes(), &path, &mut |value| {
            all.push(String::from_utf8(text_of(value).into_owned()).unwrap());
            false
        });
        all
    }

    #[test]
    fn paths_lead_through_arrays_and_names_with_points() {
        let body = r#"{"spec":{"containers":[{"image":"a"},{"image":"b:latest"},{"x":null}]},
            "metadata":{"labels":{"app.kubernetes.io/name":"n","app":{"kubernetes":{"io/name":"m"}}}},"n": [[1],[2]]}"#;
        assert_eq!(found(body, &["spec", "containers", "image"]), ["a", "b:latest"]);
        assert_eq!(
            found(body, &["metadata", "labels", "app", "kubernetes", "io/name"]),
            ["n", "m"]
        );
        assert_eq!(
            found(body, &["metadata", "labels", "app.kubernetes.io/name"]),
            ["n"]
        );
        assert_eq!(found(body, &["n"]), ["1", "2"]);
        assert_eq!(found(body, &["spec", "containers", "x"]), [""; 0]);
        assert_eq!(found(r#"{"a\u0062":"\ud83d\ude00"}"#, &["ab"]), ["\u{1f600}"]);
    }

    #[test]
    fn scalars_are_all_but_keys() {
        let mut all = Vec::new();
        scalars(
            br#"{"k":"v","l" : [1, true, null, {"m":"w"}], "e":{}}"#,
            &mut |value| {
                all.push(String::from_utf8(text_of(value).into_owned()).unwrap());
                false
            },
        );
        assert_eq!(all, ["v", "1", "true", "w"]);
    }

    #[test]
    fn a_deep_value_needs_no_stack() {
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert!(!at_path(&deep, &[], &mut |_| true));
        assert!(!scalars(&deep, &mut |_| true));
    }
}
