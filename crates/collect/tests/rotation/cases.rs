//! The ways by which tailers lose or double lines, one test each.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::time::Duration;

use kaudit_collect::lines::Piece;
use kaudit_collect::{GapReason, SourceState, Start, Tail, TailConfig, TailError, TornReason};

use crate::reader::{Reader, start_time};
use crate::writer::{Writer, compress, event, gzip, with_suffix};

pub(crate) fn setup() -> (tempfile::TempDir, Writer) {
    let directory = tempfile::tempdir().unwrap();
    let writer = Writer::new(directory.path());
    (directory, writer)
}

#[test]
fn r1_no_file_at_the_path_between_rename_and_create() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    assert_eq!(reader.status().state, SourceState::WaitingForFile);
    writer.events(0..3);
    reader.drain();
    writer.events(3..5);
    writer.rename();
    reader.drain();
    assert_eq!(reader.status().state, SourceState::PathMissing);
    reader.settle();
    writer.create();
    writer.events(5..7);
    reader.drain();
    assert_eq!(reader.status().state, SourceState::Reading);
    reader.settle();
    reader.expect(0..7);
    assert_eq!((reader.anomalies.rotations, reader.gaps.len()), (1, 0));
    // The window is open while the reader is down.
    writer.events(7..9);
    writer.rename();
    reader.restart();
    reader.settle();
    writer.create();
    writer.events(9..10);
    reader.settle();
    reader.expect(0..10);
    assert_eq!(reader.gaps, []);
}

#[test]
fn r2_several_rotations_between_two_polls() {
    let (_directory, mut writer) = setup();
    writer.events(0..2);
    let mut reader = Reader::new(&writer.path);
    reader.drain();
    for round in 1..6 {
        writer.rotate();
        writer.events(round * 2..round * 2 + 2);
    }
    reader.drain();
    reader.expect(0..12);
    // And while it is down.
    for round in 6..9 {
        writer.rotate();
        writer.events(round * 2..round * 2 + 2);
    }
    reader.restart();
    reader.settle();
    reader.expect(0..18);
    assert_eq!(reader.gaps, []);
}

#[test]
fn r3_the_file_is_compressed_while_the_reader_is_behind_or_down() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::with(TailConfig {
        max_chunk_bytes: 1000,
        ..TailConfig::new(writer.path.to_str().unwrap())
    });
    writer.events(0..20);
    let chunk = reader.poll().unwrap();
    reader.keep(chunk);
    // Behind: it goes on with the file that it holds.
    let backup = writer.rotate();
    compress(&backup);
    writer.events(20..40);
    reader.settle();
    reader.expect(0..40);
    // Down in the middle of a file.
    writer.events(40..60);
    let chunk = reader.poll().unwrap();
    reader.keep(chunk);
    assert!(reader.lines.len() < 60);
    let backup = writer.rotate();
    compress(&backup);
    writer.events(60..62);
    reader.restart();
    reader.settle();
    reader.expect(0..62);
    assert_eq!(reader.gaps, []);
}

#[test]
fn r4_half_an_archive_beside_the_plain_file_is_left_alone() {
    let (_directory, mut writer) = setup();
    writer.events(0..20);
    let backup = writer.rotate();
    writer.events(20..22);
    let text = fs::read(&backup).unwrap();
    let archive = gzip(&text);
    fs::write(with_suffix(&backup, ".gz"), &archive[..archive.len() / 2]).unwrap();
    let mut reader = Reader::new(&writer.path);
    reader.settle();
    reader.expect(0..22);
    // The writer starts again, rewrites the archive, removes the plain file.
    compress(&backup);
    reader.settle();
    reader.restart();
    reader.settle();
    reader.expect(0..22);
    assert_eq!(reader.gaps, []);
}

#[test]
fn r4_half_an_archive_alone_is_read_as_far_as_it_goes_and_finished_later() {
    let (_directory, mut writer) = setup();
    writer.events(0..400);
    let backup = writer.rotate();
    writer.events(400..401);
    let archive = gzip(&fs::read(&backup).unwrap());
    fs::remove_file(&backup).unwrap();
    let path = with_suffix(&backup, ".gz");
    fs::write(&path, &archive[..archive.len() - 6]).unwrap();
    let mut reader = Reader::new(&writer.path);
    reader.settle();
    assert_eq!(
        reader.gaps.iter().map(|gap| gap.reason).collect::<Vec<_>>(),
        [GapReason::Damaged]
    );
    let early = reader.lines.len();
    assert!(early < 402);
    fs::write(&path, &archive).unwrap();
    reader.settle();
    let mut numbers = reader.numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..401).collect::<Vec<_>>());
    assert_eq!(reader.gaps.len(), 1);
}

