//! Many threads, one journal: everybody is answered, in order, and everything is there.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use kaudit_journal::filesystem::simulated::{Call, Fault, SimulatedDisk};
use kaudit_journal::{
    AppendError, Batch, Gap, GapReason, Hold, Item, Journal, Options, Reject, Seq, State, WhenFull,
};

const LONG: Duration = Duration::from_secs(60);

fn options() -> Options {
    let mut options = Options::default();
    options.segment_bytes = 64 << 10;
    options.max_bytes = 4 << 20;
    options.reserve_bytes = 4096;
    options.min_free_bytes = 0;
    options.linger = Duration::from_millis(1);
    options
}

fn one(payload: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.push(None, payload);
    batch
}

/// Polls to the end on this thread, parked in between.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park_timeout(LONG),
        }
    }
}

/// Waits for a condition that another thread brings about.
fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LONG, "it never came");
        std::thread::yield_now();
    }
}

fn read(journal: &Journal) -> (Vec<(u64, Vec<u8>)>, Vec<Gap>) {
    let mut reader = journal.reader(Seq::FIRST);
    let (mut records, mut gaps) = (Vec::new(), Vec::new());
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Record { seq, payload, .. } => records.push((seq.get(), payload.to_vec())),
            Item::Gap(gap) => gaps.push(gap),
            other => panic!("{other:?}"),
        }
    }
    (records, gaps)
}

#[test]
fn all_threads_are_answered_and_all_records_are_there_in_the_order_of_their_numbers() {
    const THREADS: u64 = 16;
    const BATCHES: u64 = 60;
    let disk = SimulatedDisk::new(1);
    let (journal, _) = Journal::open_on(disk.clone(), Path::new("/j"), options()).unwrap();
    let followed = std::thread::scope(|scope| {
        let follower = scope.spawn(|| {
            // Reads along with a future that is woken by commits.
            let mut reader = journal.reader(Seq::FIRST);
            let mut count = 0;
            while count < THREADS * BATCHES * 2 {
                match reader.next().unwrap() {
                    Some(Item::Record { seq, .. }) => {
                        count += 1;
                        assert_eq!(seq.get(), count);
                    }
                    Some(gap) => panic!("{gap:?}"),
                    None => drop(block_on(journal.wait_durable(reader.position()))),
                }
            }
            count
        });
        for thread in 0..THREADS {
            let journal = &journal;
            scope.spawn(move || {
                let mut last = 0;
                for number in 0..BATCHES {
                    let mut batch = one(format!("{thread}/{number}/a").as_bytes());
                    batch.push(Some([1; 24]), format!("{thread}/{number}/b").as_bytes());
                    let ticket = journal.append(batch).unwrap();
                    let first = ticket.first_seq();
                    let seqs = if number % 2 == 0 {
                        block_on(ticket)
                    } else {
                        ticket.wait()
                    }
                    .unwrap();
                    assert_eq!(seqs, first..first.plus(2));
                    assert!(journal.durable() >= seqs.end && first.get() > last);
                    last = first.get();
                }
            });
        }
        follower.join().unwrap()
    });
    assert_eq!(followed, THREADS * BATCHES * 2);
    let stats = journal.stats();
    assert_eq!((stats.committed_records, stats.queue_bytes), (followed, 0));
    assert!(stats.commits <= THREADS * BATCHES, "groups of more than one");
    let (records, gaps) = read(&journal);
    assert_eq!((records.len() as u64, gaps), (followed, Vec::new()));
    journal.close();
    let rejected = journal.append(one(b"late")).unwrap_err();
    assert_eq!((rejected.reason, rejected.batch.records()), (Reject::Closed, 1));
    assert!(matches!(journal.state(), State::Closed));
    let (journal, recovery) = Journal::open_on(disk, Path::new("/j"), options()).unwrap();
    assert_eq!((recovery.records, recovery.cut_bytes), (followed, 0));
    assert_eq!(read(&journal).0, records);
}

