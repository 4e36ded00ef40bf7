//! Bodies in protobuf, CBOR and YAML are JSON or nothing. The first byte says which they are.

#![no_main]

use std::panic;

use kaudit_codec::{cbor, protobuf, yaml};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 256 << 10;

fuzz_target!(
    init: {
        // The YAML parser panics where Go's has an error. The crate catches that; whatever it does not catch
        // still ends the run.
        panic::set_hook(Box::new(|info| {
            if !info.location().is_some_and(|at| at.file().contains("libyaml-safer")) {
                eprintln!("{info}");
            }
        }));
    },
    |data: &[u8]| {
        let Some((encoding, body)) = data.split_first() else {
            return;
        };
        let printed = match encoding {
            b'c' => cbor::to_json(body, LIMIT),
            b'y' => yaml::to_json(body, LIMIT),
            _ => protobuf::to_json(body, LIMIT),
        };
        if let Ok(json) = printed {
            assert!(json.len() <= LIMIT);
            let mut compact = Vec::new();
            kaudit_event::push_compact_json(&mut compact, &json).expect("JSON");
            assert!(compact == json, "as it is recorded");
        }
    }
);
