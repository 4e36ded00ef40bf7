//! A place where `kaudit run --role collect` lives, and the process that lives there.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Request;
use http_body_util::{BodyExt as _, Full};
use kaudit_dial::{Cluster, Identity, OutgoingBody, Pem, Trust, Upstream};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustix::process::{Pid, Signal, kill_process};

use crate::scale::until;

/// How long a start or an end may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What is said of a file was so within this time, unless the process does not run.
const REPORT_STANDS: Duration = Duration::from_millis(300);

/// Lines of a process' log that are kept for failures.
const LINES: usize = 200;

/// What differs from test to test.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// `journal.maxSize`, a segment has an eighth of it.
    pub(crate) journal: &'static str,
    /// `journal.minFree`.
    pub(crate) min_free: &'static str,
    /// Log files, each with its cluster.
    pub(crate) files: Vec<(String, PathBuf)>,
    /// `store`; with it the process has that role too.
    pub(crate) store: Option<&'static str>,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            journal: "2Gi",
            min_free: "64Mi",
            files: Vec::new(),
            store: None,
        }
    }
}

/// Certificates, a configuration and a data directory.
#[derive(Debug)]
pub(crate) struct Place {
    folder: tempfile::TempDir,
    pub(crate) data: PathBuf,
    cluster: Cluster,
    roles: &'static str,
}

