//! `kaudit import` as a person meets it, with real logs in every form.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kaudit_event::record::{Record, Transport};
use serde_json::Value;

use crate::collector::{Collector, records, signal};

const REAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/real/");

/// A log of a real kube-apiserver.
fn log(name: &str) -> Vec<u8> {
    let packed = std::fs::read(format!("{REAL}{name}.audit.jsonl.zst")).unwrap();
    zstd::decode_all(packed.as_slice()).unwrap()
}

fn lines(log: &[u8]) -> Vec<&[u8]> {
    log.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect()
}

/// The log in every form that is understood, each in a file whose name says nothing.
fn forms(folder: &Path, log: &[u8]) -> Vec<(&'static str, PathBuf)> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(log).unwrap();
    let mut list = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
    let mut container = Vec::new();
    for (number, line) in lines(log).iter().enumerate() {
        if number > 0 {
            list.push(b',');
        }
        let item = line
            .strip_prefix(br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#)
            .unwrap();
        list.push(b'{');
        list.extend_from_slice(item);
        let mut parts = line.chunks(16 << 10).peekable();
        while let Some(part) = parts.next() {
            let tag = if parts.peek().is_some() { "P" } else { "F" };
            write!(container, "2026-11-23T18:57:11.148511000Z stdout {tag} ").unwrap();
            container.extend_from_slice(part);
            container.push(b'\n');
        }
    }
    list.extend_from_slice(b"]}\n");
    let forms = [
        ("lines", log.to_vec()),
        ("gzip", gzip.finish().unwrap()),
        ("zstd", zstd::encode_all(log, 1).unwrap()),
        ("list", list),
        ("container", container),
    ];
    let written = forms.map(|(name, content)| {
        let path = folder.join(format!("{name}.bin"));
        std::fs::write(&path, content).unwrap();
        (name, path)
    });
    written.into()
}

fn import(data: &Path, cluster: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args(["import", "--cluster", cluster, "--instance", "cp-1", "--data-dir"])
        .arg(data)
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn assert_said(output: &Output, code: i32, stdout: &str) {
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(code), stdout),
        "{}",
        text(&output.stderr)
    );
}

fn assert_same(records: &[Record], cluster: &str, log: &[u8], what: &str) {
    let of_cluster: Vec<&Record> = records
        .iter()
        .filter(|record| record.cluster == cluster)
        .collect();
    let expected = lines(log);
    assert_eq!(of_cluster.len(), expected.len(), "{what}");
    for (record, line) in of_cluster.iter().zip(expected) {
        assert_eq!(text(&record.event), text(line), "{what}");
        assert_eq!(record.event, line, "{what}");
        assert_eq!(
            (record.source.as_str(), record.instance.as_str(), record.transport),
            ("file:import", "cp-1", Transport::File)
        );
        assert!(record.tail.as_ref().unwrap().file.contains(what));
    }
}

#[test]
fn every_form_of_a_real_log_is_kept_byte_for_byte_offline() {
    let folder = tempfile::tempdir().unwrap();
    let log = log("mixed");
    let count = lines(&log).len();
    let data = folder.path().join("data");
    let forms = forms(folder.path(), &log);
    for (name, path) in &forms {
        let path = path.to_str().unwrap();
        let done = import(&data, name, &[path]);
        let expected = format!("{path}: {count} events kept, 0 here already, 0 in quarantine\n");
        assert_said(&done, 0, &expected);
    }
    let records = records(&data);
    for (name, _) in forms {
        assert_same(&records, name, &log, name);
    }
}

#[test]
fn every_form_of_a_real_log_is_kept_byte_for_byte_by_a_running_process() {
    let folder = tempfile::tempdir().unwrap();
    let log = log("mixed");
    let count = lines(&log).len();
    let forms = forms(folder.path(), &log);
    let collector = start(folder.path());
    for (name, path) in &forms {
        let path = path.to_str().unwrap();
        let arguments = ["import", "--cluster", name, "--instance", "cp-1", path];
        let expected = format!("{path}: {count} events kept, 0 here already, 0 in quarantine\n");
        assert_said(&collector.ask(&arguments), 0, &expected);
        let expected = format!("{path}: imported before, nothing was done; --again reads it all the same\n");
        assert_said(&collector.ask(&arguments), 0, &expected);
    }
    let status: Value =
        serde_json::from_slice(&collector.ask(&["source", "status", "-o", "json"]).stdout).unwrap();
    let rows = status["items"].as_array().unwrap();
    let imported: Vec<&Value> = rows.iter().filter(|row| row["path"] == "import").collect();
    assert_eq!(imported.len(), forms.len());
    assert!(
        imported
            .iter()
            .all(|row| row["events"] == count && row["problem"].is_null())
    );
    collector.stop();
    let records = records(&folder.path().join("data"));
    for (name, _) in forms {
        assert_same(&records, name, &log, name);
    }
}

fn start(folder: &Path) -> Collector {
    let collect = format!(
        "  files: [{{instance: other, path: {}/none.log}}]\n",
        folder.display()
    );
    Collector::start(folder, &collect)
}

