//! Death and errors at every call by which the journal's thread, or a process that starts, changes the disk.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kaudit_dial::Upstream;

use crate::events::{self, Name};
use crate::log::{LogFile, STREAM};
use crate::oracle::Stored;
use crate::place::{self, PATIENCE, Place, Process, Setting, Told, post, was_killed};
use crate::scale::{Random, count, report, until};
use crate::strace::{self, Attached, Fault, Inject};

/// Posts before and behind the lines of the log.
const POSTS: [Range<u64>; 2] = [0..8, 8..12];

/// Events of a post: all posts together need more than one segment.
const EVENTS: u64 = 12;

/// Lines of the log.
const LINES: u64 = 10;

/// How long the journal may need to go on when a disk does.
const RESUMES: Duration = Duration::from_secs(5);

/// What a small workload was told.
struct Workload {
    log: PathBuf,
    is_log_written: bool,
    /// Posts that are not acknowledged, in order.
    left: VecDeque<u64>,
    acked: Vec<u64>,
    /// Answers other than 200.
    refused: u64,
}

enum End {
    Done,
    /// The process died.
    Died,
}

impl Workload {
    fn new(place: &Place) -> Self {
        Self {
            log: place.path("audit.log"),
            is_log_written: false,
            left: (POSTS[0].start..POSTS[1].end).collect(),
            acked: Vec::new(),
            refused: 0,
        }
    }

    fn names(number: u64) -> impl Iterator<Item = Name> {
        (number * EVENTS..(number + 1) * EVENTS).map(|number| Name { stream: 1, number })
    }

    fn acked(&self) -> Vec<Name> {
        self.acked
            .iter()
            .flat_map(|number| Self::names(*number))
            .collect()
    }

    fn lines() -> impl Iterator<Item = Name> {
        (0..LINES).map(|number| Name {
            stream: STREAM,
            number,
        })
    }

    /// Goes on until everything is acknowledged and read, or the process died.
    fn run(&mut self, process: &mut Process, sender: &Upstream, context: &str) -> End {
        while let Some(number) = self.left.front().copied() {
            if number == POSTS[1].start && !self.is_log_written {
                self.is_log_written = true;
                let mut file = LogFile::new(&self.log);
                Self::lines().for_each(|name| file.write(name));
            }
            if self.is_log_written && number >= POSTS[1].start && matches!(self.read(process), End::Died) {
                return End::Died;
            }
            let list = bytes::Bytes::from(events::list(Self::names(number)));
            let deadline = Instant::now() + PATIENCE;
            loop {
                match place::runtime().block_on(post(sender, "c", list.clone())) {
                    Some(Told { status: 200, .. }) => break,
                    Some(Told {
                        status: 429,
                        retry_after,
                    }) => {
                        assert!(retry_after.is_some(), "{context}: 429 without Retry-After");
                        self.refused += 1;
                    }
                    Some(told) => panic!("{context}: {told:?}\n{}", process.said.text()),
                    None if process.ended().is_some() => return End::Died,
                    None => {}
                }
                assert!(
                    Instant::now() < deadline,
                    "{context}: post {number} is not kept\n{}",
                    process.said.text()
                );
                std::thread::park_timeout(Duration::from_millis(20));
            }
            self.left.pop_front();
            self.acked.push(number);
        }
        self.read(process)
    }