impl Place {
    pub(crate) fn new(setting: &Setting) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        Self::with_data(folder, data, setting)
    }

    /// With its data elsewhere.
    pub(crate) fn with_data(folder: tempfile::TempDir, data: PathBuf, setting: &Setting) -> Self {
        let authority = authority();
        let (certificate, key) = issue(&authority, "kaudit");
        let (client_certificate, client_key) = issue(&authority, "sender");
        let file = |name: &str| folder.path().join(name).display().to_string();
        for (name, content) in [("crt", &certificate), ("key", &key), ("ca", &authority.pem())] {
            std::fs::write(file(name), content).unwrap();
        }
        let mut config = format!(
            "apiVersion: kaudit.dev/v1alpha1\nkind: Config\ncluster: c\ndataDir: {}\n\
             collect:\n  webhook:\n    listen: 127.0.0.1:0\n    \
             tls: {{certFile: {}, keyFile: {}, clientCAFile: {}}}\n    \
             sources: [{{cluster: \"*\", certificateName: sender}}]\n",
            data.display(),
            file("crt"),
            file("key"),
            file("ca")
        );
        if !setting.files.is_empty() {
            config.push_str("  files:\n");
        }
        for (cluster, path) in &setting.files {
            writeln!(
                config,
                "  - {{cluster: {cluster}, instance: i, path: {}}}",
                path.display()
            )
            .unwrap();
        }
        writeln!(
            config,
            "journal: {{maxSize: {}, minFree: {}}}",
            setting.journal, setting.min_free
        )
        .unwrap();
        if let Some(store) = setting.store {
            writeln!(config, "store: {store}").unwrap();
        }
        config.push_str("metrics: {listen: 127.0.0.1:0}\napi: {listen: 127.0.0.1:0}\n");
        std::fs::write(file("config"), config).unwrap();
        let mut cluster = Cluster::new(
            "https://127.0.0.1".parse().unwrap(),
            Trust::Authorities(Pem::Inline(authority.pem().into_bytes())),
        );
        cluster.identity = Some(Identity {
            certificate: Pem::Inline(client_certificate.into_bytes()),
            key: Pem::Inline(client_key.into_bytes()),
        });
        Self {
            folder,
            data,
            cluster,
            roles: if setting.store.is_some() {
                "collect,store"
            } else {
                "collect"
            },
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Connections to the receiver at `address`, as a sender with a certificate has them.
    pub(crate) fn sender(&self, address: SocketAddr) -> Upstream {
        sender(&self.cluster, address)
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A process that may not live until it serves.
    pub(crate) fn spawn(&self) -> Spawned {
        self.spawn_under(&[])
    }

    /// The same under another program, which takes the command behind its own arguments.
    pub(crate) fn spawn_under(&self, program: &[String]) -> Spawned {
        let binary = env!("CARGO_BIN_EXE_kaudit").to_owned();
        let mut words = program.to_vec();
        words.push(binary);
        words.extend(["run", "--role", self.roles, "-c"].map(str::to_owned));
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .arg(self.path("config"))
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (line, lines) = std::sync::mpsc::sync_channel(16);
        let said = Said::default();
        let keep = said.clone();
        std::thread::spawn(move || {
            let mut is_serving = false;
            for text in stderr.lines().map_while(Result::ok) {
                keep.push(&text);
                if !is_serving && text.contains(" serving ") {
                    is_serving = true;
                    // Whoever killed it early does not listen.
                    drop(line.send(text));
                }
            }
        });
        Spawned {
            child: Some(child),
            lines,
            said,
            data: self.data.clone(),
        }
    }

    pub(crate) fn start(&self) -> Process {
        match self.spawn().serve() {
            Ok(process) => process,
            Err((status, said)) => panic!("it does not serve: {status}:\n{}", said.text()),
        }
    }
}

/// What a process wrote to its log last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said(Arc<Mutex<VecDeque<String>>>);

impl Said {
    fn push(&self, text: &str) {
        let mut lines = self.0.lock().unwrap();
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(text.to_owned());
    }

    pub(crate) fn text(&self) -> String {
        let lines: Vec<String> = self.0.lock().unwrap().iter().cloned().collect();
        lines.join("\n")
    }
}

/// A process that may serve one day.
#[derive(Debug)]
pub(crate) struct Spawned {
    child: Option<Child>,
    lines: Receiver<String>,
    said: Said,
    data: PathBuf,
}

impl Spawned {
    /// Waits until it serves or has ended.
    pub(crate) fn serve(mut self) -> Result<Process, (ExitStatus, Said)> {
        let said = self.said.clone();
        let serving = match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("it neither serves nor ends:\n{}", said.text()),
            Err(RecvTimeoutError::Disconnected) => {
                let mut child = self.child.take().unwrap();
                return Err((child.wait().unwrap(), said));
            }
        };
        let address = |key: &str| {
            let pair = serving.split_whitespace().find_map(|word| word.strip_prefix(key));
            pair.unwrap_or_else(|| panic!("no {key} in {serving}"))
                .parse()
                .unwrap()
        };
        Ok(Process {
            collector: address("collector="),
            metrics: address("metrics="),
            api: address("api="),
            child: self.child.take().unwrap(),
            data: self.data.clone(),
            said,
        })
    }

    pub(crate) fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A process that serves.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) said: Said,
    pub(crate) collector: SocketAddr,
    metrics: SocketAddr,
    api: SocketAddr,
    data: PathBuf,
}