#[test]
fn a_log_that_is_imported_twice_is_here_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = log("rr-all");
    let count = lines(&log).len();
    let data = folder.path().join("data");
    let forms = forms(folder.path(), &log);
    let path = |name: &str| {
        let (_, path) = forms.iter().find(|(form, _)| *form == name).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (plain, gzip, list) = (path("lines"), path("gzip"), path("list"));
    let kept = |path: &str, new: usize, old: usize| {
        format!("{path}: {new} events kept, {old} here already, 0 in quarantine\n")
    };
    assert_said(&import(&data, "c", &[&plain]), 0, &kept(&plain, count, 0));
    // The same text in another file is the same, another text with the same events is read.
    let both = import(&data, "c", &[&gzip, &list]);
    let expected = format!(
        "{gzip}: imported before, nothing was done; --again reads it all the same\n{}",
        kept(&list, 0, count)
    );
    assert_said(&both, 0, &expected);
    assert_said(
        &import(&data, "c", &["--again", &gzip]),
        0,
        &kept(&gzip, 0, count),
    );
    // For another cluster they are other events.
    assert_said(&import(&data, "d", &[&plain]), 0, &kept(&plain, count, 0));
    let records = records(&data);
    assert_same(&records, "c", &log, "lines");
    assert_same(&records, "d", &log, "lines");
}

#[test]
fn what_is_no_event_lies_in_quarantine_and_what_cannot_be_read_keeps_nothing_out() {
    let folder = tempfile::tempdir().unwrap();
    let log = log("mixed");
    let count = lines(&log).len();
    let data = folder.path().join("data");
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = file("good", &log);
    let garbage = file(
        "garbage",
        b"nothing of this\n{\"kind\":\"Pod\"}\n{\"kind\":\"Event\",\"auditID\"",
    );
    let whole = zstd::encode_all(log.as_slice(), 1).unwrap();
    let damaged = file("damaged", &whole[..whole.len() / 2]);
    let missing = folder.path().join("missing").to_str().unwrap().to_owned();

    let done = import(&data, "c", &[&garbage]);
    let expected = format!("{garbage}: 0 events kept, 0 here already, 3 in quarantine\n");
    assert_said(&done, 1, &expected);
    let quarantined: Vec<u8> = std::fs::read_dir(data.join("quarantine"))
        .unwrap()
        .flat_map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    for piece in [
        "\nnothing of this\n",
        "\n{\"kind\":\"Pod\"}\n",
        "\n{\"kind\":\"Event\",\"auditID\"\n",
    ] {
        assert!(
            text(&quarantined).contains(piece),
            "{piece}: {}",
            text(&quarantined)
        );
    }

    let done = import(&data, "c", &["-o", "json", &missing, &damaged, &good]);
    assert_eq!(done.status.code(), Some(3));
    assert!(
        text(&done.stderr).contains("missing: cannot be read"),
        "{}",
        text(&done.stderr)
    );
    assert!(
        text(&done.stderr).contains("damaged: cannot be unpacked"),
        "{}",
        text(&done.stderr)
    );
    let rows: Value = serde_json::from_slice(&done.stdout).unwrap();
    let of = |number: usize, key: &str| rows["items"][number][key].clone();
    assert_eq!((of(0, "outcome"), of(0, "events")), ("failed".into(), 0.into()));
    assert_eq!(
        (of(1, "outcome"), of(2, "outcome")),
        ("failed".into(), "imported".into())
    );
    let before = usize::try_from(of(1, "events").as_u64().unwrap()).unwrap();
    assert_eq!(
        usize::try_from(of(2, "events").as_u64().unwrap()).unwrap(),
        count - before
    );
    assert_eq!(records(&data).len(), count);
}

#[test]
fn a_data_directory_in_use_is_imported_into_through_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    std::fs::write(&log, "").unwrap();
    let collector = start(folder.path());
    let done = import(&folder.path().join("data"), "c", &[log.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(3));
    let said = text(&done.stderr);
    assert!(
        said.contains("--server URL --token-file") || said.contains("with --server URL and"),
        "{said}"
    );
    assert!(said.contains("in use by process"), "{said}");
    // Nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args([
            "import",
            "--cluster",
            "c",
            "--instance",
            "i",
            "--server",
            &format!("http://{free}"),
        ])
        .arg("--token-file")
        .arg(&collector.token)
        .arg(&log)
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(3), "{}", text(&done.stderr));
    let bad = collector.ask(&["import", "--cluster", "a/b", "--instance", "i", "-"]);
    assert_eq!(bad.status.code(), Some(2));
    collector.stop();
}

#[test]
fn an_interrupted_import_of_standard_input_keeps_what_it_had_and_is_finished_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let log = log("rr-all");
    let data = folder.path().join("data");
    let mut child = Command::new(env!("CARGO_BIN_EXE_kaudit"))
        .args([
            "import",
            "--cluster",
            "c",
            "--instance",
            "cp-1",
            "-",
            "--data-dir",
        ])
        .arg(&data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Nearly all of it was read when this returns; the end is not told.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&log).unwrap();
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("interrupted, run it again to finish"));
    let kept = records(&data);
    assert!(
        kept.iter()
            .zip(lines(&log))
            .all(|(record, line)| record.event == line)
    );

    let (_, lines_file) = forms(folder.path(), &log).remove(0);
    let done = import(&data, "c", &[lines_file.to_str().unwrap()]);
    let count = lines(&log).len();
    let expected = format!(
        "{}: {} events kept, {} here already, 0 in quarantine\n",
        lines_file.display(),
        count - kept.len(),
        kept.len()
    );
    assert_said(&done, 0, &expected);
    assert_eq!(records(&data).len(), count);
}
