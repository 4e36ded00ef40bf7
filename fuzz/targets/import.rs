//! Any bytes as a file to import: it is read to its end, and how it comes in parts makes no difference.

#![no_main]

use std::io::Cursor;

use kaudit_collect::{ImportConfig, ImportFile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let small = lines(text, 7);
    let large = lines(text, 1 << 16);
    assert_eq!(small.is_some(), large.is_some());
    if let (Some(small), Some(large)) = (small, large) {
        assert_eq!(small, large);
    }
});

/// The events; `None` when the file is damaged.
fn lines(text: &[u8], max_chunk_bytes: usize) -> Option<Vec<Vec<u8>>> {
    let config = ImportConfig {
        max_chunk_bytes,
        max_line_bytes: 1 << 20,
        ..ImportConfig::default()
    };
    let mut import = ImportFile::from_reader(Cursor::new(text.to_vec()), "-", config).ok()?;
    let mut lines = Vec::new();
    while let Some(chunk) = import.next_chunk().ok()? {
        for line in chunk.texts() {
            assert!(line.first() == Some(&b'{'), "an event is an object");
            lines.push(line.to_vec());
        }
    }
    assert!(import.identity().is_some());
    Some(lines)
}