    /// Waits until the log is read.
    fn read(&self, process: &mut Process) -> End {
        let deadline = Instant::now() + PATIENCE;
        while process.ended().is_none() {
            if process.try_has_read_all() {
                return End::Done;
            }
            assert!(
                Instant::now() < deadline,
                "the log is not read:\n{}",
                process.said.text()
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
        End::Died
    }

    /// A process that is not disturbed brings it to its end, and everything is there once.
    fn conclude(mut self, place: &Place, context: &str) -> u64 {
        let mut process = place.start();
        let sender = place.sender(process.collector);
        // What is acknowledged already is brought again, as after an answer that was lost.
        if let Some(number) = self.acked.last() {
            self.left.push_front(*number);
        }
        assert!(
            matches!(self.run(&mut process, &sender, context), End::Done),
            "{context}"
        );
        process.stop();
        let stored = Stored::read(&place.data);
        stored.holds(context, self.acked());
        stored.holds(context, Self::lines());
        assert_eq!(stored.records, POSTS[1].end * EVENTS + LINES, "{context}");
        self.refused
    }
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("audit.log"));
    let setting = Setting {
        journal: "1Mi",
        min_free: "1Mi",
        files: vec![("c".to_owned(), log)],
        ..Setting::default()
    };
    Place::with_data(folder, data, &setting)
}

/// One life with a fault at a call of the journal's thread; answers how often a post was refused meanwhile.
fn journal_case(inject: Option<&Inject>, log: &Path) -> u64 {
    let context = format!("{inject:?}");
    let place = place();
    let mut workload = Workload::new(&place);
    let mut process = place.start();
    let sender = place.sender(process.collector);
    let attached = Attached::to(process.thread("journal"), log, inject);
    let end = workload.run(&mut process, &sender, &context);
    let said = process.said.clone();
    let status = match end {
        End::Done => process.terminate(),
        End::Died => process.ended().unwrap(),
    };
    attached.wait();
    match inject.map(|inject| inject.fault) {
        Some(Fault::Kill) if was_killed(status) => {}
        // Groups form as posts and the disk happen to meet, so that a run may have a few calls less.
        _ => {
            assert!(
                status.success() && workload.left.is_empty(),
                "{context}: {status}\n{}",
                said.text()
            );
            let stored = Stored::read(&place.data);
            stored.holds(&context, workload.acked());
            stored.holds(&context, Workload::lines());
        }
    }
    workload.conclude(&place, &context)
}

/// A disk that refuses one kind of call until it is let go.
fn refusal_case(call: &str, error: &'static str, log: &Path) -> u64 {
    let inject = Inject {
        call: call.to_owned(),
        when: "1+".to_owned(),
        fault: Fault::Error(error),
    };
    let context = format!("{inject:?}");
    let place = place();
    let mut workload = Workload::new(&place);
    let mut process = place.start();
    let sender = place.sender(process.collector);
    let attached = Attached::to(process.thread("journal"), log, Some(&inject));
    let list = bytes::Bytes::from(events::list(Workload::names(0)));
    let mut refused = 0;
    // Some calls are made only now and then, and some errors hurt nobody.
    for _ in 0..3 {
        let told = place::runtime().block_on(post(&sender, "c", list.clone()));
        match told {
            Some(Told { status: 200, .. }) => break,
            Some(Told {
                status: 429,
                retry_after: Some(_),
            }) => refused += 1,
            other => panic!("{context}: {other:?}\n{}", process.said.text()),
        }
    }
    assert!(
        process.ended().is_none(),
        "{context}: it ended\n{}",
        process.said.text()
    );
    if refused > 0 {
        // The state is Ready again where the journal could help itself at once.
        let health = process.page("/readyz?verbose");
        assert!(health.contains("]journal "), "{context}: {health}");
    }
    attached.detach();
    until("it takes events again", RESUMES, || {
        let told = place::runtime().block_on(post(&sender, "c", list.clone()));
        told.is_some_and(|told| told.status == 200)
    });
    assert!(
        matches!(workload.run(&mut process, &sender, &context), End::Done),
        "{context}"
    );
    process.stop();
    workload.conclude(&place, &context);
    refused
}

/// One life with a fault while the process starts, on an empty disk or on what a killed one left.
fn start_case(template: &Template, inject: &Inject, log: &Path) {
    let context = format!(
        "start, left by a killed process: {}, {inject:?}",
        template.0.is_some()
    );
    let place = place();
    let mut workload = Workload::new(&place);
    template.lay_out(&place, &mut workload);
    let before = workload.acked();
    match place
        .spawn_under(&strace::around(log, START_CALLS, Some(inject)))
        .serve()
    {
        Err((status, said)) => match inject.fault {
            Fault::Kill => assert!(was_killed(status), "{context}: {status}\n{}", said.text()),
            Fault::Error(_) => assert!(
                status.code().is_some_and(|code| code != 0 && code != 101),
                "{context}: {status}\n{}",
                said.text()
            ),
        },
        Ok(mut process) => {
            let sender = place.sender(process.collector);
            if matches!(workload.run(&mut process, &sender, &context), End::Done) {
                let said = process.said.clone();
                let status = process.terminate();
                let is_expected = status.success() || inject.fault == Fault::Kill && was_killed(status);
                assert!(is_expected, "{context}: {status}\n{}", said.text());
            }
        }
    }
    if let Some(last) = before.last() {
        assert!(workload.acked().contains(last));
    }
    workload.conclude(&place, &context);
}

/// Calls of a start. A process opens hundreds of files that it only reads; those are left out.
const START_CALLS: &str = "write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,rename,renameat,renameat2,unlink,\
    unlinkat,ftruncate,fallocate,mkdir,flock,fstatfs,statfs";

/// What a start finds: nothing, or the data and log of a process that was killed, and its workload.
struct Template(Option<(Place, Workload)>);

impl Template {
    fn killed() -> Self {
        let place = place();
        let mut workload = Workload::new(&place);
        let mut process = place.start();
        let sender = place.sender(process.collector);
        assert!(matches!(
            workload.run(&mut process, &sender, "template"),
            End::Done
        ));
        process.kill();
        Self(Some((place, workload)))
    }

