//! The store in a bucket that breaks off: S-1 and S-2 whatever request is the last, and whoever else writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kaudit_journal::Journal;
use kaudit_query::Filter;

use crate::objects::{Bucket, BucketOptions, Created, Listed, Objects, Refusal, RefusalKind};
use crate::torture::{NOW, append, check, small_journal};
use crate::{Compaction, Completeness, Finding, Options, Order, Retention, Scan, Store, StoreError};

/// What a request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breaks {
    /// Nothing is done and nothing answered.
    Before,
    /// It is done, and the answer is lost.
    After,
}

/// Which requests break.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// So many are answered first.
    answered: usize,
    /// So many break then.
    broken: usize,
    how: Breaks,
    has_begun: bool,
}

/// A bucket in memory.
#[derive(Debug, Default)]
struct Memory {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    plan: Mutex<Option<Plan>>,
    /// Requests that have not been let through yet.
    gate: Mutex<()>,
    /// Whether it knows no conditions.
    is_simple: bool,
}

impl Memory {
    fn bucket(self: &Arc<Self>, cache_bytes: u64) -> Bucket {
        let mut options = BucketOptions::new("b".to_owned(), "p".to_owned());
        options.cache_bytes = cache_bytes;
        Bucket {
            objects: Arc::clone(self) as Arc<dyn Objects>,
            options,
        }
    }

    /// After `answered` requests, `broken` break off.
    fn breaks(&self, answered: usize, broken: usize, how: Breaks) {
        *self.plan.lock().unwrap() = Some(Plan {
            answered,
            broken,
            how,
            has_begun: false,
        });
    }

    /// All requests are answered from now on; says whether one was not.
    fn heals(&self) -> bool {
        self.plan
            .lock()
            .unwrap()
            .take()
            .is_some_and(|plan| plan.has_begun)
    }

    fn request<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> Result<T, Refusal> {
        drop(self.gate.lock().unwrap());
        let broken = || Refusal::new(RefusalKind::Failed, "the line is dead");
        let mut plan = self.plan.lock().unwrap();
        let how = match plan.as_mut() {
            Some(plan) if plan.answered > 0 => {
                plan.answered -= 1;
                None
            }
            Some(plan) if plan.broken > 0 => {
                plan.broken -= 1;
                plan.has_begun = true;
                Some(plan.how)
            }
            _ => None,
        };
        drop(plan);
        if how == Some(Breaks::Before) {
            return Err(broken());
        }
        let done = act(&mut self.objects.lock().unwrap());
        if how == Some(Breaks::After) {
            Err(broken())
        } else {
            Ok(done)
        }
    }

    fn keys(&self, folder: &str) -> Vec<String> {
        let objects = self.objects.lock().unwrap();
        objects
            .keys()
            .filter(|key| key.starts_with(folder))
            .cloned()
            .collect()
    }
}

impl Objects for Memory {
    fn list(&self, below: &str, after: Option<&str>) -> Result<Vec<Listed>, Refusal> {
        self.request(|objects| {
            let listed = objects
                .iter()
                .filter(|(key, _)| key.starts_with(below) && after.is_none_or(|after| key.as_str() > after));
            listed
                .map(|(key, content)| Listed {
                    key: key.clone(),
                    bytes: content.len() as u64,
                })
                .collect()
        })
    }

    fn read(&self, key: &str, _: u64, into: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), Refusal> {
        let content = self.request(|objects| objects.get(key).cloned())?;
        let content = content.ok_or_else(|| Refusal::new(RefusalKind::Missing, "no such key"))?;
        for piece in content.chunks(1000) {
            into(piece).map_err(|error| Refusal::new(RefusalKind::Failed, error))?;
        }
        Ok(())
    }

    fn create(&self, key: &str, content: &[u8]) -> Result<Created, Refusal> {
        self.request(|objects| {
            if objects.contains_key(key) && !self.is_simple {
                return Created::Taken;
            }
            objects.insert(key.to_owned(), content.to_vec());
            Created::Now
        })
    }

    fn upload(&self, key: &str, file: &File, bytes: u64) -> Result<(), Refusal> {
        let mut content = vec![0; usize::try_from(bytes).unwrap()];
        file.read_exact_at(&mut content, 0).unwrap();
        self.request(|objects| {
            let before = objects.insert(key.to_owned(), content);
            assert!(before.is_none(), "{key} was there: a file does not change");
        })
    }