#[test]
fn r5_the_archive_of_a_file_that_was_read_is_no_new_file() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    for round in 0..4 {
        writer.events(round * 5..round * 5 + 5);
        reader.drain();
        let backup = writer.rotate();
        reader.drain();
        compress(&backup);
        reader.settle();
    }
    reader.expect(0..20);
    reader.restart();
    reader.settle();
    reader.expect(0..20);
    assert_eq!(reader.gaps, []);
}

#[test]
fn r5_archives_of_zstd_and_of_several_members_are_known_too() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    writer.events(0..50);
    reader.drain();
    let backup = writer.rotate();
    let text = fs::read(&backup).unwrap();
    fs::write(
        with_suffix(&backup, ".zst"),
        zstd::encode_all(&text[..], 1).unwrap(),
    )
    .unwrap();
    fs::remove_file(&backup).unwrap();
    writer.events(50..100);
    reader.drain();
    let backup = writer.rotate();
    let text = fs::read(&backup).unwrap();
    let (first, second) = text.split_at(text.len() / 3);
    fs::write(with_suffix(&backup, ".gz"), [gzip(first), gzip(second)].concat()).unwrap();
    fs::remove_file(&backup).unwrap();
    writer.events(100..101);
    reader.settle();
    reader.restart();
    reader.settle();
    reader.expect(0..101);
    assert_eq!(reader.gaps, []);
}

#[test]
fn r6_an_inode_that_is_used_again_is_another_file() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    let mut reused = 0;
    for round in 0..200_u64 {
        writer.events(round * 2..round * 2 + 2);
        reader.drain();
        // Nobody holds it now: the file system gives its inode to the next one.
        reader.tail = None;
        let path = writer.path.clone();
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
        let before = inode();
        let backup = writer.rename();
        compress(&backup);
        writer.create();
        reused += u64::from(inode() == before);
        reader.start();
    }
    reader.settle();
    reader.expect(0..400);
    assert_eq!(reader.gaps, []);
    println!("{reused} of 200 inodes were used again");
}

#[test]
fn r7_files_with_the_same_head_are_told_apart() {
    let (_directory, mut writer) = setup();
    let same = event(0, 3000);
    let mut reader = Reader::new(&writer.path);
    for round in 0..6_u64 {
        writer.write(&same);
        if round == 3 {
            // Stopped when just the common head was read.
            reader.drain();
            reader.restart();
        }
        writer.events(round * 3 + 1..round * 3 + 4);
        if round % 2 == 0 {
            reader.drain();
        }
        let backup = writer.rotate();
        if round % 3 == 0 {
            compress(&backup);
        }
        if round == 4 {
            reader.restart();
        }
    }
    reader.settle();
    reader.restart();
    reader.settle();
    let numbers = reader.numbers();
    assert_eq!(numbers.iter().filter(|number| **number == 0).count(), 6);
    let others: Vec<u64> = numbers.into_iter().filter(|number| *number > 0).collect();
    assert_eq!(others, (1..19).collect::<Vec<_>>());
    assert_eq!(reader.gaps, []);
}

#[test]
fn r8_a_backup_that_another_overwrites_before_it_was_read_is_a_gap_and_nothing_else_is_lost() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    writer.events(0..2);
    reader.drain();
    writer.rotate();
    writer.events(2..4);
    let overwritten = writer.rotate();
    // Seen, not read yet.
    let mut tail = Tail::open(reader.config.clone(), reader.saved.as_deref(), reader.now).unwrap();
    writer.events(4..6);
    fs::rename(writer.rename(), &overwritten).unwrap();
    writer.create();
    writer.events(6..7);
    reader.pass(20);
    reader.lines.clear();
    reader.saved = Some(tail.position());
    reader.tail = Some(tail);
    reader.settle();
    reader.expect(4..7);
    assert_eq!(
        reader.gaps.iter().map(|gap| gap.reason).collect::<Vec<_>>(),
        [GapReason::Removed]
    );
}