impl Process {
    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// SIGTERM and the end, however it comes.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.wait().unwrap()
    }

    /// SIGTERM and an end in order.
    pub(crate) fn stop(self) {
        let said = self.said.clone();
        let status = self.terminate();
        assert!(status.success(), "{status}:\n{}", said.text());
    }

    /// A page of the metrics port.
    pub(crate) fn page(&self, target: &str) -> String {
        try_get(self.metrics, target, None).expect("an answer of the metrics port")
    }

    /// The sum of a metric over those of its labels that hold `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.page("/metrics");
        let values = text
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
            .filter_map(|rest| rest.rsplit_once(' '));
        values.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
    }

    /// What the API says of sources and the journal.
    pub(crate) fn sources(&self) -> serde_json::Value {
        self.try_sources().expect("an answer of the API")
    }

    fn try_sources(&self) -> Option<serde_json::Value> {
        let token = std::fs::read_to_string(self.data.join("token")).unwrap();
        let text = try_get(self.api, "/api/v1/sources", Some(token.trim()))?;
        Some(serde_json::from_str(&text).unwrap())
    }

    /// Whether every log file was read to its end.
    pub(crate) fn has_read_all(&self) -> bool {
        has_read_all(&self.sources())
    }

    /// Waits for that. A report that was made before the file was rotated may name the length that the next one has
    /// by now, so it must be said for longer than a report stands.
    pub(crate) fn wait_until_read(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut since = None;
        loop {
            let now = Instant::now();
            since = self.has_read_all().then(|| since.unwrap_or(now));
            if since.is_some_and(|since| now - since > REPORT_STANDS) {
                return;
            }
            assert!(
                now < deadline,
                "the log is not read: {:#}\n{}",
                self.sources(),
                self.said.text()
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// The same of a process that may have ended.
    pub(crate) fn try_has_read_all(&self) -> bool {
        self.try_sources().is_some_and(|sources| has_read_all(&sources))
    }

    /// Memory that is resident now and at most so far, in bytes.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let number = line.trim().trim_end_matches(" kB");
            number.parse::<u64>().unwrap() * 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// The thread with this name, which it gives itself when it first runs.
    pub(crate) fn thread(&self, name: &str) -> u32 {
        let mut found = None;
        until("the thread is there", PATIENCE, || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
            found = tasks.map(Result::unwrap).find(|task| {
                let comm = std::fs::read_to_string(task.path().join("comm"));
                comm.is_ok_and(|comm| comm.trim() == name)
            });
            found.is_some()
        });
        found.unwrap().file_name().to_str().unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is over already where the test went well.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether a process ended by SIGKILL.
pub(crate) fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}

pub(crate) fn sender(cluster: &Cluster, address: SocketAddr) -> Upstream {
    let mut cluster = cluster.clone();
    cluster.server = format!("https://{address}").parse().unwrap();
    Upstream::new(&cluster, true).unwrap()
}

/// What a sender was told: a status, and what stands in `Retry-After`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
}

/// Posts a list; `None` when there was no answer.
pub(crate) async fn post(sender: &Upstream, cluster: &str, list: bytes::Bytes) -> Option<Told> {
    let request = Request::post(format!("/v1/audit/{cluster}/i?timeout=30s"))
        .header("content-type", "application/json")
        .header("content-length", list.len())
        .body(body(list))
        .unwrap();
    let response = sender.send(request).await.ok()?;
    let status = response.status().as_u16();
    let retry_after = response.headers().get("retry-after");
    let retry_after = retry_after.map(|value| value.to_str().unwrap().to_owned());
    response.into_body().collect().await.ok()?;
    Some(Told { status, retry_after })
}

fn body(bytes: bytes::Bytes) -> OutgoingBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// The offset decides: what is said of a file may be a moment old.
fn has_read_all(sources: &serde_json::Value) -> bool {
    let items = sources["items"].as_array().unwrap();
    items
        .iter()
        .filter(|item| item["transport"] == "file")
        .all(|item| {
            let value = |key: &str| {
                let pairs = item["tail"].as_array()?;
                pairs.iter().find(|pair| pair[0] == key)?[1].as_str()
            };
            let length = std::fs::metadata(item["path"].as_str().unwrap()).map_or(0, |file| file.len());
            let end = format!(" at byte {length}");
            item["problem"].is_null()
                && value("behind").is_none()
                && value("backups").is_none()
                && value("file").is_some_and(|file| file.ends_with(&end))
        })
}

fn try_get(address: SocketAddr, target: &str, token: Option<&str>) -> Option<String> {
    let cluster = Cluster::new(format!("http://{address}").parse().unwrap(), Trust::Public);
    let mut request = Request::get(target);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(body(bytes::Bytes::new())).unwrap();
    let answer = runtime().block_on(async {
        let response = Upstream::new(&cluster, false).unwrap().send(request).await.ok()?;
        Some(response.into_body().collect().await.ok()?.to_bytes())
    })?;
    Some(String::from_utf8(answer.to_vec()).unwrap())
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "senders");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, PEM.
fn issue(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> (String, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// A copy of a folder and all in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