#[test]
fn tickets_are_answered_in_order_and_a_barrier_after_all_before_it() {
    let (journal, _) = Journal::open_on(SimulatedDisk::new(1), Path::new("/j"), options()).unwrap();
    let mut tickets = Vec::new();
    for number in 0..200 {
        tickets.push(
            journal
                .append(if number % 3 == 0 { Batch::new() } else { one(b"x") })
                .unwrap(),
        );
    }
    while let Some(ticket) = tickets.pop() {
        ticket.wait().unwrap();
        // The last was answered, so all before it were.
        for earlier in &tickets {
            assert!(earlier.wait_timeout(Duration::ZERO).unwrap().is_ok());
        }
        tickets.truncate(tickets.len() / 2);
    }
}

#[test]
fn at_a_failure_everything_queued_fails_and_the_count_grows_before_anyone_is_told() {
    let disk = SimulatedDisk::new(1);
    let (journal, _) = Journal::open_on(disk.clone(), Path::new("/j"), options()).unwrap();
    journal.append(one(b"first")).unwrap().wait().unwrap();
    assert_eq!(journal.failures(), 0);
    disk.fail_nth(Call::SyncData, 0, Fault::Io);
    let error = journal.append(one(b"lost")).unwrap().wait().unwrap_err();
    assert!(matches!(error, AppendError::Io { .. }), "{error:?}");
    assert_eq!(journal.failures(), 1);
    // The segment was opened anew and cut, and the next group goes to another.
    let seqs = journal.append(one(b"second")).unwrap().wait().unwrap();
    assert_eq!(seqs, Seq::new(2)..Seq::new(3));
    let stats = journal.stats();
    assert_eq!(
        (stats.sync_errors, stats.failed_records, stats.segments),
        (1, 1, 2)
    );
    let expected = vec![(1, b"first".to_vec()), (2, b"second".to_vec())];
    assert_eq!(read(&journal), (expected.clone(), Vec::new()));
    journal.close();
    drop(journal);
    let (journal, _) = Journal::open_on(disk.crash(), Path::new("/j"), options()).unwrap();
    assert_eq!(read(&journal), (expected, Vec::new()));
}

#[test]
fn a_full_disk_refuses_and_the_journal_goes_on_by_itself() {
    let disk = SimulatedDisk::new(1);
    let (journal, _) = Journal::open_on(disk.clone(), Path::new("/j"), options()).unwrap();
    journal.append(one(&[1; 1000])).unwrap().wait().unwrap();
    disk.set_capacity(Some(disk.used()));
    let mut acknowledged = 1;
    let error = loop {
        match journal.append(one(&[1; 1000])).unwrap().wait() {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::DiskFull { .. }), "{error:?}");
    let State::DiskFull { .. } = journal.state() else {
        panic!("{:?}", journal.state())
    };
    assert_eq!(journal.append(one(b"x")).unwrap_err().reason, Reject::DiskFull);
    disk.set_capacity(None);
    until(|| matches!(journal.state(), State::Ready));
    journal.append(one(b"x")).unwrap().wait().unwrap();
    assert_eq!(read(&journal).0.len(), acknowledged + 1);
}

#[test]
fn a_disk_that_fails_is_tried_again_and_can_be_read_meanwhile() {
    let disk = SimulatedDisk::new(1);
    let (journal, _) = Journal::open_on(disk.clone(), Path::new("/j"), options()).unwrap();
    journal.append(one(b"first")).unwrap().wait().unwrap();
    let mut reader = journal.reader(Seq::FIRST);
    assert!(matches!(reader.next(), Ok(Some(Item::Record { .. }))));
    disk.fail_nth(Call::Write, 0, Fault::Io);
    for nth in 0..10_000 {
        disk.fail_nth(Call::SetLen, nth, Fault::Io);
    }
    // The journal may meet the fault by itself, when it notes behind the first record where it ends.
    match journal.append(one(b"lost")) {
        Ok(ticket) => drop(ticket.wait().unwrap_err()),
        Err(rejected) => assert_eq!(rejected.reason, Reject::Broken),
    }
    let State::Broken { .. } = journal.state() else {
        panic!("{:?}", journal.state())
    };
    assert!(matches!(reader.next(), Ok(None)));
    assert_eq!(journal.append(one(b"x")).unwrap_err().reason, Reject::Broken);
    drop(disk.pause_faults());
    until(|| matches!(journal.state(), State::Ready));
    journal.append(one(b"second")).unwrap().wait().unwrap();
    assert!(matches!(reader.next(), Ok(Some(Item::Record { seq, .. })) if seq == Seq::new(2)));
}

