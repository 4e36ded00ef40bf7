//! A receiver with a journal in memory, certificates, and clients.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, header};
use kaudit_collect::{
    Access, Credential, Grant, Intake, IntakeOptions, Keys, Origin, Quarantine, Receiver, ReceiverOptions,
    Way,
};
use kaudit_dial::{Answer, Client, ClientError, Cluster, Identity, Pem, Trust};
use kaudit_event::record::Record;
use kaudit_journal::filesystem::simulated::SimulatedDisk;
use kaudit_journal::{Item, Journal, Options};
use kaudit_listen::{ClientCertificates, ListenConfig, Listener, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const TOKEN: &str = "a-token-of-the-apiserver";

/// Certificates of one authority.
pub(crate) struct Authority(pub(crate) CertifiedIssuer<'static, KeyPair>);

#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn issue(&self, name: &str) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A kaudit that receives.
pub(crate) struct Central {
    pub(crate) authority: Arc<Authority>,
    pub(crate) disk: SimulatedDisk,
    pub(crate) intake: Intake,
    pub(crate) receiver: Receiver,
    pub(crate) access: Arc<ArcSwap<Access>>,
    pub(crate) address: SocketAddr,
    pub(crate) tls: ServerTls,
    /// The file of those who sign senders' certificates.
    pub(crate) senders: PathBuf,
    folder: tempfile::TempDir,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What a central kaudit is made of.
pub(crate) struct Plan {
    pub(crate) journal: Options,
    pub(crate) receiver: ReceiverOptions,
    pub(crate) disk: SimulatedDisk,
    pub(crate) authority: Arc<Authority>,
    pub(crate) address: SocketAddr,
}

impl Plan {
    pub(crate) fn new() -> Self {
        Self {
            journal: journal_options(),
            receiver: ReceiverOptions::default(),
            disk: SimulatedDisk::new(3),
            authority: Arc::new(Authority::new()),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }

    pub(crate) async fn start(self) -> Central {
        let folder = tempfile::tempdir().unwrap();
        let intake = intake(&self.disk, self.journal, folder.path());
        let access = Arc::new(ArcSwap::from_pointee(Access::new(vec![
            grant("prod", "*", certificate("apiserver")),
            grant("dev", "cp-1", token(TOKEN)),
        ])));
        let receiver = Receiver::new(intake.clone(), Arc::clone(&access), self.receiver);
        let pair = self.authority.issue("kaudit");
        let senders = folder.path().join("senders.pem");
        std::fs::write(&senders, self.authority.0.pem()).unwrap();
        let clients = ClientCertificates::AskedByFile(senders.clone());
        let tls = ServerTls::from_pem(pair.certificate.as_bytes(), pair.key.as_bytes(), &clients).unwrap();
        let listener = Listener::bind(ListenConfig::https(self.address, tls.clone()))
            .await
            .unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let address = listener.local_addr();
        tasks.spawn(receiver.clone().serve(listener, stop.clone(), Duration::ZERO));
        Central {
            authority: self.authority,
            disk: self.disk,
            intake,
            receiver,
            access,
            address,
            tls,
            senders,
            folder,
            stop,
            tasks,
        }
    }
}

pub(crate) fn journal_options() -> Options {
    let mut options = Options::default();
    options.segment_bytes = 1 << 20;
    options.max_bytes = 64 << 20;
    options.reserve_bytes = 0;
    options.min_free_bytes = 0;
    options.linger = Duration::from_millis(1);
    options
}

pub(crate) fn intake(disk: &SimulatedDisk, options: Options, folder: &Path) -> Intake {
    let (journal, _) = Journal::open_on(disk.clone(), Path::new("/journal"), options).unwrap();
    let quarantine = Quarantine::open(&folder.join("quarantine"), 64 << 20).unwrap();
    Intake::new(journal, Keys::new([9; 32]), quarantine, IntakeOptions::default()).unwrap()
}

pub(crate) fn grant(cluster: &str, instance: &str, credential: Credential) -> Grant {
    Grant {
        cluster: cluster.parse().unwrap(),
        instance: instance.parse().unwrap(),
        credential,
    }
}

pub(crate) fn certificate(name: &str) -> Credential {
    Credential::CertificateName(name.to_owned())
}

pub(crate) fn token(token: &str) -> Credential {
    Credential::Token(kaudit_collect::TokenHash::of(token.as_bytes()).unwrap())
}

pub(crate) fn origin(cluster: &str, instance: &str, transport: Way, path: &str) -> Origin {
    Origin {
        cluster: cluster.parse().unwrap(),
        instance: instance.parse().unwrap(),
        transport,
        path: path.to_owned(),
    }
}

pub(crate) fn records(intake: &Intake) -> Vec<Record> {
    let mut reader = intake.journal().reader(intake.journal().oldest());
    let mut records = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        let Item::Record { payload, .. } = item else {
            panic!("{item:?}")
        };
        records.push(Record::read(&payload).unwrap());
    }
    records
}

/// Waits for something that another task brings about.
pub(crate) async fn until(what: impl Fn() -> bool + Send + Sync) {
    let waiting = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .unwrap();
}

impl Central {
    /// Who shows this name, over HTTP/2.
    pub(crate) fn cluster(&self, at: SocketAddr, name: Option<&str>, token: Option<&str>) -> Cluster {
        let trust = Trust::Authorities(Pem::Inline(self.authority.0.pem().into_bytes()));
        let mut cluster = Cluster::new(format!("https://{at}").parse().unwrap(), trust);
        cluster.identity = name.map(|name| {
            let pair = self.authority.issue(name);
            Identity {
                certificate: Pem::Inline(pair.certificate.into_bytes()),
                key: Pem::Inline(pair.key.into_bytes()),
            }
        });
        if let Some(token) = token {
            cluster.credential = kaudit_dial::Credential::Token(token.to_owned());
        }
        cluster
    }

    pub(crate) fn client(&self, name: Option<&str>, token: Option<&str>) -> Client {
        Client::new(&self.cluster(self.address, name, token)).unwrap()
    }

    /// Nothing but TLS, for requests that no client library makes.
    pub(crate) async fn connect(&self, name: Option<&str>) -> tokio_rustls::client::TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.authority.0.pem().as_bytes()).unwrap())
            .unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match name.map(|name| self.authority.issue(name)) {
            None => builder.with_no_client_auth(),
            Some(pair) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let server = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
        TlsConnector::from(Arc::new(config))
            .connect(server, stream)
            .await
            .unwrap()
    }

    /// Posts over HTTP/1.1; status and the whole answer.
    pub(crate) async fn post_http1(
        &self,
        name: Option<&str>,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> (u16, String) {
        let mut stream = self.connect(name).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        (answer.get(9..12).unwrap().parse().unwrap(), answer)
    }

    /// Where pieces that were no event lie, as text.
    pub(crate) fn quarantine(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.folder.path().join("quarantine")).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        text
    }

    /// Stops serving at once; the disk is as it is.
    pub(crate) async fn stop(self) -> (SimulatedDisk, Arc<Authority>, SocketAddr) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        (self.disk, self.authority, self.address)
    }
}

