//! A gateway on a socket that outlives it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::dev::{Dev, events};

const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";

const CLIENTS: usize = 8;

/// What every gateway of a test has in common.
struct Setting {
    dev: Dev,
    folder: tempfile::TempDir,
    token: String,
    certificate: CertificateDer<'static>,
}

impl Setting {
    fn new() -> Self {
        let dev = Dev::start(&["--no-traffic"]);
        let folder = tempfile::tempdir().unwrap();
        let mut kubeconfig: Value =
            serde_json::from_slice(&std::fs::read(&dev.ready["kubeconfig"]).unwrap()).unwrap();
        let token = kubeconfig["users"][0]["user"]["token"]
            .as_str()
            .unwrap()
            .to_owned();
        kubeconfig["clusters"][0]["cluster"]["server"] = dev.ready["sandbox"].clone().into();
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        for (name, content) in [
            ("upstream", kubeconfig.to_string()),
            ("policy", POLICY.to_owned()),
            ("crt", own.cert.pem()),
            ("key", own.signing_key.serialize_pem()),
        ] {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        Self {
            dev,
            folder,
            token,
            certificate: own.cert.der().clone(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A gateway with these sockets; a shell knows the number that the process will have.
    fn command(&self, log: &Path, socket: OwnedFd, names: &str) -> Command {
        let mut command = Command::new("sh");
        let script = "exec 3<&0 0</dev/null; export LISTEN_PID=$$; exec \"$@\"";
        command
            .args(["-c", script, "sh", env!("CARGO_BIN_EXE_kaudit"), "run"])
            .args(["--role", "gateway", "--metrics-listen", "127.0.0.1:0"])
            .arg("--upstream-kubeconfig")
            .arg(self.path("upstream"))
            .arg("--tls-cert-file")
            .arg(self.path("crt"))
            .arg("--tls-private-key-file")
            .arg(self.path("key"))
            .arg("--audit-policy-file")
            .arg(self.path("policy"))
            .arg("--audit-log-path")
            .arg(log)
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", names)
            .stdin(Stdio::from(socket))
            .stderr(Stdio::piped());
        command
    }

    /// Starts a gateway and waits until it serves.
    fn start(&self, log: &Path, socket: &TcpListener) -> Gateway {
        let socket = OwnedFd::from(socket.try_clone().unwrap());
        let mut child = self
            .command(log, socket, "kaudit-gateway.socket")
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (line, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for text in stderr.lines().map_while(Result::ok) {
                // The test may have seen enough.
                drop(line.send(text));
            }
        });
        let mut said = Vec::new();
        loop {
            match lines.recv_timeout(Duration::from_secs(60)) {
                Ok(text) if text.contains(" serving ") => break,
                Ok(text) => said.push(text),
                Err(_) => panic!("it does not serve:\n{}", said.join("\n")),
            }
        }
        Gateway { child, lines }
    }

    fn refused(&self, socket: OwnedFd, names: &str) -> String {
        let Output { status, stderr, .. } = self.command(&self.path("log"), socket, names).output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(2), "{said}");
        said
    }
}

struct Gateway {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Gateway {
    fn terminate(&self) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status();
        assert!(status.unwrap().success());
    }

    fn wait(mut self) {
        let status = self.child.wait().unwrap();
        let said: Vec<String> = self.lines.iter().collect();
        assert!(status.success(), "{status}:\n{}", said.join("\n"));
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It is over already where the test went well.
        drop(self.child.kill());
    }
}

/// Clients that keep their connections and ask without a pause.
struct Clients {
    address: SocketAddr,
    tls: TlsConnector,
    token: String,
    sent: AtomicUsize,
    stop: CancellationToken,
}

impl Clients {
    fn new(setting: &Setting, address: SocketAddr) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(setting.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            address,
            tls: TlsConnector::from(Arc::new(tls)),
            token: setting.token.clone(),
            sent: AtomicUsize::new(0),
            stop: CancellationToken::new(),
        }
    }

    async fn connect(&self, connections: &mut tokio::task::JoinSet<()>) -> SendRequest<Empty<Bytes>> {
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = self.tls.connect(name, stream).await.unwrap();
        let (requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        connections.spawn(async move {
            // What goes wrong is the request's to say.
            drop(connection.await);
        });
        requests
    }

    /// Asks until told to stop; returns how many connections that took.
    async fn run(&self) -> usize {
        let mut connections = tokio::task::JoinSet::new();
        let mut count = 0;
        let mut kept = None;
        while !self.stop.is_cancelled() {
            let mut requests = match kept.take() {
                Some(requests) => requests,
                None => {
                    count += 1;
                    self.connect(&mut connections).await
                }
            };
            let number = self.sent.fetch_add(1, Ordering::Relaxed);
            let request = Request::get("/api/v1/namespaces/default/configmaps")
                .header("host", "gateway")
                .header("authorization", format!("Bearer {}", self.token))
                .header("audit-id", format!("request-{number}"))
                .body(Empty::new())
                .unwrap();
            let response = requests.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            let ends = response
                .headers()
                .get(header::CONNECTION)
                .is_some_and(|value| value == "close");
            response.into_body().collect().await.unwrap();
            if !ends {
                requests.ready().await.unwrap();
                kept = Some(requests);
            }
        }
        count
    }

    /// Waits until so many more requests were sent.
    fn more(&self, count: usize) {
        let wanted = self.sent.load(Ordering::Relaxed) + count;
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.sent.load(Ordering::Relaxed) < wanted {
            assert!(Instant::now() < deadline, "nothing is answered any more");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// How many final events each request has.
fn finals(logs: &[PathBuf]) -> BTreeMap<String, usize> {
    let mut finals = BTreeMap::new();
    for event in logs.iter().flat_map(|log| events(log)) {
        if ["ResponseComplete", "Panic"].contains(&event["stage"].as_str().unwrap()) {
            *finals
                .entry(event["auditID"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
    }
    finals
}

#[test]
fn p10_a_restart_under_load_fails_no_request_and_each_has_one_final_event() {
    let setting = Setting::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let logs = ["first", "second", "third"].map(|name| setting.path(name));
    let mut gateway = setting.start(&logs[0], &socket);
    let clients = Arc::new(Clients::new(&setting, socket.local_addr().unwrap()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let clients = Arc::clone(&clients);
        running.spawn_on(async move { clients.run().await }, runtime.handle());
    }
    for log in &logs[1..] {
        clients.more(200);
        gateway.terminate();
        let next = setting.start(log, &socket);
        std::mem::replace(&mut gateway, next).wait();
    }
    clients.more(200);
    clients.stop.cancel();
    let mut connections = 0;
    while let Some(ended) = runtime.block_on(running.join_next()) {
        connections += ended.expect("no request fails");
    }
    for log in &logs {
        assert!(!events(log).is_empty(), "each gateway had its part");
    }
    gateway.terminate();
    gateway.wait();
    let sent = clients.sent.load(Ordering::Relaxed);
    let finals = finals(&logs);
    let expected: BTreeMap<String, usize> =
        (0..sent).map(|number| (format!("request-{number}"), 1)).collect();
    assert!(finals == expected, "{} of {sent}", finals.len());
    println!("{sent} requests over {connections} connections");
    drop(setting.dev.interrupt());
}

#[test]
fn what_cannot_be_listened_on_is_a_usage_error_that_says_what_to_write() {
    let setting = Setting::new();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let said = setting.refused(udp.into(), "gateway");
    assert!(
        said.contains("the socket `gateway` that was handed over"),
        "{said}"
    );
    assert!(said.contains("write ListenStream="), "{said}");
    let listener = || TcpListener::bind("127.0.0.1:0").unwrap().into();
    let said = setting.refused(listener(), "gatewy");
    assert!(said.contains("a socket `gatewy` was handed over"), "{said}");
    let said = setting.refused(listener(), "collect");
    assert!(said.contains("have no listener `collect`"), "{said}");
}
