//! Kubernetes' CBOR, in which strings are bytes and bytes are tagged as base64.
//!
//! Source: k8s.io/apimachinery pkg/runtime/serializer/cbor (internal/modes/decode.go says what is accepted).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Unprintable;
use crate::tree::{MAX_DEPTH, MAX_NODES, Tree};

/// What a body in CBOR begins with: the tag that says that it is CBOR.
pub const MAGIC: &[u8] = b"\xd9\xd9\xf7";

const NOT_UNDERSTOOD: Unprintable = Unprintable::NotUnderstood;

/// The value that `body` is, as JSON: members of a kind of the published API are in the order of its Go
/// structs, all others by their keys.
///
/// # Errors
///
/// [`Unprintable::NotUnderstood`] for what is not CBOR to its last byte, for what JSON has no word for
/// (numbers beyond 64 bits, infinity, undefined), and where upstream's decoder would refuse it (repeated keys,
/// text that is not UTF-8). [`Unprintable::TooLarge`] when the JSON would have more than `limit` bytes.
pub fn to_json(body: &[u8], limit: usize) -> Result<Vec<u8>, Unprintable> {
    let mut reader = Reader {
        rest: body.strip_prefix(MAGIC).unwrap_or(body),
        nodes: 0,
    };
    let tree = reader.value(0).ok_or(NOT_UNDERSTOOD)?;
    if !reader.rest.is_empty() {
        return Err(NOT_UNDERSTOOD);
    }
    tree.to_json(limit)
}

struct Reader<'a> {
    rest: &'a [u8],
    nodes: usize,
}

/// What follows the first byte of an item.
enum Argument {
    Number(u64),
    /// The item goes on until a break.
    Indefinite,
}

/// An item's first byte and its argument.
struct Head {
    major: u8,
    /// The low five bits of the first byte.
    short: u8,
    argument: Argument,
}

const BREAK: u8 = 0xff;

impl<'a> Reader<'a> {
    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn head(&mut self) -> Option<Head> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        let (major, short) = (first >> 5, first & 31);
        let argument = match short {
            0..=23 => Argument::Number(u64::from(short)),
            24..=27 => {
                let bytes = self.take(1 << (short - 24))?;
                Argument::Number(bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)))
            }
            31 => Argument::Indefinite,
            _ => return None,
        };
        Some(Head {
            major,
            short,
            argument,
        })
    }

    fn value(&mut self, depth: usize) -> Option<Tree> {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return None;
        }
        let head = self.head()?;
        Some(match (head.major, head.argument) {
            // Numbers are of 64 bits with a sign.
            (0, Argument::Number(int)) => Tree::Int(i64::try_from(int).ok()?),
            (1, Argument::Number(int)) => Tree::Int(-1 - i64::try_from(int).ok()?),
            (2 | 3, argument) => Tree::Text(text(self.bytes(head.major, &argument)?)?),
            (4, argument) => {
                let mut items = Vec::new();
                self.each(&argument, |reader| {
                    items.push(reader.value(depth + 1)?);
                    Some(())
                })?;
                Tree::List(items)
            }
            (5, argument) => {
                let mut members = Vec::new();
                self.each(&argument, |reader| {
                    let head = reader.head()?;
                    if !matches!(head.major, 2 | 3) {
                        return None;
                    }
                    let key = text(reader.bytes(head.major, &head.argument)?)?;
                    members.push((key, reader.value(depth + 1)?));
                    Some(())
                })?;
                let count = members.len();
                match Tree::map(members) {
                    Tree::Map(members) if members.len() < count => return None,
                    map => map,
                }
            }
            (6, Argument::Number(tag)) => self.tagged(tag, depth)?,
            (7, Argument::Number(bits)) => simple(head.short, bits)?,
            _ => return None,
        })
    }

    /// What a tag says of the item behind it.
    fn tagged(&mut self, tag: u64, depth: usize) -> Option<Tree> {
        let is_bytes = self.rest.first().is_some_and(|first| first >> 5 == 2);
        match tag {
            // Bytes that are base64 in JSON.
            22 if is_bytes => {
                let head = self.head()?;
                let bytes = self.bytes(head.major, &head.argument)?;
                Some(Tree::Text(STANDARD.encode(bytes)))
            }
            // It is CBOR.
            55799 => self.value(depth + 1),
            // Times, large numbers, other texts of bytes: nothing that a server writes.
            _ => None,
        }
    }

    /// Bytes or text, which may come in pieces.
    fn bytes(&mut self, major: u8, argument: &Argument) -> Option<Vec<u8>> {
        match argument {
            Argument::Number(length) => self.take(*length).map(<[u8]>::to_vec),
            Argument::Indefinite => {
                let mut all = Vec::new();
                self.each(argument, |reader| match reader.head()? {
                    Head {
                        major: piece,
                        argument: Argument::Number(length),
                        ..
                    } if piece == major => {
                        all.extend_from_slice(reader.take(length)?);
                        Some(())
                    }
                    _ => None,
                })?;
                Some(all)
            }
        }
    }

    fn each(&mut self, argument: &Argument, mut read: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        match argument {
            Argument::Number(count) => {
                for _ in 0..*count {
                    read(self)?;
                }
                Some(())
            }
            Argument::Indefinite => loop {
                if let Some(rest) = self.rest.strip_prefix(&[BREAK]) {
                    self.rest = rest;
                    return Some(());
                }
                read(self)?;
            },
        }
    }
}

