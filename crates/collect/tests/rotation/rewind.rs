//! Going back to a position that was kept.

use std::fs;

use kaudit_collect::TailConfig;

use crate::cases::setup;
use crate::reader::Reader;
use crate::writer::{compress, with_suffix};

#[test]
fn going_back_reads_again_also_what_was_removed_just_now() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::with(TailConfig {
        max_chunk_bytes: 1000,
        ..TailConfig::new(writer.path.to_str().unwrap())
    });
    writer.events(0..4);
    reader.drain();
    let before = reader.saved.clone().unwrap();
    for round in 1..4 {
        let backup = writer.rotate();
        writer.events(round * 4..round * 4 + 4);
        reader.drain();
        if round % 2 == 0 {
            fs::remove_file(backup).unwrap();
        } else {
            compress(&backup);
        }
        reader.drain();
    }
    reader.expect(0..16);
    reader.tail.as_mut().unwrap().rewind(&before).unwrap();
    reader.lines.truncate(4);
    reader.settle();
    reader.expect(0..16);
    assert_eq!(reader.gaps, []);
}

#[test]
fn a_file_that_was_open_before_going_back_and_is_emptied_then_is_not_read_twice() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    writer.events(0..5);
    reader.drain();
    let saved = reader.saved.clone().unwrap();
    // What was open stays open for a while.
    reader.tail.as_mut().unwrap().rewind(&saved).unwrap();
    reader.drain();
    fs::copy(&writer.path, with_suffix(&writer.path, ".1")).unwrap();
    fs::File::options()
        .write(true)
        .open(&writer.path)
        .unwrap()
        .set_len(0)
        .unwrap();
    writer.seek_to_start();
    reader.drain();
    writer.events(5..12);
    reader.drain();
    let backup = writer.rotate();
    compress(&backup);
    reader.settle();
    reader.expect(0..12);
    assert_eq!(reader.gaps, []);
}