    fn lay_out(&self, place: &Place, workload: &mut Workload) {
        if let Some((from, done)) = &self.0 {
            place::copy(&from.data, &place.data);
            // The log is another file now, with the same lines.
            std::fs::copy(&done.log, &workload.log).unwrap();
            workload.is_log_written = true;
            workload.left.clear();
            workload.acked.clone_from(&done.acked);
        }
    }
}

/// A number of threads that each take a case until there is none.
fn each<T: Send>(cases: Vec<T>, run: impl Fn(T, &Path) + Sync) {
    let cases = Mutex::new(cases);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let folder = tempfile::tempdir().unwrap();
                while let Some(case) = { cases.lock().unwrap().pop() } {
                    run(case, &folder.path().join("trace"));
                }
            });
        }
    });
}

/// So many of `cases`, at random, or all.
fn sample<T>(cases: &mut Vec<T>, sample: u64, random: &mut Random) {
    let sample = usize::try_from(sample).unwrap();
    while cases.len() > sample {
        let at = random.below(u64::try_from(cases.len()).unwrap());
        cases.swap_remove(usize::try_from(at).unwrap());
    }
}

fn faults(calls: &std::collections::BTreeMap<String, u64>) -> Vec<Inject> {
    let mut cases = Vec::new();
    for (call, count) in calls {
        // What goes through `write` here is wake-ups and the log, which no disk makes fail.
        let faults = [Fault::Kill, Fault::Error("EIO"), Fault::Error("ENOSPC")];
        let faults = if call == "write" { &faults[..1] } else { &faults };
        for when in 1..=*count {
            for fault in faults.iter().copied() {
                cases.push(Inject {
                    call: call.clone(),
                    when: when.to_string(),
                    fault,
                });
            }
        }
    }
    cases
}

#[test]
fn a_death_or_an_error_at_any_call_of_the_journal_loses_and_doubles_nothing() {
    if !strace::is_allowed() {
        return;
    }
    let mut random = Random::of_test("sweep");
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("trace");
    journal_case(None, &log);
    let calls = strace::calls(&log);
    println!("calls of the journal's thread: {calls:?}");
    assert!(calls.values().sum::<u64>() >= 40, "{calls:?}");
    let mut cases = faults(&calls);
    let all = cases.len();
    sample(
        &mut cases,
        count("KAUDIT_TORTURE_CALLS", 16, u64::MAX >> 1),
        &mut random,
    );
    let run = cases.len();
    let refused = AtomicU64::new(0);
    each(cases, |case, log| {
        refused.fetch_add(journal_case(Some(&case), log).min(1), Ordering::Relaxed);
    });
    report("call sweep, journal thread", "calls", calls.values().sum::<u64>());
    report(
        "call sweep, journal thread",
        "deaths, EIO and ENOSPC tried",
        format!("{run} of {all}"),
    );
    report(
        "call sweep, journal thread",
        "runs in which a post was told 429",
        refused.into_inner(),
    );
}

#[test]
fn while_the_disk_refuses_posts_are_told_to_come_again_and_afterwards_they_are_taken() {
    if !strace::is_allowed() {
        return;
    }
    let mut cases: Vec<(&str, &'static str)> = Vec::new();
    for call in [
        "pwritev",
        "fdatasync",
        "fsync",
        "fallocate",
        "rename",
        "openat",
        "pwrite64",
    ] {
        cases.extend([(call, "EIO"), (call, "ENOSPC")]);
    }
    let mut random = Random::of_test("refusal");
    sample(
        &mut cases,
        count("KAUDIT_TORTURE_REFUSALS", 4, u64::MAX >> 1),
        &mut random,
    );
    let run = cases.len();
    let refused = AtomicU64::new(0);
    each(cases, |(call, error), log| {
        refused.fetch_add(refusal_case(call, error, log).min(1), Ordering::Relaxed);
    });
    report("disk that refuses a call for a while", "calls and errors", run);
    report(
        "disk that refuses a call for a while",
        "with 429 meanwhile",
        refused.into_inner(),
    );
}

#[test]
fn a_death_or_an_error_at_any_call_of_a_start_needs_nobodys_help() {
    if !strace::is_allowed() {
        return;
    }
    let mut random = Random::of_test("start");
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("trace");
    for template in [Template(None), Template::killed()] {
        let what = if template.0.is_some() {
            "what a killed process left"
        } else {
            "an empty disk"
        };
        let place = place();
        template.lay_out(&place, &mut Workload::new(&place));
        let process = place
            .spawn_under(&strace::around(&log, START_CALLS, None))
            .serve();
        let process = process.unwrap_or_else(|(status, said)| panic!("{status}\n{}", said.text()));
        let calls = strace::calls(&log);
        process.stop();
        println!("calls of a start on {what}: {calls:?}");
        let mut cases = faults(&calls);
        let all = cases.len();
        sample(
            &mut cases,
            count("KAUDIT_TORTURE_STARTS", 8, u64::MAX >> 1),
            &mut random,
        );
        let run = cases.len();
        each(cases, |case, log| start_case(&template, &case, log));
        report("call sweep, start", what, format!("{run} of {all}"));
    }
}