    fn remove(&self, keys: &[String]) -> Result<(), Refusal> {
        self.request(|objects| {
            for key in keys {
                objects.remove(key);
            }
        })
    }
}

/// A journal and a bucket.
struct Bed {
    dir: tempfile::TempDir,
    journal: Journal,
    memory: Arc<Memory>,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(&dir.path().join("journal"), small_journal()).unwrap();
        Self {
            dir,
            journal,
            memory: Arc::default(),
        }
    }

    fn open(&self) -> Result<Store, StoreError> {
        self.open_at(&self.dir.path().join("store"), 1 << 30)
    }

    fn open_at(&self, root: &Path, cache_bytes: u64) -> Result<Store, StoreError> {
        Store::open_in(self.memory.bucket(cache_bytes), root, Options::default())
    }

    /// A store with `count` events in files.
    fn sealed(&self, count: u64) -> Store {
        let store = self.open().unwrap();
        let cursor = store.cursor(&self.journal).unwrap();
        append(&self.journal, count);
        store.catch_up(&self.journal).unwrap();
        store.seal(&cursor, NOW).unwrap();
        store
    }

    /// No file is in the bucket that the manifest does not name.
    fn has_no_orphans(&self, store: &Store) {
        let mut named: Vec<String> = store
            .manifest()
            .parts
            .iter()
            .map(|part| part.path.clone())
            .collect();
        named.sort();
        assert_eq!(self.memory.keys("cluster="), named);
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not so");
        std::thread::yield_now();
    }
}

fn all(store: &Store) -> usize {
    let scan = Scan::new(Filter::everything());
    let page = store
        .snapshot()
        .page(&scan, Order::OldestFirst, 10_000, None)
        .unwrap();
    page.events.len()
}

/// Seals and merges as far as the bucket lets.
fn work(store: &Store, bed: &Bed) -> Result<(), StoreError> {
    let cursor = store.cursor(&bed.journal)?;
    store.catch_up(&bed.journal)?;
    store.seal(&cursor, NOW)?;
    store.compact(&Compaction::before(i64::MAX), NOW).map(drop)
}

#[test]
fn every_event_is_there_once_whatever_request_is_the_last_of_a_process() {
    for how in [Breaks::Before, Breaks::After] {
        let mut reached_the_end = false;
        for answered in 0..100 {
            let bed = Bed::new();
            append(&bed.journal, 40);
            drop(bed.open().unwrap());
            bed.memory.breaks(answered, usize::MAX, how);
            // Known from the opening before, it opens without the bucket, too.
            let store = bed.open().unwrap();
            let outcome = work(&store, &bed);
            drop(store);
            reached_the_end = !bed.memory.heals();
            assert!(outcome.is_err() || reached_the_end, "at {answered}");
            let store = bed.open().unwrap();
            bed.has_no_orphans(&store);
            let cursor = store.cursor(&bed.journal).unwrap();
            store.catch_up(&bed.journal).unwrap();
            check(&store, 41, 1);
            store.seal(&cursor, NOW).unwrap();
            check(&store, 41, 1);
            assert_eq!(cursor.position(), bed.journal.durable());
            bed.has_no_orphans(&store);
            if reached_the_end {
                break;
            }
        }
        assert!(reached_the_end, "{how:?}");
    }
}

#[test]
fn every_event_is_there_once_whatever_requests_get_no_answer_and_the_process_goes_on() {
    for how in [Breaks::Before, Breaks::After] {
        for broken in [1, 2, 3] {
            let mut reached_the_end = false;
            for answered in 0..100 {
                let bed = Bed::new();
                append(&bed.journal, 40);
                let store = bed.open().unwrap();
                bed.memory.breaks(answered, broken, how);
                let mut tries = 0;
                while work(&store, &bed).is_err() {
                    tries += 1;
                    assert!(tries < 20, "at {answered}");
                }
                reached_the_end = !bed.memory.heals();
                check(&store, 41, 1);
                append(&bed.journal, 9);
                work(&store, &bed).unwrap();
                check(&store, 51, 2);
                assert_eq!(store.manifest().sealed_to, bed.journal.durable().get());
                // What was given up goes with the next upkeep.
                store.retain(&Retention::default(), NOW).unwrap();
                bed.has_no_orphans(&store);
                let held = store.cursor(&bed.journal).unwrap().position();
                assert_eq!(held, bed.journal.durable());
                if reached_the_end {
                    break;
                }
            }
            assert!(reached_the_end, "{how:?}, {broken} requests");
        }
    }
}

