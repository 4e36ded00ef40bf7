//! What it costs to take events in durably: through a log file, through HTTPS, and how long an acknowledgement
//! takes, beside what the disk itself needs in the same run.
//!
//! The collector is the real binary in a process of its own; its CPU time is read from the kernel, so the senders'
//! does not count. `KAUDIT_BENCH_EVENTS` sets how many events each part has (default 400000), `KAUDIT_BENCH_DIR`
//! where the data lies (default the system's folder for temporary files).

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the inputs are ours, and figures are for people"
)]

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, header};
use kaudit_dial::{Client, Cluster, Credential, Pem, Trust};

const TOKEN: &str = "bench-token-0123456789";

/// Events of a posted list, as kube-apiserver's default.
const BATCH: u64 = 400;

fn main() {
    if std::env::args().any(|argument| argument == "--build-only" || argument == "--test") {
        return;
    }
    let events: u64 = std::env::var_os("KAUDIT_BENCH_EVENTS")
        .map_or(400_000, |text| text.to_str().unwrap().parse().unwrap());
    let folder = std::env::var_os("KAUDIT_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder).unwrap();
    let templates = Templates::read();
    println!(
        "{events} events, {:.0} bytes each on average",
        templates.mean_bytes()
    );
    disk(folder.path(), templates.mean_bytes());
    tail(folder.path(), &templates, events);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(https(folder.path(), &templates, events));
    runtime.block_on(latency(folder.path(), &templates));
    println!("disk again:");
    disk(folder.path(), templates.mean_bytes());
}

/// Real events, each cut where its auditID stands.
struct Templates(Vec<(Vec<u8>, Vec<u8>)>);

impl Templates {
    fn read() -> Self {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../testdata/real/mixed.audit.jsonl.zst"
        );
        let log = zstd::decode_all(File::open(path).unwrap()).unwrap();
        let lines = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Self(
            lines
                .filter_map(|line| {
                    let text = std::str::from_utf8(line).unwrap();
                    let at = text.find("\"auditID\":\"").unwrap() + "\"auditID\":\"".len();
                    let end = at + line[at..].iter().position(|byte| *byte == b'"').unwrap();
                    // A client may choose anything; those that the server made have 36 letters.
                    (end - at == 36).then(|| (line[..at].to_vec(), line[end..].to_vec()))
                })
                .collect(),
        )
    }

    fn mean_bytes(&self) -> f64 {
        let sum: usize = self
            .0
            .iter()
            .map(|(before, after)| before.len() + after.len() + 36)
            .sum();
        sum as f64 / self.0.len() as f64
    }

    /// The line of event `number`, without its LF.
    fn push(&self, number: u64, out: &mut Vec<u8>) {
        let (before, after) = &self.0[number as usize % self.0.len()];
        out.extend_from_slice(before);
        out.extend_from_slice(format!("{:08x}-0000-4000-8000-{number:012x}", number >> 20).as_bytes());
        out.extend_from_slice(after);
    }

    /// An EventList of events from `first` on.
    fn list(&self, first: u64, count: u64) -> Bytes {
        let mut list =
            br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
        for number in first..first + count {
            if number > first {
                list.push(b',');
            }
            let mut line = Vec::new();
            self.push(number, &mut line);
            list.push(b'{');
            list.extend_from_slice(
                line.strip_prefix(br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#)
                    .unwrap(),
            );
        }
        list.extend_from_slice(b"]}\n");
        list.into()
    }
}

/// What the disk needs for the writes that a commit makes.
fn disk(folder: &Path, event_bytes: f64) {
    for events in [1, 20, 400] {
        let block = vec![b'x'; (event_bytes * f64::from(events)) as usize];
        let path = folder.join("disk");
        let mut file = File::create(&path).unwrap();
        let mut times = Vec::new();
        for _ in 0..300 {
            file.write_all(&block).unwrap();
            let started = Instant::now();
            file.sync_data().unwrap();
            times.push(started.elapsed());
        }
        let (p50, p99) = percentiles(&mut times);
        println!("disk: write + fdatasync of {events:3} events: fdatasync p50 {p50:?}, p99 {p99:?}");
        std::fs::remove_file(path).unwrap();
    }
}

fn percentiles(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// A collector in a process of its own.
struct Collector {
    child: Child,
    metrics: String,
    cluster: Cluster,
}

impl Collector {
    fn start(folder: &Path, name: &str, max_size: &str, files: &str) -> Self {
        let ports: Vec<TcpListener> = (0..2)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let [listen, metrics] = [0, 1].map(|at: usize| ports[at].local_addr().unwrap());
        drop(ports);
        let issued = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let write = |name: &str, content: &str| std::fs::write(folder.join(name), content).unwrap();
        write("tls.crt", &issued.cert.pem());
        write("tls.key", &issued.signing_key.serialize_pem());
        write("sender.token", TOKEN);
        let root = folder.display();
        write(
            "kaudit.yaml",
            &format!(
                "apiVersion: kaudit.dev/v1alpha1\nkind: Config\ncluster: bench\ndataDir: {root}/{name}\n\
                 metrics: {{listen: '{metrics}'}}\njournal: {{maxSize: {max_size}}}\ncollect:\n  webhook:\n    listen: '{listen}'\n    \
                 tls: {{certFile: {root}/tls.crt, keyFile: {root}/tls.key}}\n    \
                 sources: [{{cluster: bench, tokenFile: {root}/sender.token}}]\n  files: [{files}]\n"
            ),
        );
        let child = Command::new(env!("CARGO_BIN_EXE_kaudit"))
            .args(["run", "--role", "collect", "--config"])
            .arg(folder.join("kaudit.yaml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = format!("https://{listen}").parse().unwrap();
        let mut cluster = Cluster::new(
            server,
            Trust::Authorities(Pem::Inline(issued.cert.pem().into_bytes())),
        );
        cluster.credential = Credential::Token(TOKEN.to_owned());
        let collector = Self {
            child,
            metrics: metrics.to_string(),
            cluster,
        };
        while collector.metric("kaudit_journal_ready").is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        collector
    }

    /// A number of `/metrics`, summed over labels.
    fn metric(&self, name: &str) -> Option<u64> {
        use std::io::Read as _;
        let mut stream = std::net::TcpStream::connect(&self.metrics).ok()?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let values = text
            .lines()
            .filter(|line| line.starts_with(name) && !line.starts_with('#'))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        values.reduce(|sum, value| sum + value)
    }

    /// CPU time of all its threads so far.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    fn most_memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    fn report(&self, what: &str, events: u64, cpu: Duration, wall: Duration) {
        println!(
            "{what}: {:.0} events per CPU-second ({:.2} us each), {:.0} events/s, most memory {} MiB",
            events as f64 / cpu.as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / events as f64,
            events as f64 / wall.as_secs_f64(),
            self.most_memory_mib()
        );
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn tail(folder: &Path, templates: &Templates, events: u64) {
    let log = folder.join("audit.log");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&log).unwrap());
    let mut line = Vec::new();
    for number in 0..events {
        line.clear();
        templates.push(number, &mut line);
        line.push(b'\n');
        file.write_all(&line).unwrap();
    }
    file.into_inner().unwrap().sync_all().unwrap();
    let source = format!("{{instance: cp-1, path: {}}}", log.display());
    let until = |collector: &Collector, count: u64| {
        loop {
            let kept = collector.metric("kaudit_source_events_total").unwrap_or_default();
            if kept >= count {
                return kept;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let started = Instant::now();
    let collector = Collector::start(folder, "tail", "10Gi", &source);
    until(&collector, events);
    collector.report("tail, new journal", events, collector.cpu(), started.elapsed());
    drop(collector);
    std::fs::remove_dir_all(folder.join("tail")).unwrap();
    // What a journal is for most of its life: as large as it may be, old segments written anew.
    let collector = Collector::start(folder, "tail", "256Mi", &source);
    let before = until(&collector, events / 2);
    let (cpu, started) = (collector.cpu(), Instant::now());
    until(&collector, events);
    let cpu = collector.cpu().saturating_sub(cpu);
    collector.report(
        "tail, journal at its bound",
        events - before,
        cpu,
        started.elapsed(),
    );
    drop(collector);
    std::fs::remove_file(log).unwrap();
    std::fs::remove_dir_all(folder.join("tail")).unwrap();
}

async fn post(client: &Client, body: &Bytes) {
    loop {
        let answer = client
            .exchange(1000, |_| {
                Request::post("/v1/audit/bench/cp-1?timeout=30s")
                    .header(header::CONTENT_TYPE, "application/json")
                    .body(body.clone())
                    .unwrap()
            })
            .await
            .unwrap();
        if answer.status == 200 {
            return;
        }
        assert_eq!(answer.status, 429, "{:?}", answer.body);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn https(folder: &Path, templates: &Templates, events: u64) {
    let collector = Collector::start(folder, "https", "10Gi", "");
    let before = collector.cpu();
    let started = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let senders = (0..8).map(|_| {
        let client = Client::new(&collector.cluster).unwrap();
        let next = Arc::clone(&next);
        async move {
            loop {
                let first = next.fetch_add(BATCH, Ordering::Relaxed);
                if first >= events {
                    return;
                }
                post(&client, &templates.list(first, BATCH.min(events - first))).await;
            }
        }
    });
    futures_util::future::join_all(senders).await;
    let wall = started.elapsed();
    collector.report("https", events, collector.cpu() - before, wall);
}

/// 4,000 events a second, one apiserver's most: how long until each list is acknowledged.
async fn latency(folder: &Path, templates: &Templates) {
    for batch in [BATCH, 20] {
        let collector = Collector::start(folder, &format!("latency-{batch}"), "10Gi", "");
        let clients: Vec<Client> = (0..4).map(|_| Client::new(&collector.cluster).unwrap()).collect();
        // A connection's beginning, with its handshake, is not what an apiserver meets every day.
        for (number, client) in (1_000_000..).zip(&clients) {
            post(client, &templates.list(number * batch, batch)).await;
        }
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(batch as f64 / 4000.0));
        let mut sent = tokio::task::JoinSet::new();
        let seconds = 10;
        for number in 0..4000 * seconds / batch {
            ticks.tick().await;
            let client = clients[number as usize % clients.len()].clone();
            let body = templates.list(number * batch, batch);
            sent.spawn(async move {
                let started = Instant::now();
                post(&client, &body).await;
                started.elapsed()
            });
        }
        let mut times: Vec<Duration> = sent.join_all().await;
        let (p50, p99) = percentiles(&mut times);
        println!("ack at 4000 events/s in lists of {batch}: p50 {p50:?}, p99 {p99:?}");
    }
}
