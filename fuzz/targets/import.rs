//! Any bytes as a file to import: it is read to its end in small and in large parts, and what comes out as a line
//! is an object.

#![no_main]

use std::io::Cursor;

use kaudit_collect::{ImportConfig, ImportFile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let small = read(text, 7);
    let large = read(text, 1 << 16);
    assert_eq!(
        small, large,
        "whether a file is damaged does not depend on the parts"
    );
});

/// Whether the file can be read to its end.
fn read(text: &[u8], max_chunk_bytes: usize) -> bool {
    let config = ImportConfig {
        max_chunk_bytes,
        max_line_bytes: 1 << 20,
        ..ImportConfig::default()
    };
    let Ok(mut import) = ImportFile::from_reader(Cursor::new(text.to_vec()), "-", config) else {
        return false;
    };
    loop {
        match import.next_chunk() {
            Ok(Some(chunk)) => {
                for line in chunk.texts() {
                    assert!(line.first() == Some(&b'{'), "an event is an object");
                }
            }
            Ok(None) => break,
            Err(_) => return false,
        }
    }
    assert!(import.identity().is_some());
    true
}