#[test]
fn of_two_writers_one_commits_and_the_other_says_whose_the_store_is() {
    let bed = Bed::new();
    let other = Bed {
        memory: Arc::clone(&bed.memory),
        ..Bed::new()
    };
    // Both find an empty bucket.
    let store = bed.open().unwrap();
    let owner = store.manifest().writer.clone().unwrap();
    let refused = other.open().unwrap_err();
    assert!(
        matches!(&refused, StoreError::NotOwner { owner: by, .. } if *by == owner),
        "{refused}"
    );
    // A writer that was taken over from and does not know it.
    let root = other.dir.path().join("store");
    let mut bucket = bed.memory.bucket(1 << 30);
    bucket.options.take_over_from = Some(owner);
    let successor = Store::open_in(bucket, &root, Options::default()).unwrap();
    append(&bed.journal, 5);
    append(&other.journal, 7);
    assert!(matches!(work(&store, &bed), Err(StoreError::Conflict { .. })));
    assert!(
        matches!(work(&store, &bed), Err(StoreError::Conflict { .. })),
        "nor later"
    );
    assert_eq!(store.cursor(&bed.journal).unwrap().position().get(), 1);
    assert_eq!(all(&store), 5, "it still shows what it has");
    work(&successor, &other).unwrap();
    check(&successor, 8, 1);
    // The owner of the name need not be named twice.
    drop(successor);
    assert_eq!(all(&other.open().unwrap()), 7);
}

#[test]
fn a_bucket_that_is_away_takes_nothing_loses_nothing_and_is_told_of() {
    let bed = Bed::new();
    let store = bed.sealed(10);
    bed.memory.breaks(0, usize::MAX, Breaks::Before);
    append(&bed.journal, 10);
    let stray = "cluster=c/dt=2026-11-20/hour=00/part-1-dead-0.parquet";
    bed.memory
        .objects
        .lock()
        .unwrap()
        .insert(stray.to_owned(), vec![0; 10]);
    let failed = work(&store, &bed).unwrap_err();
    assert!(matches!(failed, StoreError::Bucket { .. }), "{failed}");
    assert_eq!(all(&store), 20, "what is in the cache and in the tail is shown");
    assert_eq!(store.cursor(&bed.journal).unwrap().position().get(), 12);
    // A start without the bucket shows what is known, and takes up what is in the journal.
    drop(store);
    let store = bed.open().unwrap();
    assert!(store.is_in_doubt());
    store.cursor(&bed.journal).unwrap();
    store.catch_up(&bed.journal).unwrap();
    assert_eq!(all(&store), 20);
    assert!(work(&store, &bed).is_err());
    bed.memory.heals();
    work(&store, &bed).unwrap();
    assert!(!store.is_in_doubt());
    check(&store, 22, 2);
    bed.has_no_orphans(&store);
    // A directory that knows nothing does not begin without the bucket.
    bed.memory.breaks(0, usize::MAX, Breaks::Before);
    assert!(matches!(
        bed.open_at(&bed.dir.path().join("new"), 0),
        Err(StoreError::Bucket { .. })
    ));
}

#[test]
fn files_come_when_they_are_needed_and_go_when_there_is_no_room() {
    let bed = Bed::new();
    let store = bed.sealed(30);
    let bytes: u64 = store.manifest().parts.iter().map(|part| part.bytes).sum();
    let parts = store.manifest().parts.len() as u64;
    assert_eq!(all(&store), 30);
    let figures = store.cache().unwrap();
    assert_eq!((figures.bytes, figures.hits, figures.fetched), (bytes, parts, 0));
    // Another reader has nothing yet, and no room for all.
    let root = bed.dir.path().join("reader");
    let bucket = bed.memory.bucket(bytes * 2 / 3);
    let reader = Store::open_to_read_in(bucket, &root, Options::default()).unwrap();
    for _ in 0..3 {
        assert_eq!(all(&reader), 30);
    }
    let figures = reader.cache().unwrap();
    assert!(figures.fetched > parts, "{figures:?}");
    until("what is too much has gone", || {
        reader.cache().unwrap().bytes <= bytes * 2 / 3
    });
    // Without the bucket a question that needs a file has no answer.
    bed.memory.breaks(0, usize::MAX, Breaks::Before);
    let scan = Scan::new(Filter::everything());
    let answer = reader.snapshot().page(&scan, Order::OldestFirst, 100, None);
    assert!(matches!(answer, Err(StoreError::Bucket { .. })), "{answer:?}");
    assert!(reader.cache().unwrap().failed > 0);
}