#[test]
fn a_holding_cursor_fills_the_journal_and_lets_it_go_on_when_it_moves() {
    let (journal, _) = Journal::open_on(SimulatedDisk::new(1), Path::new("/j"), {
        let mut options = options();
        options.max_bytes = 192 << 10;
        options
    })
    .unwrap();
    let cursor = journal.cursor("store", Hold::Yes).unwrap();
    assert_eq!(cursor.position(), Seq::FIRST);
    let error = loop {
        if let Err(error) = journal.append(one(&[1; 9000])).unwrap().wait() {
            break error;
        }
    };
    assert!(matches!(error, AppendError::JournalFull), "{error:?}");
    assert_eq!(journal.append(one(b"x")).unwrap_err().reason, Reject::JournalFull);
    let mut behind = journal.reader(Seq::FIRST);
    assert!(matches!(behind.next(), Ok(Some(Item::Record { .. }))));
    cursor.advance(journal.durable()).unwrap();
    until(|| matches!(journal.state(), State::Ready));
    for _ in 0..30 {
        journal.append(one(&[2; 9000])).unwrap().wait().unwrap();
        cursor.advance(journal.durable()).unwrap();
    }
    let stats = journal.stats();
    assert!(
        stats.bytes <= 192 << 10 && stats.expired_records == 0 && stats.released_records > 0,
        "{stats:?}"
    );
    // Who was reading a segment that went reads it to its end, and then finds a gap.
    let mut next = 2;
    let mut gaps = Vec::new();
    while let Some(item) = behind.next().unwrap() {
        match item {
            Item::Record { seq, .. } => {
                assert_eq!(seq.get(), next);
                next += 1;
            }
            Item::Gap(gap) => {
                assert_eq!((gap.from.get(), gap.reason), (next, GapReason::Expired));
                next = gap.to.get();
                gaps.push(gap);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((gaps.len(), Seq::new(next)), (1, journal.durable()));
    cursor.advance(journal.durable()).unwrap();
    journal.release();
    until(|| journal.stats().segments == 1);
    journal.remove_cursor("store").unwrap();
    assert!(journal.cursors().is_empty() && cursor.advance(journal.durable()).is_err());
}

#[test]
fn a_disk_that_is_full_gets_back_what_nobody_holds_any_more() {
    for reserve in [0, 48 << 10] {
        let disk = SimulatedDisk::new(1);
        let mut options = options();
        options.max_bytes = 1 << 20;
        options.min_free_bytes = reserve;
        let segment_bytes = options.segment_bytes;
        let (journal, _) = Journal::open_on(disk.clone(), Path::new("/j"), options).unwrap();
        let cursor = journal.cursor("store", Hold::Yes).unwrap();
        let fill = || {
            journal.append(one(&[2; 9000])).unwrap().wait().unwrap();
            cursor.advance(journal.durable()).unwrap();
        };
        (0..30).for_each(|_| fill());
        let before = journal.stats();
        assert!(before.segments > 3 && before.released_records == 0, "{before:?}");
        // The next segment has no room but that of the oldest.
        disk.set_capacity(Some(disk.used() + segment_bytes / 2));
        (0..60).for_each(|_| fill());
        let after = journal.stats();
        assert!(matches!(journal.state(), State::Ready));
        assert!(
            after.released_records > 0 && after.expired_records == 0,
            "{after:?}"
        );
    }
}

#[test]
fn the_oldest_go_when_nobody_holds_them_or_nobody_is_asked() {
    for (when_full, hold) in [(WhenFull::Refuse, Hold::No), (WhenFull::DropOldest, Hold::Yes)] {
        let mut options = options();
        options.max_bytes = 192 << 10;
        options.when_full = when_full;
        let (journal, _) = Journal::open_on(SimulatedDisk::new(1), Path::new("/j"), options).unwrap();
        let cursor = journal.cursor("slow", hold).unwrap();
        for _ in 0..60 {
            journal.append(one(&[1; 9000])).unwrap().wait().unwrap();
        }
        let stats = journal.stats();
        assert_eq!(stats.expired_records, stats.oldest_seq.get() - 1, "{when_full:?}");
        assert!(stats.expired_records > 0);
        let first = journal.reader(cursor.position()).next().unwrap();
        let gap = Gap {
            from: Seq::FIRST,
            to: journal.oldest(),
            reason: GapReason::Expired,
        };
        assert_eq!(first, Some(Item::Gap(gap)));
        assert_eq!(journal.verify().gaps, Vec::new());
    }
}

#[test]
fn what_is_too_much_is_refused_before_anything_is_queued() {
    let mut options = options();
    options.queue_bytes = 4096;
    options.max_record_bytes = 20_000;
    options.linger = Duration::from_millis(200);
    options.commit_share = u32::MAX;
    let (journal, _) = Journal::open_on(SimulatedDisk::new(1), Path::new("/j"), options).unwrap();
    assert_eq!(
        journal.append(one(&[0; 20_100])).unwrap_err().reason,
        Reject::TooLarge
    );
    let room = journal.reserve(3000).unwrap();
    assert_eq!((journal.room(), room.bytes()), (1096, 3000));
    assert!(journal.reserve(2000).is_none());
    assert_eq!(
        journal.append(one(&[0; 2000])).unwrap_err().reason,
        Reject::QueueFull
    );
    let reserved = journal.append_reserved(one(&[0; 2900]), room).unwrap();
    reserved.wait().unwrap();
    // One that is larger than the queue passes alone.
    journal.append(one(&[0; 15_000])).unwrap().wait().unwrap();
    assert_eq!(journal.room(), 4096);
    let mut marks = Batch::new();
    for key in 0..4097_u32 {
        marks.mark(&key.to_le_bytes(), b"v").unwrap();
    }
    assert_eq!(journal.append(marks).unwrap_err().reason, Reject::TooManyMarks);
    assert!(Batch::new().mark(&[0; 257], b"").is_err());
    assert!(Batch::new().mark(b"k", &[0; 16_385]).is_err());
    let mut spoilt = one(b"x");
    spoilt
        .push_with(None, |out| {
            out.clear();
            Ok::<(), ()>(())
        })
        .unwrap();
    assert_eq!(journal.append(spoilt).unwrap_err().reason, Reject::TooLarge);
    assert_eq!(journal.durable(), Seq::new(3));
}

#[test]
fn marks_move_with_their_batches_and_an_empty_value_removes_one() {
    let disk = SimulatedDisk::new(1);
    let (journal, _) = Journal::open_on(disk.clone(), Path::new("/j"), options()).unwrap();
    let mut batch = one(b"x");
    batch.mark(b"a", b"1").unwrap();
    batch.mark(b"b", b"2").unwrap();
    journal.append(batch).unwrap().wait().unwrap();
    assert_eq!(journal.mark(b"a"), Some(b"1".to_vec()));
    let mut batch = Batch::new();
    batch.mark(b"a", b"").unwrap();
    batch.mark(b"b", b"3").unwrap();
    journal.append(batch).unwrap().wait().unwrap();
    assert_eq!(
        (journal.mark(b"a"), journal.mark(b"b")),
        (None, Some(b"3".to_vec()))
    );
    drop(journal);
    for _ in 0..3 {
        let (journal, recovery) = Journal::open_on(disk.crash(), Path::new("/j"), options()).unwrap();
        assert_eq!(
            recovery.marks.into_iter().collect::<Vec<_>>(),
            vec![(b"b".to_vec(), b"3".to_vec())]
        );
        journal.append(one(b"y")).unwrap().wait().unwrap();
    }
}