#[test]
fn r9_a_hole_that_copytruncate_leaves_is_skipped_and_counted() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    writer.events(0..5);
    reader.drain();
    writer.events(5..8);
    // What logrotate does: copy, then empty.
    let copy = with_suffix(&writer.path, ".1");
    fs::copy(&writer.path, &copy).unwrap();
    let length = fs::metadata(&writer.path).unwrap().len();
    fs::File::options()
        .write(true)
        .open(&writer.path)
        .unwrap()
        .set_len(0)
        .unwrap();
    writer.events(8..10);
    reader.settle();
    reader.expect(0..10);
    assert_eq!(reader.anomalies.copytruncates, 1);
    assert_eq!((reader.anomalies.holes, reader.anomalies.hole_bytes), (1, length));
    assert_eq!((reader.gaps.len(), reader.torn.len()), (0, 0));
    reader.restart();
    reader.settle();
    reader.expect(0..10);
}

#[test]
fn r9_a_hole_longer_than_any_line_is_no_line() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::with(TailConfig {
        max_line_bytes: 100_000,
        max_chunk_bytes: 10_000,
        ..TailConfig::new(writer.path.to_str().unwrap())
    });
    writer.write(&vec![0; 3_000_000]);
    writer.events(0..2);
    writer.write(b"{\"kind\":\"Event\",\"half");
    writer.write(&vec![0; 500_000]);
    writer.events(2..3);
    reader.drain();
    reader.expect(0..3);
    assert_eq!(
        (reader.anomalies.holes, reader.anomalies.hole_bytes),
        (2, 3_500_000)
    );
    assert_eq!(reader.torn, [b"{\"kind\":\"Event\",\"half"]);
}

#[test]
fn r9_copytruncate_is_followed_at_each_of_its_steps() {
    for appends in [true, false] {
        for reads_at in 0..8_u32 {
            let (_directory, mut writer) = setup();
            let mut reader = Reader::new(&writer.path);
            let maybe = |reader: &mut Reader, bit: u32| {
                if reads_at & (1 << bit) != 0 {
                    reader.settle();
                }
            };
            writer.events(0..20);
            reader.drain();
            writer.events(20..25);
            maybe(&mut reader, 0);
            let copy = with_suffix(&writer.path, ".1");
            let text = fs::read(&writer.path).unwrap();
            fs::write(&copy, &text[..text.len() / 2]).unwrap();
            maybe(&mut reader, 1);
            fs::write(&copy, &text).unwrap();
            maybe(&mut reader, 2);
            fs::File::options()
                .write(true)
                .open(&writer.path)
                .unwrap()
                .set_len(0)
                .unwrap();
            if appends {
                writer.seek_to_start();
            }
            writer.events(25..30);
            reader.settle();
            reader.restart();
            reader.settle();
            reader.expect(0..30);
            assert_eq!((reader.gaps.len(), reader.torn.len()), (0, 0), "{reads_at}");
        }
    }
}

#[test]
fn r9_an_emptied_file_without_a_copy_is_a_gap() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    writer.events(0..5);
    reader.drain();
    fs::File::options()
        .write(true)
        .open(&writer.path)
        .unwrap()
        .set_len(0)
        .unwrap();
    writer.seek_to_start();
    writer.events(5..7);
    reader.settle();
    reader.expect(0..7);
    assert_eq!(
        reader.gaps.iter().map(|gap| gap.reason).collect::<Vec<_>>(),
        [GapReason::Emptied]
    );
}

#[test]
fn r10_a_line_torn_by_a_full_disk_costs_only_itself() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    writer.events(0..2);
    for cut in [1, 20, 60, 130, 300, 311] {
        let torn = event(99, 200);
        writer.write(&torn[..cut.min(torn.len() - 2)]);
        writer.events(2..4);
    }
    reader.drain();
    let numbers = reader.numbers();
    assert_eq!(numbers, [0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3]);
    assert_eq!(reader.torn.len(), 6);
    assert_eq!(reader.torn[1], event(99, 200)[..20]);
    assert_eq!(reader.anomalies.torn_lines, 6);
}