#[test]
fn a_question_whose_time_is_over_does_not_wait_for_a_file() {
    let bed = Bed::new();
    let store = bed.sealed(10);
    let root = bed.dir.path().join("reader");
    let reader = Store::open_to_read_in(bed.memory.bucket(1 << 30), &root, Options::default()).unwrap();
    let closed = bed.memory.gate.lock().unwrap();
    let scan = Scan::new(Filter::everything()).within(Duration::from_millis(50));
    let page = reader
        .snapshot()
        .page(&scan, Order::OldestFirst, 100, None)
        .unwrap();
    assert_eq!(
        (page.events.len(), page.stats.completeness),
        (0, Completeness::TimeUp)
    );
    drop(closed);
    // It comes all the same.
    let parts = store.manifest().parts.len() as u64;
    until("one was fetched", || reader.cache().unwrap().fetched >= 1);
    assert_eq!(all(&reader), 10);
    assert_eq!(reader.cache().unwrap().fetched, parts);
}

#[test]
fn what_is_changed_in_the_bucket_is_found_and_not_shown() {
    let bed = Bed::new();
    let store = bed.sealed(10);
    let changed = store.manifest().parts[0].path.clone();
    bed.memory.objects.lock().unwrap().get_mut(&changed).unwrap()[100] ^= 1;
    let findings = store.snapshot().verify().unwrap().findings;
    assert!(matches!(&findings[..], [Finding::Changed { path, .. }] if *path == changed));
    let root = bed.dir.path().join("reader");
    let reader = Store::open_to_read_in(bed.memory.bucket(1 << 30), &root, Options::default()).unwrap();
    let scan = Scan::new(Filter::everything());
    let answer = reader.snapshot().page(&scan, Order::OldestFirst, 100, None);
    assert!(matches!(answer, Err(StoreError::Damaged { .. })), "{answer:?}");
}

#[test]
fn a_directory_belongs_to_one_store() {
    let bed = Bed::new();
    let root = bed.dir.path().join("store");
    drop(bed.sealed(3));
    assert!(matches!(
        Store::open(&root, Options::default()),
        Err(StoreError::OtherPlace { .. })
    ));
    let mut elsewhere = bed.memory.bucket(0);
    elsewhere.options.prefix = "q".to_owned();
    assert!(matches!(
        Store::open_in(elsewhere, &root, Options::default()),
        Err(StoreError::OtherPlace { .. })
    ));
    // Another bucket of the same name is noticed by what it lacks.
    bed.memory.objects.lock().unwrap().clear();
    assert!(matches!(bed.open(), Err(StoreError::Damaged { .. })));
    // And a store of files here is none of a bucket.
    let local = Bed::new();
    let there = local.dir.path().join("store");
    let store = Store::open(&there, Options::default()).unwrap();
    append(&local.journal, 3);
    let cursor = store.cursor(&local.journal).unwrap();
    store.catch_up(&local.journal).unwrap();
    store.seal(&cursor, NOW).unwrap();
    drop(store);
    assert!(matches!(local.open(), Err(StoreError::OtherPlace { .. })));
}

#[test]
fn what_a_process_uploaded_before_it_died_goes_only_after_nobody_can_commit_it() {
    let bed = Bed::new();
    drop(bed.sealed(3));
    let stray = "cluster=c/dt=2026-11-20/hour=00/part-1-dead-0.parquet";
    bed.memory
        .objects
        .lock()
        .unwrap()
        .insert(stray.to_owned(), vec![0; 10]);
    let versions = bed.memory.keys("manifest/").len();
    let store = bed.open().unwrap();
    bed.has_no_orphans(&store);
    assert_eq!(bed.memory.keys("manifest/").len(), versions + 1);
    drop(store);
    drop(bed.open().unwrap());
    assert_eq!(
        bed.memory.keys("manifest/").len(),
        versions + 1,
        "without strays nothing is committed"
    );
}

#[test]
fn a_server_that_knows_no_conditions_holds_no_store() {
    let bed = Bed {
        memory: Arc::new(Memory {
            is_simple: true,
            ..Memory::default()
        }),
        ..Bed::new()
    };
    let refused = bed.open().unwrap_err();
    assert!(
        matches!(&refused, StoreError::Settings(why) if why.contains("If-None-Match")),
        "{refused}"
    );
}
