use std::io::Write as _;
use std::path::Path;

use kaudit_event::record::Record;
use kaudit_journal::{Item, Journal, Options, Seq};

use super::*;
use crate::arrival::Keys;
use crate::intake::IntakeOptions;
use crate::quarantine::Quarantine;
use crate::source::{Origin, Way};

fn intake(folder: &Path) -> Intake {
    let (journal, _) = Journal::open(&folder.join("journal"), Options::default()).unwrap();
    let quarantine = Quarantine::open(&folder.join("quarantine"), 1 << 20).unwrap();
    Intake::new(journal, Keys::new([3; 32]), quarantine, IntakeOptions::default()).unwrap()
}

fn tailing(intake: &Intake, path: &Path) -> Tailing {
    let origin = Origin {
        cluster: "prod".parse().unwrap(),
        instance: "cp-1".parse().unwrap(),
        transport: Way::File,
        path: path.display().to_string(),
    };
    let source = intake.source(&origin).unwrap();
    let config = TailConfig::new(path.display().to_string());
    Tailing::start(intake.clone(), source, config).unwrap()
}

fn line(number: usize) -> String {
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"{number}","stage":"ResponseComplete","requestURI":"/x","verb":"get","user":{{"username":"u"}},"requestReceivedTimestamp":"2026-01-02T03:04:05.000006Z","stageTimestamp":"2026-01-02T03:04:05.000007Z"}}"#
    )
}

fn append(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Waits until so many records are durable.
fn records(intake: &Intake, count: u64) -> Vec<Record> {
    while intake.journal().durable() < Seq::FIRST.plus(count) {
        let durable = intake.journal().durable();
        assert!(
            intake
                .journal()
                .wait_durable_timeout(durable, Duration::from_secs(20))
                > durable,
            "nothing comes"
        );
    }
    let mut reader = intake.journal().reader(Seq::FIRST);
    let mut records = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Record { payload, .. } => records.push(Record::read(&payload).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    records
}

#[test]
fn lines_are_kept_once_over_rotations_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    let lines: Vec<String> = (0..60).map(|number| line(number) + "\n").collect();
    append(&log, &lines[..20].concat());
    {
        let intake = intake(folder.path());
        let tailing = tailing(&intake, &log);
        records(&intake, 20);
        append(&log, &lines[20..30].concat());
        std::fs::rename(&log, folder.path().join("audit-2026-01-02T03-04-05.000.log")).unwrap();
        append(&log, &lines[30..40].concat());
        records(&intake, 40);
        tailing.stop();
        intake.journal().close();
    }
    append(&log, &lines[40..50].concat());
    let intake = intake(folder.path());
    let tailing = tailing(&intake, &log);
    append(&log, &lines[50..].concat());
    let kept = records(&intake, 60);
    tailing.stop();
    let kept: Vec<String> = kept
        .iter()
        .map(|record| String::from_utf8(record.event.to_vec()).unwrap() + "\n")
        .collect();
    assert_eq!(kept, lines);
}

#[test]
fn what_is_no_event_is_in_quarantine_and_the_event_behind_it_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    let torn: String = line(1).chars().take(150).collect();
    append(
        &log,
        &format!("{}\n{torn}{}\nnonsense\n{{\"a\":1}}\n", line(0), line(2)),
    );
    let intake = intake(folder.path());
    let tailing = tailing(&intake, &log);
    let kept = records(&intake, 2);
    tailing.stop();
    assert_eq!(kept[1].event, line(2).into_bytes());
    let tail = kept[1].tail.as_ref().unwrap();
    assert!(tail.file.starts_with(&log.display().to_string()));
    let sources = intake.sources();
    assert_eq!(
        (sources[0].counts().events, sources[0].counts().quarantined),
        (2, 3)
    );
    assert_eq!(intake.quarantine().stats().pieces, 3);
}