fn simple(short: u8, bits: u64) -> Option<Tree> {
    Some(match short {
        20 => Tree::Bool(false),
        21 => Tree::Bool(true),
        22 => Tree::Null,
        25 => Tree::Double(half(u16::try_from(bits).ok()?)),
        26 => Tree::Double(f64::from(f32::from_bits(u32::try_from(bits).ok()?))),
        27 => Tree::Double(f64::from_bits(bits)),
        _ => return None,
    })
}

/// A number of 16 bits.
fn half(bits: u16) -> f64 {
    let fraction = f64::from(bits & 0x3ff);
    let size = match bits >> 10 & 31 {
        0 => fraction * 2_f64.powi(-24),
        31 => f64::INFINITY,
        exponent => (1024.0 + fraction) * 2_f64.powi(i32::from(exponent) - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}

fn text(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &[u8], expected: Option<&str>) {
        let found = to_json(body, 1 << 20).ok();
        let found = found.map(|json| String::from_utf8(json).unwrap());
        assert_eq!(found.as_deref(), expected, "{body:02x?}");
    }

    #[test]
    fn values_are_printed_as_json() {
        check(
            b"\xd9\xd9\xf7\xa1\x44kind\x46Status",
            Some(r#"{"kind":"Status"}"#),
        );
        check(b"\xa2\x61z\x01\x41a\x20", Some(r#"{"a":-1,"z":1}"#));
        check(b"\x83\xf4\xf5\xf6", Some("[false,true,null]"));
        check(
            b"\x1b\x7f\xff\xff\xff\xff\xff\xff\xff",
            Some("9223372036854775807"),
        );
        check(
            b"\x3b\x7f\xff\xff\xff\xff\xff\xff\xff",
            Some("-9223372036854775808"),
        );
        check(b"\xd6\x43abc", Some(r#""YWJj""#));
        check(b"\x43<a>", Some(r#""\u003ca\u003e""#));
        check(b"\x9f\x01\x5f\x41a\x41b\xff\xff", Some(r#"[1,"ab"]"#));
        check(b"\xbf\x61a\xa0\xff", Some(r#"{"a":{}}"#));
        check(b"\xf9\x3e\x00", Some("1.5"));
        check(b"\xf9\x00\x01", Some("5.960464477539063e-8"));
        check(b"\xfa\x3f\x80\x00\x00", Some("1"));
        check(b"\xfb\x7e\x37\xe4\x3c\x88\x00\x75\x9c", Some("1e+300"));
    }

    #[test]
    fn what_json_has_no_word_for_or_upstream_refuses_is_nothing() {
        for body in [
            &b""[..],
            b"\x01\x01",
            b"\x1b\x80\0\0\0\0\0\0\0",
            b"\x3b\x80\0\0\0\0\0\0\0",
            b"\xf7",
            b"\xf9\x7c\x00",
            b"\xfb\x7f\xf8\0\0\0\0\0\0",
            b"\x41\xff",
            b"\x61\xff",
            b"\xa1\x01\x01",
            b"\xa2\x41a\x01\x61a\x02",
            b"\xc2\x41\x01",
            b"\x82\x01",
            b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x5f\x61a\xff",
            b"\x1c",
            b"\xff",
        ] {
            check(body, None);
        }
        check(
            &[b"\x81".repeat(MAX_DEPTH), b"\x01".to_vec()].concat(),
            Some(&format!("{}1{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH))),
        );
        check(&[b"\x81".repeat(100_000), b"\x01".to_vec()].concat(), None);
        assert_eq!(to_json(b"\x82\x01\x02", 4), Err(Unprintable::TooLarge));
    }

    #[test]
    fn a_known_kind_has_its_members_in_order() {
        check(
            b"\xa4\x44spec\xa0\x48metadata\xa2\x43uid\x41u\x44name\x41a\x44kind\x43Pod\x4aapiVersion\x42v1",
            Some(r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","uid":"u"},"spec":{}}"#),
        );
    }
}