pub(crate) async fn post(client: &Client, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let body = Bytes::copy_from_slice(body);
    let prepare = |_| {
        let mut request = Request::post(path).header(header::CONTENT_LENGTH, body.len());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body.clone()).unwrap()
    };
    client.exchange(64 << 10, prepare).await.unwrap()
}

/// The same for who may not even be heard.
pub(crate) async fn post_to(client: &Client, path: &str, body: &[u8]) -> Result<Answer, ClientError> {
    let body = Bytes::copy_from_slice(body);
    let prepare = |_| Request::post(path).body(body.clone()).unwrap();
    client.exchange(64 << 10, prepare).await
}

/// An item of an EventList.
pub(crate) fn item(number: usize) -> String {
    padded(number, "")
}

pub(crate) fn padded(number: usize, object: &str) -> String {
    let object = if object.is_empty() {
        String::new()
    } else {
        format!(r#","requestObject":{{"data":"{object}"}}"#)
    };
    format!(
        r#"{{"level":"Request","auditID":"id-{number}","stage":"ResponseComplete","requestURI":"/x/{number}","verb":"get","user":{{"username":"u"}}{object},"requestReceivedTimestamp":"2026-01-02T03:04:05.000006Z","stageTimestamp":"2026-01-02T03:04:05.000007Z"}}"#
    )
}

pub(crate) fn line(item: &str) -> String {
    item.replacen('{', r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#, 1)
}

pub(crate) fn list(items: &[String]) -> Vec<u8> {
    let items = items.join(",");
    format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{items}]}}"#)
        .into_bytes()
}
