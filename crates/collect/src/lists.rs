//! An EventList into its items while its text is still arriving.
//!
//! What is held is one item and the piece of text that came last, not the list: a list of 400 events may have
//! hundreds of megabytes. An item beyond the bound loses its bodies as they arrive.

use kaudit_event::EventLine;
use memchr::{memchr2, memmem};

/// The top-level members besides `items` are small.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// What stands between two items as kube-apiserver writes them.
const BETWEEN: &[u8] = br#"},{"level":""#;

/// A list whose text is given in pieces.
#[derive(Debug)]
pub struct Splitter {
    /// Text that was given and is not yet passed over; consumed bytes before `start`.
    text: Vec<u8>,
    start: usize,
    phase: Phase,
    kind: Option<Vec<u8>>,
    api_version: Option<Vec<u8>>,
    max_item_bytes: usize,
    finder: memmem::Finder<'static>,
}

#[derive(Debug)]
enum Phase {
    /// Before the opening brace.
    Begin,
    /// Where a top-level key, or the closing brace, may stand.
    Members,
    /// Inside `items`, between two.
    Items,
    /// Inside an item.
    Item(Box<ItemScan>),
    /// Behind the closing brace.
    End,
}

/// An item of a list.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "whoever takes items must handle each")]
pub enum Item<'a> {
    /// As the encoder writes it.
    Scanned(EventLine<'a>),
    /// As somebody else writes it; it may be anything that brackets hold together.
    Text(&'a [u8]),
    /// Too large: what is left of it without its bodies, and what it was.
    Oversized {
        /// The item without its bodies.
        rest: &'a [u8],
        /// Its length.
        bytes: u64,
        /// BLAKE3 of all of it.
        hash: blake3::Hash,
    },
}

/// Why a text is no EventList. The items before it stay good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// It is no JSON.
    #[error("the body is not JSON: {0}")]
    Malformed(&'static str),
    /// It ends too early.
    #[error("the body ends in the middle of the list")]
    Cut,
    /// It is something else.
    #[error(
        "the body is a {kind} of {version}: an audit webhook sends an EventList of audit.k8s.io/v1 or audit.k8s.io/v1beta1"
    )]
    Other {
        /// Its kind, quoted.
        kind: String,
        /// Its version, quoted.
        version: String,
    },
    /// There is too much beside the items.
    #[error("the members of the list besides its items have more than {MAX_HEAD_BYTES} bytes")]
    HeadTooLarge,
    /// An item is too large without its bodies, too.
    #[error("an item has more than {0} bytes without its bodies")]
    ItemTooLarge(usize),
}

impl Splitter {
    /// A list of which nothing has come. An item of more than `max_item_bytes` loses its bodies.
    #[must_use]
    pub fn new(max_item_bytes: usize) -> Self {
        Self {
            text: Vec::new(),
            start: 0,
            phase: Phase::Begin,
            kind: None,
            api_version: None,
            max_item_bytes,
            finder: memmem::Finder::new(BETWEEN),
        }
    }

    /// Takes the next piece of the text.
    pub fn push(&mut self, piece: &[u8]) {
        if self.start > 0 {
            self.text.drain(..self.start);
            self.start = 0;
        }
        self.text.extend_from_slice(piece);
    }