#[test]
fn r10_a_body_that_holds_an_event_is_not_taken_for_one() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    let inner = String::from_utf8(event(666, 5)).unwrap();
    let inner = inner.trim_end();
    let line = format!(
        "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"auditID\":\"00000001\",\"requestObject\":{inner},\
         \"list\":[{inner}, {inner}]}}"
    );
    writer.write(format!("{line}\n").as_bytes());
    // Torn behind the body.
    writer.write(&line.as_bytes()[..line.len() - 2]);
    writer.events(2..3);
    reader.drain();
    assert_eq!(reader.numbers(), [1, 2]);
    assert_eq!(reader.lines[0], line.as_bytes());
    assert_eq!(reader.torn.len(), 1);
}

#[test]
fn r11_a_file_that_is_removed_unread_is_counted_and_named() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::with(TailConfig {
        max_backups: Some(3),
        max_chunk_bytes: 400,
        ..TailConfig::new(writer.path.to_str().unwrap())
    });
    let mut backups = Vec::new();
    for round in 0..3 {
        writer.events(round * 5..round * 5 + 5);
        backups.push(writer.rotate());
    }
    writer.events(15..16);
    reader.pass(11);
    let chunk = reader.poll().unwrap();
    reader.keep(chunk);
    let status = reader.status();
    let name = |index: usize| backups[index].file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!((status.unread_backups, status.oldest_unread), (3, Some(name(0))));
    assert_eq!(status.rotations_until_loss, Some(0));
    assert!(status.behind_bytes > 4000);
    // The first is open and survives; the second is gone before it is read.
    fs::remove_file(&backups[0]).unwrap();
    fs::remove_file(&backups[1]).unwrap();
    reader.settle();
    let expected: Vec<u64> = (0..5).chain(10..16).collect();
    assert_eq!(reader.numbers(), expected);
    let gaps: Vec<_> = reader
        .gaps
        .iter()
        .map(|gap| (gap.file.clone(), gap.reason))
        .collect();
    assert_eq!(gaps, [(name(1), GapReason::Removed)]);
    let status = reader.status();
    assert_eq!(
        (status.unread_backups, status.rotations_until_loss, status.gaps),
        (0, None, 1)
    );
}

#[test]
fn r11_what_was_removed_while_the_reader_was_down_is_a_gap() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    writer.events(0..5);
    reader.drain();
    writer.events(5..6);
    let backup = writer.rotate();
    fs::remove_file(backup).unwrap();
    writer.events(6..8);
    reader.restart();
    reader.settle();
    let expected: Vec<u64> = (0..5).chain(6..8).collect();
    assert_eq!(reader.numbers(), expected);
    assert_eq!(
        reader.gaps.iter().map(|gap| gap.reason).collect::<Vec<_>>(),
        [GapReason::RestNotFound]
    );
    assert!(reader.gaps[0].offset > 0);
}

#[test]
fn r12_a_file_that_may_not_be_read_is_a_state_and_not_silence() {
    let (directory, mut writer) = setup();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    writer.events(0..2);
    let allow = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    allow(&writer.path, 0o644);
    let path = writer.path.clone();
    // A thread without root's rights; they are a thread's own for the kernel.
    let (ask, asked) = std::sync::mpsc::sync_channel::<()>(0);
    let (answer, answers) = std::sync::mpsc::sync_channel(0);
    let thread = std::thread::spawn(move || {
        if rustix::process::geteuid().is_root() {
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(None, nobody, None).unwrap();
        }
        let mut reader = Reader::new(&path);
        while asked.recv().is_ok() {
            reader.settle();
            answer.send((reader.numbers(), reader.status().state)).unwrap();
        }
    });
    let settle = || {
        ask.send(()).unwrap();
        answers.recv().unwrap()
    };
    assert_eq!(settle(), (vec![0, 1], SourceState::Reading));
    let backup = writer.rotate();
    allow(&writer.path, 0o600);
    writer.events(2..3);
    let denied = SourceState::PermissionDenied {
        path: fs::canonicalize(&writer.path).unwrap(),
    };
    assert_eq!(settle(), (vec![0, 1], denied));
    allow(&writer.path, 0o644);
    allow(&backup, 0o600);
    let (numbers, state) = settle();
    assert_eq!(numbers, [0, 1, 2]);
    let path = fs::canonicalize(&backup).unwrap();
    assert_eq!(state, SourceState::PermissionDenied { path });
    allow(&backup, 0o644);
    assert_eq!(settle(), (vec![0, 1, 2], SourceState::Reading));
    drop(ask);
    thread.join().unwrap();
}

