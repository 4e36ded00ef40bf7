use bytes::Bytes;
use kaudit_event::record::{Record, Transport};
use kaudit_journal::Options;

use super::*;
use crate::arrival::Arrival;
use crate::parcel::About;
use crate::source::Way;

fn origin(instance: &str, transport: Way) -> Origin {
    Origin {
        cluster: "prod".parse().unwrap(),
        instance: instance.parse().unwrap(),
        transport,
        path: String::new(),
    }
}

fn open(folder: &std::path::Path) -> Intake {
    let (journal, _) = Journal::open(&folder.join("journal"), Options::default()).unwrap();
    let quarantine = Quarantine::open(&folder.join("quarantine"), 1 << 20).unwrap();
    Intake::new(journal, Keys::new([3; 32]), quarantine, IntakeOptions::default()).unwrap()
}

fn line(audit_id: &str, stage: &str, uri: &str) -> String {
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"{audit_id}","stage":"{stage}","requestURI":"{uri}","verb":"get","user":{{"username":"u"}},"requestReceivedTimestamp":"2026-01-02T03:04:05.000006Z","stageTimestamp":"2026-01-02T03:04:05.000007Z"}}"#
    )
}

fn take(intake: &Intake, source: &Source, lines: &[String]) -> Taken {
    let mut parcel = Parcel::new(source.clone());
    for line in lines {
        let arrival = Arrival::of_line(line.as_bytes(), "prod", intake.keys()).unwrap();
        parcel.push(&arrival, About::default()).unwrap();
    }
    intake
        .take(&parcel, Beside::default(), 1_800_000_000_000_000)
        .unwrap()
}

fn records(intake: &Intake) -> Vec<Record> {
    let mut reader = intake.journal().reader(intake.journal().oldest());
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
fn an_event_is_kept_once_whatever_way_it_comes_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (
        line("a", "RequestReceived", "/x"),
        line("a", "ResponseComplete", "/x"),
    );
    {
        let intake = open(folder.path());
        let webhook = intake.source(&origin("cp-1", Way::Webhook)).unwrap();
        let file = intake.source(&origin("cp-1", Way::File)).unwrap();
        take(&intake, &webhook, &[first.clone(), first.clone()])
            .wait()
            .unwrap();
        let taken = take(&intake, &file, &[first.clone(), second.clone()]);
        assert_eq!((taken.events, taken.duplicates), (1, 1));
        taken.wait().unwrap();
        let sources = intake.sources();
        assert_eq!(sources.len(), 2);
        let counts = webhook.counts();
        assert_eq!((counts.events, counts.duplicates), (1, 1));
        assert_eq!((file.counts().events, file.counts().duplicates), (1, 1));
        assert_eq!(intake.audit_ids_reused().1, 0);
        intake.journal().close();
    }
    let intake = open(folder.path());
    let file = intake.source(&origin("cp-1", Way::File)).unwrap();
    let taken = take(&intake, &file, &[first.clone(), second.clone()]);
    assert_eq!((taken.events, taken.duplicates), (0, 2));
    taken.wait().unwrap();
    let kept = records(&intake);
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[0].event, Bytes::from(first));
    assert_eq!(kept[0].transport, Transport::Webhook);
    assert_eq!(
        (kept[1].source.as_str(), kept[1].instance.as_str()),
        ("file", "cp-1")
    );
    assert_eq!(kept[1].event, Bytes::from(second));
}

#[test]
fn an_audit_id_on_two_requests_is_a_signal_and_both_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let intake = open(folder.path());
    let webhook = intake.source(&origin("cp-1", Way::Webhook)).unwrap();
    let lines = [
        line("a", "RequestReceived", "/x"),
        line("a", "RequestReceived", "/y"),
    ];
    take(&intake, &webhook, &lines).wait().unwrap();
    let (signals, total) = intake.audit_ids_reused();
    assert_eq!(total, 1);
    assert_eq!(signals[0].audit_id, "a");
    drop(intake.sources());
    assert_eq!(
        (webhook.counts().events, webhook.counts().audit_id_reused),
        (2, 1)
    );
}

#[test]
fn sources_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(&folder.path().join("journal"), Options::default()).unwrap();
    let quarantine = Quarantine::open(&folder.path().join("quarantine"), 1 << 20).unwrap();
    let options = IntakeOptions {
        sources: 1,
        ..IntakeOptions::default()
    };
    let intake = Intake::new(journal, Keys::new([3; 32]), quarantine, options).unwrap();
    intake.source(&origin("a", Way::File)).unwrap();
    intake.source(&origin("a", Way::File)).unwrap();
    let error = intake.source(&origin("b", Way::File)).unwrap_err();
    assert_eq!(error.reason(), "too_many_sources");
}