    /// Bytes that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.text.len() - self.start
    }

    /// What was given and is not passed over.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        self.text.get(self.start..).unwrap_or_default()
    }

    /// The next item, or `None` when more text is needed.
    ///
    /// # Errors
    ///
    /// [`SplitError`]; the items before it stay good, and nothing comes after it.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, SplitError> {
        loop {
            match &mut self.phase {
                Phase::Begin => {
                    if !self.skip(false) {
                        return Ok(None);
                    }
                    if self.rest().starts_with(b"\xef\xbb\xbf") {
                        self.start += 3;
                        continue;
                    }
                    if self.rest().first() != Some(&b'{') {
                        return Err(SplitError::Malformed("it does not begin with an object"));
                    }
                    self.start += 1;
                    self.phase = Phase::Members;
                }
                Phase::Members => {
                    if !self.member()? {
                        return Ok(None);
                    }
                }
                Phase::Items => {
                    if !self.skip(true) {
                        return Ok(None);
                    }
                    if self.rest().first() == Some(&b']') {
                        self.start += 1;
                        self.phase = Phase::Members;
                        continue;
                    }
                    self.phase = Phase::Item(Box::default());
                }
                Phase::Item(_) => return self.item(),
                Phase::End => {
                    if self.skip(false) {
                        return Err(SplitError::Malformed("there is something behind the list"));
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// Says that the text is whole.
    ///
    /// # Errors
    ///
    /// [`SplitError::Cut`].
    pub fn finish(&self) -> Result<(), SplitError> {
        if matches!(self.phase, Phase::End) {
            Ok(())
        } else {
            Err(SplitError::Cut)
        }
    }

    /// Passes over blanks, and commas where several values stand; whether anything follows.
    fn skip(&mut self, commas: bool) -> bool {
        let blanks = self
            .rest()
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n') || (commas && **byte == b','))
            .count();
        self.start += blanks;
        self.start < self.text.len()
    }

    /// One member of the list, or its end; false when more text is needed.
    fn member(&mut self) -> Result<bool, SplitError> {
        if !self.skip(true) {
            return Ok(false);
        }
        let rest = self.text.get(self.start..).unwrap_or_default();
        let needed = |rest: &[u8]| {
            if rest.len() > MAX_HEAD_BYTES {
                Err(SplitError::HeadTooLarge)
            } else {
                Ok(false)
            }
        };
        match rest.first() {
            Some(b'}') => {
                self.start += 1;
                self.phase = Phase::End;
                self.is_event_list()?;
                return Ok(true);
            }
            Some(b'"') => {}
            _ => return Err(SplitError::Malformed("a key is missing")),
        }
        let Some(key_length) = value_end(rest) else {
            return needed(rest);
        };
        let (key, after) = rest.split_at_checked(key_length).unwrap_or((rest, b""));
        let blanks = blanks(after);
        let after = match after.get(blanks..) {
            Some([b':', after @ ..]) => after,
            None | Some([]) => return needed(rest),
            Some(_) => return Err(SplitError::Malformed("a colon is missing")),
        };
        let value_at = key_length + blanks + 1 + self::blanks(after);
        let value = rest.get(value_at..).unwrap_or_default();
        if key == b"\"items\"" && value.first() == Some(&b'[') {
            self.start += value_at + 1;
            self.is_other()?;
            self.phase = Phase::Items;
            return Ok(true);
        }
        let Some(length) = value_end(value) else {
            return needed(rest);
        };
        if length == 0 {
            return Err(SplitError::Malformed("a value is missing"));
        }
        let value = value.get(..length).unwrap_or_default();
        match key {
            b"\"kind\"" => self.kind = Some(value.to_vec()),
            b"\"apiVersion\"" => self.api_version = Some(value.to_vec()),
            _ => {}
        }
        self.start += value_at + length;
        Ok(true)
    }

    /// Fails for a list that said already that it is something else.
    fn is_other(&self) -> Result<(), SplitError> {
        let is_kind = self.kind.as_deref().is_none_or(|kind| kind == b"\"EventList\"");
        let is_version = self
            .api_version
            .as_deref()
            .is_none_or(|version| matches!(version, b"\"audit.k8s.io/v1\"" | b"\"audit.k8s.io/v1beta1\""));
        if is_kind && is_version {
            return Ok(());
        }
        let shown = |value: &Option<Vec<u8>>| {
            let value = value.as_deref().unwrap_or(b"\"\"");
            String::from_utf8_lossy(value.get(..value.len().min(100)).unwrap_or_default()).into_owned()
        };
        Err(SplitError::Other {
            kind: shown(&self.kind),
            version: shown(&self.api_version),
        })
    }

    fn is_event_list(&self) -> Result<(), SplitError> {
        self.is_other()?;
        if self.kind.is_some() && self.api_version.is_some() {
            return Ok(());
        }
        Err(SplitError::Malformed("it does not say that it is an EventList"))
    }

    fn item(&mut self) -> Result<Option<Item<'_>>, SplitError> {
        let Phase::Item(scan) = &mut self.phase else {
            return Ok(None);
        };
        let start = self.start;
        let text = self.text.get(start..).unwrap_or_default();
        // As kube-apiserver writes items, the next one shows where this one ends; a text in which it does
        // not is no line, and is read bracket by bracket.
        if scan.at == 0
            && text.len() <= self.max_item_bytes
            && let Some(found) = self.finder.find(text)
            && EventLine::scan(text.get(..=found).unwrap_or_default()).is_some()
        {
            self.start += found + 1;
            self.phase = Phase::Items;
            let item = self.text.get(start..start + found + 1).unwrap_or_default();
            return Ok(EventLine::scan(item).map(Item::Scanned));
        }
        let end = scan.feed(&mut self.text, start, self.max_item_bytes)?;
        let Some(end) = end else { return Ok(None) };
        let scan = std::mem::take(scan);
        self.start = start + end;
        self.phase = Phase::Items;
        let item = self.text.get(start..start + end).unwrap_or_default();
        Ok(Some(match scan.omitted {
            Some(omitted) => Item::Oversized {
                rest: item,
                bytes: omitted.bytes,
                hash: omitted.hasher.finalize(),
            },
            None => Item::Text(item),
        }))
    }
}

/// How far an item was read. Offsets are from the item's beginning.
#[derive(Debug, Default)]
struct ItemScan {
    at: usize,
    depth: u32,
    text: Quote,
    /// Where the key that stands at depth 1, or the comma before it, begins, and where the key's text is.
    key: Option<(usize, usize, usize)>,
    comma: usize,
    /// Whether the value of that key has begun.
    in_value: bool,
    /// Bodies that were read, each with the comma before it.
    bodies: Vec<(usize, usize)>,
    omitted: Option<Omitted>,
}

/// Whether the scan stands in a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Quote {
    #[default]
    Outside,
    Inside,
    /// Behind a backslash.
    Escaped,
}

/// What is known of an item that is too large.
#[derive(Debug)]
struct Omitted {
    hasher: blake3::Hasher,
    /// Bytes that the item has had so far.
    bytes: u64,
    /// Whether the bytes at the scan belong to a body that is left out.
    dropping: bool,
}

impl ItemScan {
    /// Reads on in `text`, in which the item begins at `start`; gives the length of what is kept of the item
    /// when it is whole.
    fn feed(&mut self, text: &mut Vec<u8>, start: usize, max: usize) -> Result<Option<usize>, SplitError> {
        loop {
            let from = self.at;
            let end = self.advance(text.get(start..).unwrap_or_default())?;
            let read = self.at;
            if let Some(omitted) = &mut self.omitted {
                let bytes = text.get(start + from..start + read).unwrap_or_default();
                omitted.hasher.update(bytes);
                omitted.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            }
            self.drop_body(text, start, read);
            if end.is_some() {
                if self.at > max {
                    self.omit(text, start, max)?;
                }
                return Ok(Some(self.at));
            }
            // A body that ended where a piece began was left out without a byte being read.
            let is_stuck = read == from && self.at == read;
            if is_stuck || start + self.at >= text.len() {
                break;
            }
        }
        if self.at > max {
            self.omit(text, start, max)?;
        }
        Ok(None)
    }

    /// Reads to the item's end, to the end of a value that is being left out, or to the end of the text.
    fn advance(&mut self, item: &[u8]) -> Result<Option<()>, SplitError> {
        if self.at == 0 && !item.starts_with(b"{") {
            // Anything else is short, or is not worth keeping apart.
            return match value_end(item) {
                Some(0) => Err(SplitError::Malformed("an item is missing")),
                Some(length) => {
                    self.at = length;
                    Ok(Some(()))
                }
                None if item.len() > MAX_HEAD_BYTES => Err(SplitError::Malformed("an item is no object")),
                None => Ok(None),
            };
        }
        while let Some(&byte) = item.get(self.at) {
            match self.text {
                Quote::Escaped => {
                    self.text = Quote::Inside;
                    self.at += 1;
                }
                Quote::Inside => match memchr2(b'"', b'\\', item.get(self.at..).unwrap_or_default()) {
                    None => self.at = item.len(),
                    Some(found) => {
                        self.at += found + 1;
                        if item.get(self.at - 1) == Some(&b'\\') {
                            self.text = Quote::Escaped;
                        } else {
                            self.text = Quote::Outside;
                            if let (1, false, Some(key)) = (self.depth, self.in_value, &mut self.key) {
                                key.2 = self.at;
                            }
                        }
                    }
                },
                Quote::Outside => {
                    if let (b',' | b'}', 1, true) = (byte, self.depth, self.in_value) {
                        // A value at depth 1 ended.
                        self.in_value = false;
                        if self.is_at_body(item) {
                            self.bodies.extend(self.key.map(|(comma, ..)| (comma, self.at)));
                        }
                        self.comma = self.at;
                        if self.omitted.as_ref().is_some_and(|omitted| omitted.dropping) {
                            return Ok(None);
                        }
                        // A second value without a key of its own is nobody's body.
                        self.key = None;
                    }
                    match byte {
                        b'"' => {
                            self.text = Quote::Inside;
                            if self.depth == 1 && !self.in_value {
                                self.key = Some((self.comma, self.at, self.at));
                            }
                        }
                        b'{' | b'[' => self.depth += 1,
                        b':' if self.depth == 1 => {
                            self.in_value = true;
                            let is_body = self.is_at_body(item);
                            if let Some(omitted) = &mut self.omitted {
                                omitted.dropping = is_body;
                            }
                        }
                        b'}' | b']' => {
                            self.depth = self.depth.saturating_sub(1);
                            if self.depth == 0 {
                                self.at += 1;
                                return Ok(Some(()));
                            }
                        }
                        _ => {}
                    }
                    self.at += 1;
                }
            }
        }
        Ok(None)
    }

    /// Whether the key at depth 1 that was read last is that of a body.
    fn is_at_body(&self, item: &[u8]) -> bool {
        self.key.is_some_and(|(comma, from, to)| {
            comma > 0
                && matches!(
                    item.get(from..to),
                    Some(b"\"requestObject\"" | b"\"responseObject\"")
                )
        })
    }

    /// Leaves out the bodies that were read, and the one that the scan stands in, since the item is too
    /// large. Which bodies stay does not depend on the pieces in which the text came: none.
    fn omit(&mut self, text: &mut Vec<u8>, start: usize, max: usize) -> Result<(), SplitError> {
        let item = text.get(start..).unwrap_or_default();
        let in_body = self.in_value && self.is_at_body(item);
        if self.omitted.is_none() {
            let mut hasher = blake3::Hasher::new();
            hasher.update(item.get(..self.at).unwrap_or_default());
            self.omitted = Some(Omitted {
                hasher,
                bytes: u64::try_from(self.at).unwrap_or(u64::MAX),
                dropping: false,
            });
        }
        if let Some(omitted) = &mut self.omitted {
            omitted.dropping = in_body;
        }
        let read = self.at;
        self.drop_body(text, start, read);
        while let Some((comma, end)) = self.bodies.pop() {
            text.drain(start + comma..start + end);
            let shift = |at: usize| if at >= end { at - (end - comma) } else { at };
            self.at = shift(self.at);
            self.comma = shift(self.comma);
            self.key = self
                .key
                .map(|(comma, from, to)| (shift(comma), shift(from), shift(to)));
        }
        if self.at > max {
            return Err(SplitError::ItemTooLarge(max));
        }
        Ok(())
    }

    /// Takes the bytes of a body that is left out, up to `read`, out of the text.
    fn drop_body(&mut self, text: &mut Vec<u8>, start: usize, read: usize) {
        let Some(omitted) = self.omitted.as_mut().filter(|omitted| omitted.dropping) else {
            return;
        };
        let Some((comma, from, to)) = self.key else { return };
        if self.in_value {
            // The key stays until its value ends, so that it can be told what is left out.
            text.drain(start + to..start + read);
            self.at = to;
            self.key = Some((comma, from, to));
            return;
        }
        text.drain(start + comma..start + read);
        self.at = comma;
        omitted.dropping = false;
        self.bodies.clear();
        self.comma = comma;
        self.key = None;
    }
}

fn blanks(text: &[u8]) -> usize {
    text.iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
        .count()
}

/// Bytes of the value that `text` begins with, as far as brackets and quotes tell; `None` when its end is not
/// there.
fn value_end(text: &[u8]) -> Option<usize> {
    let mut depth = 0_u32;
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => {
                at += 1;
                loop {
                    let found = memchr2(b'"', b'\\', text.get(at..)?)?;
                    at += found + 1;
                    if text.get(at - 1) == Some(&b'"') {
                        break;
                    }
                    at += 1;
                }
                if depth == 0 {
                    return Some(at);
                }
            }
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth <= 1 => return Some(if depth == 0 { at } else { at + 1 }),
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            b',' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => return Some(at),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"level":"Metadata","auditID":"a","stage":"ResponseComplete","requestURI":"/x","verb":"get","user":{},"requestObject":[{"a":1},{"level":"b"}],"requestReceivedTimestamp":"2026-01-02T03:04:05.000006Z","stageTimestamp":"2026-01-02T03:04:05.000007Z"}"#;

    fn list(items: &str) -> String {
        format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{items}]}}"#)
    }

    /// Everything that comes out when the text is given in pieces of `size`.
    fn split(text: &[u8], size: usize, max: usize) -> (Vec<String>, Result<(), SplitError>) {
        let mut splitter = Splitter::new(max);
        let mut out = Vec::new();
        for piece in text.chunks(size) {
            splitter.push(piece);
            loop {
                match splitter.next_item() {
                    Ok(None) => break,
                    Ok(Some(Item::Scanned(line))) => {
                        let mut text = Vec::new();
                        line.write_line(&mut text);
                        let text = String::from_utf8(text).unwrap();
                        out.push(text.replacen(r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#, "", 1));
                    }
                    Ok(Some(Item::Text(text))) => out.push(String::from_utf8(text.to_vec()).unwrap()),
                    Ok(Some(Item::Oversized { rest, bytes, hash })) => out.push(format!(
                        "{} of {bytes}, {}",
                        String::from_utf8(rest.to_vec()).unwrap(),
                        hash.to_hex().get(..6).unwrap()
                    )),
                    Err(error) => return (out, Err(error)),
                }
            }
        }
        let end = splitter.finish();
        (out, end)
    }

    #[test]
    fn items_come_out_whatever_the_pieces_are() {
        let other = r#"{ "x" : "}],{\"level\":\"", "y": [1, {}] }"#;
        let text = list(&format!(
            "{EVENT},{EVENT} ,\n{other},7,null,\"a,]\",[1,[2]],{EVENT}"
        )) + "\n";
        let expected = [EVENT, EVENT, other, "7", "null", "\"a,]\"", "[1,[2]]", EVENT];
        for size in [1, 2, 3, 7, 64, 100_000] {
            let (items, end) = split(text.as_bytes(), size, 1 << 20);
            assert_eq!(end, Ok(()), "pieces of {size}");
            assert_eq!(items, expected, "pieces of {size}");
        }
    }

    #[test]
    fn kind_and_version_may_stand_behind_the_items_but_must_stand() {
        let ok = format!(r#" {{"items":[{EVENT}],"kind":"EventList","apiVersion":"audit.k8s.io/v1beta1"}}"#);
        assert_eq!(split(ok.as_bytes(), 5, 1 << 20).1, Ok(()));
        for (text, expected) in [
            (
                r#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":null}"#,
                "ok",
            ),
            (r#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1"}"#, "ok"),
            (
                r#"{"kind":"PodList","apiVersion":"v1","items":[{"a":1}]}"#,
                "Other",
            ),
            (r#"{"items":[],"kind":"EventList"}"#, "Malformed"),
            (r#"{"kind":"EventList""#, "Cut"),
            (r#"{"kind":"EventList","items":[{"a":"#, "Cut"),
            (r#"{"kind":"EventList","items":[}"#, "Malformed"),
            ("[]", "Malformed"),
            ("", "Cut"),
            (r#"{"kind" "EventList"}"#, "Malformed"),
            (
                r#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1"} x"#,
                "Malformed",
            ),
        ] {
            for size in [1, 1000] {
                let shown = match split(text.as_bytes(), size, 1 << 20).1 {
                    Ok(()) => "ok".to_owned(),
                    Err(error) => format!("{error:?}"),
                };
                assert!(shown.starts_with(expected), "{text}: {shown}");
            }
        }
        let big = format!(r#"{{"x":"{}"}}"#, "y".repeat(2 * MAX_HEAD_BYTES));
        assert_eq!(
            split(big.as_bytes(), 999, 1 << 20).1,
            Err(SplitError::HeadTooLarge)
        );
    }

    #[test]
    fn an_item_beyond_the_bound_loses_its_bodies_and_keeps_its_length_and_hash() {
        let long = format!("{{\"k\":\"{}\"}}", "v".repeat(500));
        let item = format!(
            r#"{{"level":"Request","requestObject":{long},"verb":"get","responseObject":{long},"annotations":{{"a":"b"}}}}"#
        );
        let hash = blake3::hash(item.as_bytes()).to_hex();
        let text = list(&format!("{item},{EVENT}"));
        for size in 1..=text.len() {
            let (items, end) = split(text.as_bytes(), size, 300);
            assert_eq!(end, Ok(()), "pieces of {size}");
            assert_eq!(
                items[0],
                format!(
                    r#"{{"level":"Request","verb":"get","annotations":{{"a":"b"}}}} of {}, {}"#,
                    item.len(),
                    hash.get(..6).unwrap()
                ),
                "pieces of {size}"
            );
            assert_eq!(items[1], EVENT);
        }
        // Such a text is no JSON; what becomes of it may not depend on the pieces either.
        let keyless = list(&format!(
            r#"{{"level":"Request","requestObject":{long},:{long}:"x",:1,"a":{long}}}"#
        ));
        let whole = split(keyless.as_bytes(), keyless.len(), 300);
        for size in 1..=keyless.len() {
            assert_eq!(split(keyless.as_bytes(), size, 300), whole, "pieces of {size}");
        }
        let hopeless = list(&format!(r#"{{"level":{long}}}"#));
        assert_eq!(
            split(hopeless.as_bytes(), 10, 300).1,
            Err(SplitError::ItemTooLarge(300))
        );
    }

    /// Damaged lists, each from its number, which a failure prints.
    #[test]
    fn a_damaged_list_ends_and_says_the_same_whatever_the_pieces_are() {
        let other = r#"{ "x" : "}],{\"level\":\"", "y": [1, {}], "requestObject": {"a":[["b"]]} }"#;
        let whole = list(&format!("{EVENT},{other},{EVENT},7,{EVENT}"));
        let inserts = [
            "\"",
            "\\",
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            " ",
            "\u{0}",
            "null",
            "},{\"level\":\"",
            "\n",
        ];
        for seed in 1..1000_u64 {
            let mut random = seed;
            let mut next = |below: usize| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                usize::try_from(random % u64::try_from(below).unwrap()).unwrap()
            };
            let mut text = whole.clone().into_bytes();
            for _ in 0..=next(3) {
                let at = next(text.len());
                match next(3) {
                    0 => text.truncate(at + 1),
                    1 => drop(text.remove(at)),
                    _ => drop(text.splice(at..at, inserts[next(inserts.len())].bytes())),
                }
            }
            let shown = |size: usize| {
                let mut splitter = Splitter::new(1 << 20);
                let mut items = Vec::new();
                for piece in text.chunks(size) {
                    splitter.push(piece);
                    loop {
                        match splitter.next_item() {
                            Ok(None) => break,
                            Ok(Some(Item::Scanned(line))) => {
                                let mut text = Vec::new();
                                line.write_line(&mut text);
                                items.push(text);
                            }
                            Ok(Some(Item::Text(text))) => match EventLine::scan(text) {
                                // Which of the two it is depends on whether the next item was there.
                                Some(line) => {
                                    let mut text = Vec::new();
                                    line.write_line(&mut text);
                                    items.push(text);
                                }
                                None => items.push(text.to_vec()),
                            },
                            Ok(Some(Item::Oversized { .. })) => panic!("seed {seed}: nothing is large"),
                            Err(error) => return (items, format!("{error:?}")),
                        }
                    }
                }
                (items, format!("{:?}", splitter.finish()))
            };
            let expected = shown(text.len().max(1));
            for size in [1, 5, 64] {
                assert_eq!(shown(size), expected, "seed {seed}, pieces of {size}");
            }
        }
    }

    #[test]
    fn what_is_held_is_bounded_by_the_item_and_the_piece() {
        let body = "v".repeat(1 << 20);
        let item = format!(r#"{{"level":"Request","requestObject":"{body}","verb":"get"}}"#);
        let text = list(&item);
        let mut splitter = Splitter::new(10_000);
        let mut most = 0;
        for piece in text.as_bytes().chunks(1000) {
            splitter.push(piece);
            while splitter.next_item().unwrap().is_some() {}
            most = most.max(splitter.held());
        }
        splitter.finish().unwrap();
        assert!(most < 13_000, "{most}");
    }
}
