//! Any bytes as a journal's files: it opens or says why not, every number is read once or reported as a gap,
//! and the journal goes on. Half of the inputs change a journal that was written, with checks made right
//! again or not.

#![no_main]

use std::path::Path;

use kaudit_journal::filesystem::simulated::{SimulatedDisk, reseal};
use kaudit_journal::{Batch, Hold, Item, Journal, Options, Seq};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((how, rest)) = input.split_first() else {
        return;
    };
    let disk = SimulatedDisk::new(1);
    let dir = Path::new("/j");
    let segment = dir.join("seg-00000000000000000001.kaj");
    match how % 4 {
        0 => disk.put(&segment, rest),
        1 => {
            let mut bytes = vec![0; 4160];
            bytes.extend_from_slice(rest);
            disk.put(&segment, &reseal(bytes, 7));
        }
        2 => {
            let half = rest.len() / 2;
            disk.put(&segment, &rest[..half]);
            disk.put(&dir.join("cursors/a"), &rest[half..]);
        }
        _ => {
            write(&disk, dir);
            let Some(mut bytes) = disk.content(&segment) else {
                return;
            };
            for change in rest.chunks_exact(4) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
                // Where the frames are, not in the zeros behind.
                if let Some(byte) = bytes.get_mut(if at % 2 == 0 { at % 4200 } else { 4160 + at % 2048 }) {
                    *byte = byte.wrapping_add(change[2]).rotate_left(u32::from(change[3] % 8));
                }
            }
            let bytes = if how & 4 == 0 { bytes } else { reseal(bytes, 7) };
            disk.put(&segment, &bytes);
        }
    }
    read(&disk, dir);
});

fn options() -> Options {
    let mut options = Options::default();
    options.segment_bytes = 64 << 10;
    options.max_bytes = 1 << 20;
    options.reserve_bytes = 0;
    options.min_free_bytes = 0;
    options.linger = std::time::Duration::ZERO;
    options
}

fn write(disk: &SimulatedDisk, dir: &Path) {
    let Ok((journal, _)) = Journal::open_on(disk.clone(), dir, options()) else {
        return;
    };
    for group in 0..4_u8 {
        let mut batch = Batch::new();
        for record in 0..3 {
            batch.push((record != 1).then_some([group; 24]), &[group; 100]);
        }
        batch.mark(b"m", &[group + 1]).expect("small");
        let _ = journal.append(batch).map(|ticket| ticket.wait());
    }
    journal.close();
}

fn read(disk: &SimulatedDisk, dir: &Path) {
    let Ok((journal, recovery)) = Journal::open_on(disk.clone(), dir, options()) else {
        return;
    };
    let mut reader = journal.reader(recovery.oldest);
    let mut at = recovery.oldest;
    while let Ok(Some(item)) = reader.next() {
        match item {
            Item::Record { seq, .. } => {
                assert_eq!(seq, at);
                at = seq.plus(1);
            }
            Item::Gap(gap) => {
                assert_eq!(gap.from, at);
                assert!(gap.to > gap.from);
                at = gap.to;
            }
            _ => {}
        }
    }
    assert_eq!(at, journal.durable());
    let _ = journal.tags().count();
    let _ = journal.cursor("a", Hold::No).map(|cursor| cursor.position());
    let mut batch = Batch::new();
    batch.push(None, b"on it goes");
    if recovery.next < Seq::END {
        let first = journal
            .append(batch)
            .expect("ready")
            .wait()
            .expect("durable")
            .start;
        assert_eq!(first, recovery.next);
    }
}
