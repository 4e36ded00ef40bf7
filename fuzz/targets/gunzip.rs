//! Any bytes as compressed data: it ends, within its limits, and an error repeats.

#![no_main]

use std::io::Read;

use kaudit_collect::{Bounded, Limits};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_ratio: 100,
    free_bytes: 1 << 16,
};

fuzz_target!(|bytes: &[u8]| {
    drain(Bounded::gzip(bytes, LIMITS));
    if let Ok(reader) = Bounded::zstd(bytes, LIMITS) {
        drain(reader);
    }
});

fn drain(mut reader: Bounded<&[u8]>) {
    let mut buffer = [0; 4096];
    let mut length = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => length += count as u64,
            Err(_) => {
                assert!(reader.read(&mut buffer).is_err(), "an error repeats");
                break;
            }
        }
        assert!(length <= LIMITS.max_bytes);
    }
}