#[test]
fn r13_two_writers_on_one_file_are_suspected() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    writer.events(0..10);
    reader.drain();
    // The other one writes at its own offset, over what is there.
    let other = fs::File::options().write(true).open(&writer.path).unwrap();
    let length = other.metadata().unwrap().len();
    other.write_all_at(&event(50, 200), length - 100).unwrap();
    writer.events(10..12);
    reader.drain();
    assert_eq!((reader.anomalies.interleavings, reader.torn.len()), (1, 0));
    let length = other.metadata().unwrap().len();
    writer.events(12..16);
    other.write_all_at(&event(51, 200), length + 200).unwrap();
    reader.drain();
    assert_eq!((reader.anomalies.interleavings, reader.torn.len()), (2, 2));
    let numbers = reader.numbers();
    for number in (0..12).chain(14..16).chain([51]) {
        assert_eq!(
            numbers.iter().filter(|other| **other == number).count(),
            1,
            "{number}"
        );
    }
    assert!(reader.status().anomalies.interleavings > 0);
}

#[test]
fn r14_half_a_line_waits_for_its_end() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    let line = event(0, 500);
    for byte in &line[..line.len() - 1] {
        writer.write(&[*byte]);
        reader.drain();
        assert_eq!(reader.lines.len(), 0);
    }
    reader.settle();
    reader.restart();
    reader.drain();
    writer.write(b"\n");
    reader.drain();
    reader.expect(0..1);
    // Half a line at the end of a rotated file is waited for a little, then it is torn.
    writer.write(&event(1, 10)[..60]);
    writer.rotate();
    writer.events(1..2);
    reader.drain();
    reader.expect(0..1);
    reader.pass(3);
    reader.drain();
    reader.expect(0..2);
    assert_eq!(reader.torn, [event(1, 10)[..60].to_vec()]);
    assert_eq!(reader.gaps, []);
}

#[test]
fn a_line_longer_than_the_limit_is_read_through_and_described() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::with(TailConfig {
        max_line_bytes: 200_000,
        max_chunk_bytes: 4096,
        ..TailConfig::new(writer.path.to_str().unwrap())
    });
    writer.events(0..1);
    let long = event(1, 1_000_000);
    writer.write(&long);
    writer.write(&event(2, 199_000));
    reader.drain();
    assert_eq!(reader.numbers(), [0, 2]);
    assert_eq!(reader.anomalies.oversized_lines, 1);
    // Again, with a restart in the middle.
    let mut oversized = Vec::new();
    writer.write(&long[..600_000]);
    reader.drain();
    reader.restart();
    reader.drain();
    writer.write(&long[600_000..]);
    while let Some(chunk) = reader.poll() {
        oversized.extend(chunk.oversized.clone());
        reader.keep(chunk);
    }
    assert_eq!(oversized.len(), 1);
    assert_eq!(oversized[0].length, long.len() as u64 - 1);
    assert_eq!(oversized[0].head, long[..kaudit_collect::OVERSIZED_HEAD_BYTES]);
    assert_eq!(
        oversized[0].hash,
        *blake3::hash(&long[..long.len() - 1]).as_bytes()
    );
    assert_eq!(reader.anomalies.torn_lines, 0);
}

