//! `metadata.managedFields` out of raw JSON bodies, without a tree.

use std::ops::Range;

/// `body` without `metadata.managedFields` of the object itself, of the `items` of a list and of the
/// row objects of a Table; `None` when there is none, or when `body` is not a JSON object.
///
/// All other bytes stay as they are: the result is what would have been sent had the field been empty.
///
/// Source: k8s.io/apiserver pkg/audit/request.go, removeManagedFields.
#[must_use]
pub fn without_managed_fields(body: &[u8]) -> Option<Vec<u8>> {
    memchr::memmem::find(body, b"\"managedFields\"")?;
    let mut cuts = Vec::new();
    Cursor { body, at: 0 }.root(&mut cuts)?;
    if cuts.is_empty() {
        return None;
    }
    let mut kept = Vec::with_capacity(body.len());
    let mut from = 0;
    for cut in cuts {
        kept.extend_from_slice(body.get(from..cut.start)?);
        from = cut.end;
    }
    kept.extend_from_slice(body.get(from..)?);
    Some(kept)
}

/// Reads members and items; every step gives up with `None` on text that is not JSON.
struct Cursor<'a> {
    body: &'a [u8],
    at: usize,
}

type Cuts = Vec<Range<usize>>;

impl<'a> Cursor<'a> {
    fn root(&mut self, cuts: &mut Cuts) -> Option<()> {
        self.members(|cursor, key, _| match key {
            b"metadata" => cursor.metadata(cuts),
            b"items" => cursor.items(|cursor| cursor.object(cuts)),
            b"rows" => cursor.items(|cursor| {
                cursor.members(|cursor, key, _| {
                    if key == b"object" {
                        cursor.object(cuts)
                    } else {
                        cursor.skip()
                    }
                })
            }),
            _ => cursor.skip(),
        })
    }

    fn object(&mut self, cuts: &mut Cuts) -> Option<()> {
        self.members(|cursor, key, _| {
            if key == b"metadata" {
                cursor.metadata(cuts)
            } else {
                cursor.skip()
            }
        })
    }

    fn metadata(&mut self, cuts: &mut Cuts) -> Option<()> {
        let mut pending: Option<usize> = None;
        self.members(|cursor, key, member| {
            // A field that was cut from the front takes the comma behind it along.
            if let Some(start) = pending.take() {
                cuts.push(start..member.key);
            }
            if key != b"managedFields" {
                return cursor.skip();
            }
            cursor.skip()?;
            match member.comma {
                Some(comma) => cuts.push(comma..cursor.at),
                None => pending = Some(member.key),
            }
            Some(())
        })?;
        if let Some(start) = pending {
            // It was the only field: cut up to the closing brace.
            cuts.push(start..self.at - 1);
        }
        Some(())
    }

    fn blanks(&mut self) {
        while matches!(self.body.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.blanks();
        self.body.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Calls `each` at every value of an object; other values are skipped.
    fn members(&mut self, mut each: impl FnMut(&mut Self, &[u8], Member) -> Option<()>) -> Option<()> {
        if self.peek()? != b'{' {
            return self.skip();
        }
        self.at += 1;
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        let mut comma = None;
        loop {
            self.blanks();
            let start = self.at;
            let key = self.string()?;
            self.expect(b':')?;
            each(self, key, Member { key: start, comma })?;
            match self.peek()? {
                b',' => {
                    comma = Some(self.at);
                    self.at += 1;
                }
                b'}' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// Calls `each` at every item of a list; other values are skipped.
    fn items(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        if self.peek()? != b'[' {
            return self.skip();
        }
        self.at += 1;
        if self.peek()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            each(self)?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// The text between the quotes, escapes as they are.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            let rest = self.body.get(self.at..)?;
            let found = memchr::memchr2(b'"', b'\\', rest)?;
            self.at += found + 1;
            if rest.get(found) == Some(&b'\\') {
                self.at += 1;
            } else {
                return self.body.get(start..self.at - 1);
            }
        }
    }

    /// One value of any kind, however deep.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b'"' => {
                    self.string()?;
                }
                b',' | b':' => self.at += 1,
                _ => {
                    while !matches!(
                        self.body.get(self.at),
                        None | Some(b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n')
                    ) {
                        self.at += 1;
                    }
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

/// Where a member begins.
#[derive(Clone, Copy)]
struct Member {
    /// The opening quote of its key.
    key: usize,
    /// The comma before it.
    comma: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: Option<&str>) {
        let kept = without_managed_fields(body.as_bytes()).map(|kept| String::from_utf8(kept).unwrap());
        assert_eq!(kept.as_deref(), expected, "{body}");
    }

    #[test]
    fn the_field_is_cut_wherever_it_stands() {
        check(
            r#"{"metadata":{"name":"a","managedFields":[{"x":[1,"]"]}],"uid":"u"}}"#,
            Some(r#"{"metadata":{"name":"a","uid":"u"}}"#),
        );
        check(
            r#"{"metadata":{"managedFields":[],"uid":"u"}}"#,
            Some(r#"{"metadata":{"uid":"u"}}"#),
        );
        check(
            r#"{"metadata":{"name":"a","managedFields":null}}"#,
            Some(r#"{"metadata":{"name":"a"}}"#),
        );
        check(
            r#"{"metadata":{"managedFields":[{}]},"spec":{}}"#,
            Some(r#"{"metadata":{},"spec":{}}"#),
        );
        check(
            r#"{"kind":"PodList","metadata":{},"items":[{"metadata":{"managedFields":[1]}},{"metadata":{"name":"b"}}]}"#,
            Some(r#"{"kind":"PodList","metadata":{},"items":[{"metadata":{}},{"metadata":{"name":"b"}}]}"#),
        );
        check(
            r#"{"kind":"Table","rows":[{"cells":["a"],"object":{"metadata":{"managedFields":[1],"name":"a"}}}]}"#,
            Some(r#"{"kind":"Table","rows":[{"cells":["a"],"object":{"metadata":{"name":"a"}}}]}"#),
        );
    }

    #[test]
    fn other_fields_of_that_name_stay() {
        check(r#"{"spec":{"metadata":{"managedFields":[1]}}}"#, None);
        check(
            r#"{"managedFields":[1],"metadata":{"labels":{"managedFields":"x"}}}"#,
            None,
        );
        check(r#"{"metadata":"managedFields"}"#, None);
    }

    #[test]
    fn text_that_is_not_json_stays() {
        check(r#"{"metadata":{"managedFields":[1]"#, None);
        check(r#"["managedFields"]"#, None);
        check("", None);
    }
}
