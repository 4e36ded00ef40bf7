//! Bodies of which nobody knows who wrote them.

use std::sync::LazyLock;

use kaudit_codec::{Unprintable, cbor, protobuf, yaml};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::vectors;

static WIRE: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let vectors = vectors::read();
    vectors.iter().map(vectors::Vector::bytes).collect()
});

const LIMIT: usize = 64 << 10;

/// What came out is JSON as it is recorded, within its limit.
#[track_caller]
fn check(printed: Result<Vec<u8>, Unprintable>) {
    if let Ok(json) = printed {
        assert!(json.len() <= LIMIT, "{} bytes", json.len());
        let mut compact = Vec::new();
        kaudit_event::push_compact_json(&mut compact, &json).unwrap();
        assert_eq!(compact, json);
        str::from_utf8(&json).unwrap();
    }
}

/// The field `not` of a schema.
const NOT: u16 = 28;

/// A definition whose schema forbids what a schema forbids, and so on: `levels` of them.
fn nested(levels: usize) -> Vec<u8> {
    let field = |number: u16, bytes: &[u8]| {
        let mut out = Vec::new();
        for mut part in [usize::from(number << 3 | 2), bytes.len()] {
            while part >= 0x80 {
                out.push(u8::try_from(part & 0x7f).unwrap() | 0x80);
                part >>= 7;
            }
            out.push(u8::try_from(part).unwrap());
        }
        [out, bytes.to_vec()].concat()
    };
    let schema = (1..levels).fold(Vec::new(), |schema, _| field(NOT, &schema));
    let definition = field(2, &field(7, &field(4, &field(1, &schema))));
    let type_meta = [
        field(1, b"apiextensions.k8s.io/v1"),
        field(2, b"CustomResourceDefinition"),
    ]
    .concat();
    [b"k8s\0".to_vec(), field(1, &type_meta), field(2, &definition)].concat()
}

#[test]
fn a_body_that_goes_deep_is_read_as_far_as_the_bound_and_no_further() {
    let json = protobuf::to_json(&nested(190), usize::MAX).unwrap();
    let text = String::from_utf8(json.clone()).unwrap();
    assert_eq!(text.matches("\"not\":").count(), 189);
    check(Ok(json));
    assert_eq!(
        protobuf::to_json(&nested(10_000), usize::MAX),
        Err(Unprintable::NotUnderstood)
    );
}

proptest! {
    #[test]
    fn any_bytes_are_json_or_nothing(bytes in vec(any::<u8>(), 0..200)) {
        check(cbor::to_json(&bytes, LIMIT));
        check(protobuf::to_json(&bytes, LIMIT));
        let pod = [b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12".as_slice(), &[u8::try_from(bytes.len() & 0x7f).unwrap()], &bytes].concat();
        check(protobuf::to_json(&pod, LIMIT));
    }

    #[test]
    fn a_body_that_was_changed_is_json_or_nothing(
        which in any::<Index>(),
        changes in vec((any::<Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let mut wire = which.get(WIRE.as_slice()).clone();
        for (at, byte, how) in changes {
            let at = at.index(wire.len());
            match how {
                0 => *wire.get_mut(at).unwrap() = byte,
                1 => wire.insert(at, byte),
                _ => {
                    wire.remove(at);
                }
            }
            if wire.is_empty() {
                return Ok(());
            }
        }
        check(protobuf::to_json(&wire, LIMIT));
    }

    #[test]
    fn any_text_in_yaml_is_json_or_nothing(text in "[a-c0-9:\\-\\[\\]{}&*!,#'\"| \n.~]{0,80}") {
        check(yaml::to_json(text.as_bytes(), LIMIT));
    }
}
