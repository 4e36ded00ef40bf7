//! A running `kaudit run --role collect`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kaudit_event::record::Record;
use kaudit_journal::{Item, Journal, Options};

/// How long anything may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Collector {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    pub(crate) api: String,
    pub(crate) token: PathBuf,
    metrics: String,
}

impl Collector {
    /// Starts in `folder` with `collect` of the configuration, data in `data`; waits until it serves.
    pub(crate) fn start(folder: &Path, collect: &str) -> Self {
        Self::start_as("collect", folder, &format!("collect:\n{collect}"))
    }

    /// The same in other roles, with other sections of the configuration.
    pub(crate) fn start_as(roles: &str, folder: &Path, sections: &str) -> Self {
        let config = folder.join("kaudit.yaml");
        let data = folder.join("data");
        std::fs::write(
            &config,
            format!(
                "apiVersion: kaudit.dev/v1alpha1\nkind: Config\ncluster: c\ndataDir: {}\napi: {{listen: 127.0.0.1:0}}\n\
                 metrics: {{listen: 127.0.0.1:0}}\n{sections}",
                data.display()
            ),
        )
        .unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_kaudit"))
            .args(["run", "--role", roles, "--config"])
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (line, lines) = std::sync::mpsc::channel();
        let said = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&said);
        std::thread::spawn(move || {
            for text in stderr.lines().map_while(Result::ok) {
                keep.lock().unwrap().push(text.clone());
                // The receiver may have seen enough.
                drop(line.send(text));
            }
        });
        let serving = loop {
            let text = lines
                .recv_timeout(LONG)
                .unwrap_or_else(|_| panic!("it does not serve:\n{}", said.lock().unwrap().join("\n")));
            if text.contains(" serving ") {
                break text;
            }
        };
        let address = |key: &str| {
            let pair = serving.split_whitespace().find_map(|word| word.strip_prefix(key));
            pair.unwrap_or_else(|| panic!("no {key} in {serving}")).to_owned()
        };
        Self {
            api: format!("http://{}", address("api=")),
            metrics: address("metrics="),
            token: data.join("token"),
            child,
            said,
        }
    }

    /// Runs a command that asks this process.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kaudit"))
            .args(arguments)
            .args(["--server", &self.api, "--token-file"])
            .arg(&self.token)
            .output()
            .unwrap()
    }

    /// The body of a GET from the port of metrics and health.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.metrics).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.metrics).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The values of a metric by its labels.
    pub(crate) fn metric(&self, name: &str) -> BTreeMap<String, i64> {
        self.get("/metrics")
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '))
            .filter(|(labels, _)| labels.is_empty() || labels.starts_with('{'))
            .map(|(labels, value)| (labels.to_owned(), value.parse().unwrap()))
            .collect()
    }

    pub(crate) fn said(&self, text: &str) -> bool {
        self.said.lock().unwrap().iter().any(|line| line.contains(text))
    }

    /// Waits until it has said so. What it says is read by another thread, and may come behind what it counts.
    pub(crate) fn until_said(&self, text: &str) {
        self.until(text, |collector| collector.said(text));
    }

    /// Waits until something is so.
    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + LONG;
        while !is_so(self) {
            assert!(
                Instant::now() < deadline,
                "{what}: not so after {LONG:?}:\n{}\n{}",
                self.said.lock().unwrap().join("\n"),
                self.get("/metrics")
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// SIGTERM and the end.
    pub(crate) fn stop(mut self) {
        signal(&self.child, "-TERM");
        let status = self.child.wait().unwrap();
        assert!(
            status.success(),
            "{status}:\n{}",
            self.said.lock().unwrap().join("\n")
        );
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It is over already where the test went well.
        drop(self.child.kill());
    }
}

pub(crate) fn signal(child: &Child, signal: &str) {
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args([signal, &id])
            .status()
            .unwrap()
            .success()
    );
}

/// Every record of a journal that nobody has open.
pub(crate) fn records(data: &Path) -> Vec<Record> {
    let (journal, _) = Journal::open(&data.join("journal"), Options::default()).unwrap();
    let mut reader = journal.reader(journal.oldest());
    let mut records = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        let Item::Record { payload, .. } = item else {
            panic!("{item:?}")
        };
        records.push(Record::read(&payload).unwrap());
    }
    journal.close();
    records
}