#[test]
fn logrotate_numbers_and_dates_are_followed() {
    let (directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    let numbered = |number: u32, suffix: &str| directory.path().join(format!("audit.log.{number}{suffix}"));
    for round in 0..8_u64 {
        writer.events(round * 3..round * 3 + 3);
        if round % 3 == 0 {
            reader.drain();
        }
        for number in (1..20).rev() {
            for suffix in ["", ".gz"] {
                if numbered(number, suffix).exists() {
                    fs::rename(numbered(number, suffix), numbered(number + 1, suffix)).unwrap();
                }
            }
        }
        fs::rename(writer.rename(), numbered(1, "")).unwrap();
        if numbered(2, "").exists() {
            compress(&numbered(2, ""));
        }
        writer.create();
        if round == 4 {
            reader.restart();
        }
    }
    reader.settle();
    reader.restart();
    reader.settle();
    reader.expect(0..24);
    assert_eq!(reader.gaps, []);
}

#[test]
fn the_start_decides_what_is_left_out_and_later_files_are_read_whole() {
    let (directory, mut writer) = setup();
    for round in 0..4 {
        writer.events(round * 3..round * 3 + 3);
        let backup = writer.rotate();
        if round == 1 {
            compress(&backup);
        }
    }
    writer.events(12..14);
    let config = TailConfig::new(directory.path().to_str().unwrap());
    let mut reader = Reader::with(TailConfig {
        start: Start::End,
        ..config.clone()
    });
    reader.settle();
    reader.expect(0..0);
    writer.events(14..15);
    let backup = writer.rotate();
    compress(&backup);
    writer.events(15..16);
    fs::write(directory.path().join("second.log"), event(16, 10)).unwrap();
    reader.restart();
    reader.settle();
    let mut numbers = reader.numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, [14, 15, 16]);

    let modified = |name: &str| {
        fs::metadata(directory.path().join(name))
            .unwrap()
            .modified()
            .unwrap()
    };
    let mut reader = Reader::with(TailConfig {
        start: Start::Since(modified("audit.log") + Duration::from_secs(60)),
        ..config
    });
    reader.settle();
    let mut numbers = reader.numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, [15, 16]);
}

#[test]
fn lines_that_come_late_into_a_rotated_file_are_read() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    writer.events(0..3);
    reader.drain();
    let backup = writer.rotate();
    writer.events(3..4);
    reader.drain();
    let old = fs::File::options().append(true).open(&backup).unwrap();
    std::io::Write::write_all(&mut &old, &event(4, 10)).unwrap();
    reader.settle();
    writer.events(5..6);
    reader.settle();
    reader.expect(0..6);
}

#[test]
fn silence_becomes_stale() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    writer.events(0..1);
    reader.drain();
    let since = reader.status().last_read.unwrap();
    assert_eq!(reader.status().state, SourceState::Reading);
    reader.pass(301);
    reader.drain();
    assert_eq!(reader.status().state, SourceState::Stale { since });
    writer.events(1..2);
    reader.drain();
    assert_eq!(reader.status().state, SourceState::Reading);
}

#[test]
fn a_position_that_cannot_be_read_is_an_error_that_says_what_to_do() {
    let (_directory, mut writer) = setup();
    writer.events(0..1);
    let reader = Reader::new(&writer.path);
    let mut saved = reader.saved.clone().unwrap();
    saved[3] ^= 1;
    let error = Tail::open(reader.config.clone(), Some(&saved), start_time()).unwrap_err();
    assert!(matches!(error, TailError::Position { .. }));
    assert!(error.to_string().contains("start without it"));
    let error = Tail::open(TailConfig::new("/var/log/["), None, start_time()).unwrap_err();
    assert!(matches!(error, TailError::Pattern { .. }));
}

#[test]
fn pieces_say_why_they_are_torn() {
    let (_directory, mut writer) = setup();
    let mut reader = Reader::new(&writer.path);
    writer.write(b"not json\n\n  {\"a\":1} \r\n{\"kind\":\"Event\",\n{\"a\":1}{\"b\":2}\n");
    let chunk = reader.poll().unwrap();
    let torn: Vec<_> = chunk.torn.iter().map(|torn| (torn.offset, torn.reason)).collect();
    assert_eq!(torn, [(0, TornReason::NotObject), (22, TornReason::Cut)]);
    let lines: Vec<_> = chunk
        .texts()
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    // Only a decoder sees that the second is none.
    assert_eq!(lines, ["{\"a\":1}", "{\"a\":1}{\"b\":2}"]);
    let mended = kaudit_collect::lines::resync(lines[1].as_bytes());
    assert_eq!(mended, [Piece::Object(0..7), Piece::Object(7..14)]);
    assert_eq!(
        chunk.file.to_string(),
        format!("{}#{:016x}", writer.path.display(), chunk.file.id)
    );
}
