//! A running `kaudit dev`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Port bases are handed out so that tests of one process never meet.
static NEXT_BASE: AtomicU16 = AtomicU16::new(0);

pub(crate) struct Dev {
    child: Child,
    pub(crate) ready: BTreeMap<String, String>,
    pub(crate) dir: tempfile::TempDir,
}

impl Dev {
    /// Starts `kaudit dev` on free ports with its data in a temporary directory, and waits for its
    /// ready line.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let base = free_base();
        let mut child = Command::new(env!("CARGO_BIN_EXE_kaudit"))
            .args(["dev", "--port-base", &base.to_string(), "--data-dir"])
            .arg(dir.path().join("data"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (line, lines) = mpsc::channel();
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let from_stdout = line.clone();
        std::thread::spawn(move || forward(stdout, &from_stdout));
        std::thread::spawn(move || forward(stderr, &line));
        let mut seen = Vec::new();
        let ready = loop {
            match lines.recv_timeout(START) {
                Ok(line) => match line.strip_prefix("kaudit ready: ") {
                    Some(pairs) => break pairs.to_owned(),
                    None => seen.push(line),
                },
                Err(_) => panic!("no ready line; the program said:\n{}", seen.join("\n")),
            }
        };
        // The pipes are read for as long as the child lives, so that it never blocks on them.
        std::thread::spawn(move || lines.iter().for_each(drop));
        let ready = ready
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Self { child, ready, dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    /// Sends SIGINT as Ctrl-C does and waits for the end.
    pub(crate) fn interrupt(self) -> (std::process::ExitStatus, tempfile::TempDir) {
        self.end("-INT")
    }

    /// Sends SIGTERM as a supervisor does and waits for the end.
    pub(crate) fn terminate(self) -> (std::process::ExitStatus, tempfile::TempDir) {
        self.end("-TERM")
    }

    fn end(mut self, signal: &str) -> (std::process::ExitStatus, tempfile::TempDir) {
        let status = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(status.expect("kill runs").success());
        let status = self.child.wait().expect("the child can be awaited");
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().expect("a temporary directory"));
        (status, dir)
    }

    /// Runs kubectl as one of the demo users.
    pub(crate) fn kubectl(&self, context: &str, arguments: &[&str]) -> Output {
        Command::new("kubectl")
            .env("KUBECONFIG", self.path("kubeconfig"))
            .env("HOME", self.dir.path())
            .args(["--context", context])
            .args(arguments)
            .output()
            .expect("kubectl runs")
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn forward(from: impl std::io::Read, to: &mpsc::Sender<String>) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        if to.send(line).is_err() {
            return;
        }
    }
}

/// Five neighbouring ports that nobody listens on.
fn free_base() -> u16 {
    let process = u16::try_from(std::process::id() % 300).expect("below 300");
    loop {
        let base = 20_000 + (process * 60 + NEXT_BASE.fetch_add(5, Ordering::Relaxed)) % 40_000;
        if (base..base + 5).all(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return base;
        }
    }
}

/// The events of an audit log.
pub(crate) fn events(path: &Path) -> Vec<Value> {
    let log = std::fs::read(path).expect("the log can be read");
    log.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("a line is JSON"))
        .collect()
}

/// Whether kubectl is on PATH; CI makes sure that it is and that the tests ran.
pub(crate) fn kubectl_is_missing() -> bool {
    let missing = Command::new("kubectl")
        .args(["version", "--client"])
        .output()
        .is_err();
    if missing {
        println!("kubectl is not on PATH: nothing to prove here");
    }
    missing
}
