//! apiservers' counters against a tailed log, through the real process.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::Value;

use crate::collector::Collector;

/// An apiserver that writes a log and counters, at times that the test says.
struct Apiserver {
    folder: PathBuf,
    begun: Timestamp,
}

impl Apiserver {
    fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            begun: Timestamp::now() - Duration::from_secs(1000),
        }
    }

    fn collect(&self) -> String {
        let folder = self.folder.display();
        format!(
            "  files: [{{instance: cp-1, path: {folder}/audit.log}}]\n  completeness:\n  - {{instance: cp-1, metricsFile: \
             {folder}/metrics, interval: 100ms, settle: 2s}}\n"
        )
    }

    fn at(&self, second: u64) -> Timestamp {
        self.begun + Duration::from_secs(second)
    }

    /// Events with these numbers, each stamped in the second of its number.
    fn log(&self, numbers: impl IntoIterator<Item = u64>) {
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("audit.log"))
            .unwrap();
        for number in numbers {
            let time = self.at(number).strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string();
            writeln!(
                log,
                r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"{number}","stage":"ResponseComplete","requestURI":"/x","verb":"get","user":{{"username":"u"}},"requestReceivedTimestamp":"{time}","stageTimestamp":"{time}"}}"#
            )
            .unwrap();
        }
    }

    /// The counters as they are in a second.
    fn count(&self, second: u64, events: u64) {
        let new = self.folder.join("metrics.new");
        let text = format!(
            "# TYPE apiserver_audit_event_total counter\napiserver_audit_event_total {events}\n\
             process_start_time_seconds 1.7e+09\n"
        );
        std::fs::write(&new, text).unwrap();
        let file = OpenOptions::new().write(true).open(&new).unwrap();
        file.set_modified(SystemTime::from(self.at(second))).unwrap();
        std::fs::rename(new, self.folder.join("metrics")).unwrap();
    }
}

const OF: &str = "{cluster=\"c\",instance=\"cp-1\"}";

fn read(collector: &Collector) -> i64 {
    let scrapes = collector.metric("kaudit_completeness_scrapes_total");
    scrapes["{cluster=\"c\",instance=\"cp-1\",outcome=\"ok\"}"]
}

fn missing(collector: &Collector) -> i64 {
    collector.metric("kaudit_completeness_missing_events")[OF]
}

/// Whether it is proven that nothing is missing up to a second.
fn is_complete(collector: &Collector, apiserver: &Apiserver, second: u64) -> bool {
    let most = collector.metric("kaudit_completeness_missing_events_at_most");
    let complete = collector.metric("kaudit_completeness_complete_timestamp_seconds");
    most.get(OF) == Some(&0)
        && complete
            .get(OF)
            .is_some_and(|at| *at >= apiserver.at(second).as_second())
}

fn row(collector: &Collector) -> (Option<i32>, Value) {
    let output = collector.ask(&["source", "status", "c/cp-1", "-o", "json"]);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["items"].as_array().unwrap().len(), 1, "{status}");
    (output.status.code(), status["items"][0].clone())
}

#[test]
fn an_event_that_the_log_does_not_have_is_reported_and_closed_when_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let apiserver = Apiserver::new(folder.path());
    apiserver.log(0..10);
    apiserver.count(50, 500);
    let collector = Collector::start(folder.path(), &apiserver.collect());
    collector.until("the counters are read", |collector| read(collector) == 1);
    apiserver.log((100..110).filter(|number| *number != 104));
    apiserver.count(150, 510);
    collector.until("the gap is found", |collector| missing(collector) == 1);

    let (code, row) = row(&collector);
    assert_eq!(code, Some(1));
    let problem = row["problem"].as_str().unwrap();
    assert!(problem.starts_with("missing: at least 1 event, "), "{problem}");
    assert_eq!(row["completeness"][0], problem);
    collector.until_said("events are missing: the apiserver counted them");
    let checks = collector.get("/readyz?verbose");
    assert!(
        checks.contains("[-]completeness/c/cp-1 missing: at least 1 event"),
        "{checks}"
    );

    apiserver.log([104]);
    collector.until("the gap is closed", |collector| missing(collector) == 0);
    collector.until_said("events that were missing have come");
    collector.until("it is complete", |collector| {
        is_complete(collector, &apiserver, 140)
    });
    assert!(
        collector
            .get("/readyz?verbose")
            .contains("[+]completeness/c/cp-1 nothing is missing")
    );
    collector.stop();
}

#[test]
fn a_sound_apiserver_causes_no_alarm_across_a_restart_of_the_collector() {
    let folder = tempfile::tempdir().unwrap();
    let apiserver = Apiserver::new(folder.path());
    apiserver.count(50, 500);
    let collector = Collector::start(folder.path(), &apiserver.collect());
    collector.until("the counters are read", |collector| read(collector) == 1);
    apiserver.log(100..110);
    apiserver.count(150, 510);
    collector.until("it is complete", |collector| {
        is_complete(collector, &apiserver, 140)
    });
    assert!(!collector.said("events are missing"));
    // The last of these are in the log and not in the saved state, or not even in the journal.
    apiserver.log(200..220);
    collector.stop();
    apiserver.log(220..230);

    let collector = Collector::start(folder.path(), &apiserver.collect());
    collector.until_said("Restored");
    apiserver.count(250, 540);
    collector.until("it is complete", |collector| {
        is_complete(collector, &apiserver, 240)
    });
    assert!(!collector.said("events are missing"));
    assert_eq!(missing(&collector), 0);
    assert_eq!(collector.metric("kaudit_completeness_excess_events")[OF], 0);
    collector.stop();
}

#[test]
fn an_apiserver_from_which_nothing_comes_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let apiserver = Apiserver::new(folder.path());
    let collect = apiserver
        .collect()
        .replacen("instance: cp-1", "instance: cp-2", 1);
    let collector = Collector::start(folder.path(), &collect);
    collector.until("reading the counters fails", |collector| {
        let (_, row) = row(collector);
        row["problem"]
            .as_str()
            .is_some_and(|problem| problem.contains("counters cannot be read"))
    });
    let (_, row) = row(&collector);
    assert_eq!(row["transport"], "none");
    apiserver.count(50, 500);
    collector.until("the counters are read", |collector| read(collector) == 1);
    apiserver.count(150, 510);
    collector.until("the gap is found", |collector| missing(collector) == 10);
    collector.stop();
}

#[test]
fn what_cannot_be_watched_is_a_usage_error_that_names_the_place() {
    let folder = tempfile::tempdir().unwrap();
    for (entries, expected) in [
        ("[{instance: a}]", "give either `kubeconfig` or `metricsFile`"),
        (
            "[{instance: a, metricsFile: x}, {instance: a, metricsFile: x}]",
            "c/a stands here twice",
        ),
    ] {
        let config = folder.path().join("kaudit.yaml");
        std::fs::write(
            &config,
            format!(
                "apiVersion: kaudit.dev/v1alpha1\nkind: Config\ncluster: c\ndataDir: {}\ncollect:\n  files: [{{instance: a, \
                 path: /none}}]\n  completeness: {entries}\n",
                folder.path().join("data").display()
            ),
        )
        .unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_kaudit"))
            .args(["run", "--role", "collect", "--config"])
            .arg(&config)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains("collect.completeness") && said.contains(expected),
            "{said}"
        );
    }
}
