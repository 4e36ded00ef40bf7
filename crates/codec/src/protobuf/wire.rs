//! The fields of a message as they stand on the wire.

/// A message's bytes, whose fields are read one after another.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a>(&'a [u8]);

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the wire's types, but for groups")]
pub enum Value<'a> {
    /// A number, a truth, or an enumeration.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Text, bytes, or a message.
    Bytes(&'a [u8]),
    /// Four bytes.
    Fixed32(u32),
}

/// The bytes are no field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a field")]
#[non_exhaustive]
pub struct NoField;

impl<'a> Message<'a> {
    /// The message that `bytes` are.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Every field with its number; the last item is an error where the rest of the bytes is no field.
    pub fn fields(self) -> impl Iterator<Item = Result<(u64, Value<'a>), NoField>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let field = field(&mut rest);
            if field.is_none() {
                rest = &[];
            }
            Some(field.ok_or(NoField))
        })
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = varint(rest)?;
    let value = match tag & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => Value::Fixed64(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?)),
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Value::Bytes(take(rest, length)?)
        }
        5 => Value::Fixed32(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?)),
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let (first, after) = rest.split_first()?;
    if *first < 0x80 {
        *rest = after;
        return Some(u64::from(*first));
    }
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        // The tenth byte has one bit left.
        if shift == 63 && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_up_to_what_is_none() {
        let read = |bytes| Message::new(bytes).fields().collect::<Vec<_>>();
        assert_eq!(read(b""), []);
        assert_eq!(
            read(b"\x08\x96\x01\x12\x02hi\x19\x01\0\0\0\0\0\0\0\x25\x02\0\0\0"),
            [
                Ok((1, Value::Varint(150))),
                Ok((2, Value::Bytes(b"hi"))),
                Ok((3, Value::Fixed64(1))),
                Ok((4, Value::Fixed32(2))),
            ]
        );
        assert_eq!(read(b"\x08\x01\x13"), [Ok((1, Value::Varint(1))), Err(NoField)]);
        assert_eq!(read(b"\x12\x05ab"), [Err(NoField)]);
        assert_eq!(
            read(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            [Ok((1, Value::Varint(u64::MAX)))]
        );
        assert_eq!(
            read(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
            [Err(NoField)]
        );
    }
}
