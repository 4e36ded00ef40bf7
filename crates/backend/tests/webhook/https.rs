//! An HTTPS server that wants client certificates, records EventLists and misbehaves as it is told.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use kaudit_dial::Cluster;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

/// What the server does with one request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Behaviour {
    /// Keeps the body and says so.
    Take,
    /// Keeps nothing and answers this status.
    Refuse(u16),
    /// Keeps nothing and answers 429, come back at once.
    RetryAtOnce,
    /// Keeps nothing and cuts the connection.
    Reset,
    /// Keeps the body, but the answer breaks off.
    HalfReply,
    /// Keeps the body, but the answer never ends.
    SlowDrip,
    /// Cuts the connection before a request can be read.
    Down,
}

/// Certificates of one authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

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

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn issue(&self) -> Pair {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

pub(crate) struct Server {
    address: SocketAddr,
    authority: Authority,
    shared: Arc<Shared>,
}

struct Shared {
    behaviours: Mutex<VecDeque<Behaviour>>,
    /// After the listed behaviours.
    then: Behaviour,
    bodies: Mutex<Vec<Vec<u8>>>,
    never: Notify,
}

impl Server {
    /// A server that does as `behaviours` say, one per request, and then as `then` says.
    pub(crate) async fn start(
        tasks: &TaskTracker,
        behaviours: impl IntoIterator<Item = Behaviour>,
        then: Behaviour,
    ) -> Self {
        let authority = Authority::new();
        let pair = authority.issue();
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            authority,
            shared: Arc::new(Shared {
                behaviours: Mutex::new(behaviours.into_iter().collect()),
                then,
                bodies: Mutex::default(),
                never: Notify::new(),
            }),
        };
        let (shared, inner) = (Arc::clone(&server.shared), tasks.clone());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
                inner.spawn(async move { drop(connection(stream, acceptor, &shared).await) });
            }
        });
        server
    }

    /// A kubeconfig's cluster with a client certificate in files.
    pub(crate) fn cluster(&self, folder: &std::path::Path) -> Cluster {
        let Pair { certificate, key } = self.authority.issue();
        std::fs::write(folder.join("ca.crt"), self.authority.pem()).unwrap();
        std::fs::write(folder.join("client.crt"), certificate).unwrap();
        std::fs::write(folder.join("client.key"), key).unwrap();
        let config = format!(
            "clusters: [{{cluster: {{server: 'https://{}/audit', certificate-authority: ca.crt}}}}]\n\
             users: [{{user: {{client-certificate: client.crt, client-key: client.key}}}}]\n",
            self.address
        );
        std::fs::write(folder.join("config"), config).unwrap();
        Cluster::from_kubeconfig(&folder.join("config")).unwrap()
    }

    /// The bodies that were kept.
    pub(crate) fn bodies(&self) -> Vec<Vec<u8>> {
        self.shared.bodies.lock().unwrap().clone()
    }
}

impl Shared {
    fn next(&self) -> Behaviour {
        self.behaviours.lock().unwrap().pop_front().unwrap_or(self.then)
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, shared: &Shared) -> std::io::Result<()> {
    let is_down = {
        let mut behaviours = shared.behaviours.lock().unwrap();
        let is_down = matches!(behaviours.front(), Some(Behaviour::Down))
            || (behaviours.is_empty() && matches!(shared.then, Behaviour::Down));
        if is_down {
            behaviours.pop_front();
        }
        is_down
    };
    if is_down {
        return Ok(());
    }
    let mut stream = acceptor.accept(stream).await?;
    loop {
        let body = request(&mut stream).await?;
        let behaviour = shared.next();
        if matches!(
            behaviour,
            Behaviour::Take | Behaviour::HalfReply | Behaviour::SlowDrip
        ) {
            shared.bodies.lock().unwrap().push(body);
        }
        let answer = match behaviour {
            Behaviour::Take => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
            Behaviour::Refuse(status) => format!("HTTP/1.1 {status} \r\nContent-Length: 4\r\n\r\noops"),
            Behaviour::RetryAtOnce => {
                "HTTP/1.1 429 \r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n".to_owned()
            }
            Behaviour::HalfReply | Behaviour::SlowDrip => {
                "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_owned()
            }
            Behaviour::Reset | Behaviour::Down => return Ok(()),
        };
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        match behaviour {
            Behaviour::HalfReply => return Ok(()),
            Behaviour::SlowDrip => shared.never.notified().await,
            _ => {}
        }
    }
}

/// Reads one request; returns its body.
async fn request(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(
        head.starts_with("POST /audit?timeout=") && head.contains("User-Agent: Go-http-client/1.1"),
        "{head}"
    );
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await?;
    Ok(body)
}
