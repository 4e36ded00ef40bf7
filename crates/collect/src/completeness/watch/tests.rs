use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kaudit_journal::{Journal, Options};

use super::*;
use crate::arrival::Keys;
use crate::completeness::ReadAt;
use crate::intake::IntakeOptions;
use crate::parcel::{About, Parcel};
use crate::quarantine::Quarantine;
use crate::source::{Origin, Way};

/// 2026-01-02T00:00:00Z.
const DAY: i64 = 1_767_312_000;

fn at(second: i64) -> UnixMicros {
    UnixMicros((DAY + second) * 1_000_000)
}

fn open(folder: &Path) -> Intake {
    let (journal, _) = Journal::open(&folder.join("journal"), Options::default()).unwrap();
    let quarantine = Quarantine::open(&folder.join("quarantine"), 1 << 20).unwrap();
    Intake::new(journal, Keys::new([3; 32]), quarantine, IntakeOptions::default()).unwrap()
}

fn bounds() -> Bounds {
    Bounds {
        settle: Duration::from_secs(10),
        ..Bounds::default()
    }
}

fn start(intake: &Intake) -> (Watch, Beginning) {
    let (cluster, instance) = ("c".parse().unwrap(), "i".parse().unwrap());
    Watch::start(intake.clone(), cluster, instance, bounds(), at(0)).unwrap()
}

/// Events with an id, a second of the day, and what else stands in them, kept.
fn take(intake: &Intake, instance: &str, transport: Way, events: &[(&str, i64, &str)]) {
    let origin = Origin {
        cluster: "c".parse().unwrap(),
        instance: instance.parse().unwrap(),
        transport,
        path: String::new(),
    };
    let mut parcel = Parcel::new(intake.source(&origin).unwrap());
    for (id, second, rest) in events {
        let time = format!(
            "2026-01-02T{:02}:{:02}:{:02}.000000Z",
            second / 3600,
            second / 60 % 60,
            second % 60
        );
        let line = format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"{id}","stage":"ResponseComplete","requestURI":"/x","verb":"get","user":{{"username":"u"}},"requestReceivedTimestamp":"{time}","stageTimestamp":"{time}"{rest}}}"#
        );
        let arrival = Arrival::of_line(line.as_bytes(), "c", intake.keys()).unwrap();
        parcel.push(&arrival, About::default()).unwrap();
    }
    intake
        .take(&parcel, Beside::default(), 1)
        .unwrap()
        .wait()
        .unwrap();
}

fn scrape(second: i64, events: u64) -> Scrape {
    Scrape {
        at: ReadAt::by_collector(at(second), at(second)),
        events,
        rejected: 0,
        errors: BTreeMap::new(),
        started: Some(at(-1000)),
    }
}

fn missing(watch: &Watch, second: i64) -> u64 {
    watch.advance(at(second));
    watch.status().gap.map_or(0, |gap| gap.at_least)
}

#[test]
fn an_event_that_comes_twice_or_as_another_copy_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let intake = open(folder.path());
    let (watch, beginning) = start(&intake);
    assert_eq!(beginning, Beginning::New);
    watch.scraped(&scrape(100, 50), at(100));
    take(&intake, "i", Way::Webhook, &[("a", 120, ""), ("b", 121, "")]);
    take(
        &intake,
        "i",
        Way::File,
        &[("a", 120, ""), ("b", 121, r#","annotations":{"x":"y"}"#)],
    );
    take(&intake, "another", Way::File, &[("c", 122, "")]);
    let findings = watch.scraped(&scrape(150, 53), at(150));
    assert_eq!(findings, []);
    assert_eq!(missing(&watch, 170), 1);
    take(&intake, "i", Way::File, &[("d", 123, "")]);
    assert_eq!(missing(&watch, 171), 0);
    assert_eq!(watch.status().excess, 0);
}

#[test]
fn after_a_restart_the_events_behind_the_saved_state_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    {
        let intake = open(folder.path());
        let (watch, _) = start(&intake);
        watch.scraped(&scrape(100, 50), at(100));
        take(&intake, "i", Way::File, &[("a", 120, "")]);
        watch.save().unwrap();
        take(&intake, "i", Way::File, &[("b", 121, "")]);
        take(
            &intake,
            "i",
            Way::Webhook,
            &[("b", 121, r#","annotations":{"x":"y"}"#)],
        );
        take(&intake, "another", Way::File, &[("c", 122, "")]);
        intake.journal().close();
    }
    let intake = open(folder.path());
    let (watch, beginning) = start(&intake);
    assert_eq!(beginning, Beginning::Restored { events: 1 });
    assert_eq!(watch.scraped(&scrape(150, 53), at(150)), []);
    assert_eq!(missing(&watch, 170), 1);
    watch.save().unwrap();
    assert!(matches!(
        Watch::start(
            intake,
            "c".parse().unwrap(),
            "i".parse().unwrap(),
            bounds(),
            at(0)
        ),
        Err(WatchError::Twice(..))
    ));
}

#[test]
fn a_state_that_cannot_be_gone_on_from_begins_anew_without_an_alarm() {
    let folder = tempfile::tempdir().unwrap();
    {
        let intake = open(folder.path());
        let (watch, _) = start(&intake);
        watch.scraped(&scrape(100, 50), at(100));
        watch.save().unwrap();
        let state = watch.intake.journal().mark(&watch.mark).unwrap();
        let marks: [(&[u8], &[u8]); 1] = [(&watch.mark, &state[..state.len() - 1])];
        watch.intake.write(Beside::marks(&marks)).unwrap().wait().unwrap();
        intake.journal().close();
    }
    let intake = open(folder.path());
    let (watch, beginning) = start(&intake);
    assert!(matches!(beginning, Beginning::Anew { .. }));
    assert_eq!(watch.scraped(&scrape(150, 99), at(150)), []);
    assert_eq!(missing(&watch, 170), 0);
}
