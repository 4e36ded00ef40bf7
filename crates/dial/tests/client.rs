//! The client against a real HTTPS server: protocols, credentials that change, proxies.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kaudit_dial::{Client, ClientError, Cluster, Upstream, UpstreamBody};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key, PEM.
    fn issue(&self) -> (String, String) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::DnsName("audit.example".try_into().unwrap()),
        ];
        let key = KeyPair::generate().unwrap();
        (
            params.signed_by(&key, &self.0).unwrap().pem(),
            key.serialize_pem(),
        )
    }
}

/// What one request showed.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    version: Version,
    host: Option<String>,
    authorization: Option<String>,
    certificate: Option<Vec<u8>>,
}

struct Server {
    address: SocketAddr,
    authority: Authority,
    shown: Arc<Mutex<Vec<Shown>>>,
}

impl Server {
    /// A server that speaks `protocols` and answers 401 to the token `old`.
    async fn start(tasks: &TaskTracker, protocols: &[&[u8]]) -> Self {
        let authority = Authority::new();
        let (certificate, key) = authority.issue();
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.0.pem().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            authority,
            shown: Arc::default(),
        };
        let (shown, inner) = (Arc::clone(&server.shown), tasks.clone());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shown) = (acceptor.clone(), Arc::clone(&shown));
                inner.spawn(async move { serve(stream, acceptor, shown).await });
            }
        });
        server
    }

    fn cluster(&self, folder: &Path, user: &str, more: &str) -> Cluster {
        std::fs::write(folder.join("ca.crt"), self.authority.0.pem()).unwrap();
        let config = format!(
            "clusters: [{{cluster: {{server: 'https://{}', certificate-authority: ca.crt{more}}}}}]\n\
             users: [{{user: {user}}}]\n",
            self.address
        );
        std::fs::write(folder.join("config"), config).unwrap();
        Cluster::from_kubeconfig(&folder.join("config")).unwrap()
    }

    fn shown(&self) -> Vec<Shown> {
        self.shown.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, shown: Arc<Mutex<Vec<Shown>>>) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let connection = stream.get_ref().1;
    let certificate = connection
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|certificate| certificate.to_vec());
    let is_http2 = connection.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request: Request<Incoming>| {
        let text = |name| {
            let value: Option<&http::HeaderValue> = request.headers().get(name);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        let authorization = text(header::AUTHORIZATION);
        let host = text(header::HOST).or_else(|| request.uri().host().map(str::to_owned));
        let is_known = authorization.as_deref() != Some("Bearer old");
        shown.lock().unwrap().push(Shown {
            version: request.version(),
            host,
            authorization,
            certificate: certificate.clone(),
        });
        let mut response = Response::new(Full::new(Bytes::from_static(b"hello")));
        if !is_known {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        async move { Ok::<_, Infallible>(response) }
    });
    let io = TokioIo::new(stream);
    // How a connection ends is the client's matter here.
    if is_http2 {
        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(http.serve_connection(io, service).await);
    } else {
        let http = hyper::server::conn::http1::Builder::new();
        drop(http.serve_connection(io, service).await);
    }
}

async fn status(client: &Client) -> Result<StatusCode, ClientError> {
    let prepare = |_| Request::post("/x").body(Bytes::from_static(b"body")).unwrap();
    client.exchange(1024, prepare).await.map(|answer| answer.status)
}

/// Lets a second pass, after which files are looked at again.
async fn a_second_later() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(1100)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_negotiated_on_one_connection_and_http1_elsewhere() {
    let tasks = TaskTracker::new();
    for (protocols, version) in [
        (&[b"h2".as_slice(), b"http/1.1"] as &[&[u8]], Version::HTTP_2),
        (&[b"http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ] {
        let server = Server::start(&tasks, protocols).await;
        let folder = tempfile::tempdir().unwrap();
        let client = Client::new(&server.cluster(folder.path(), "{token: t}", "")).unwrap();
        for _ in 0..3 {
            assert_eq!(status(&client).await.unwrap(), StatusCode::OK);
        }
        let shown = server.shown();
        assert_eq!(shown.len(), 3);
        for shown in shown {
            assert_eq!(shown.version, version);
            assert_eq!(shown.authorization.as_deref(), Some("Bearer t"));
            assert_eq!(shown.certificate, None);
        }
        client.close().await;
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_is_cut_and_said_to_be() {
    let tasks = TaskTracker::new();
    let server = Server::start(&tasks, &[b"http/1.1"]).await;
    let folder = tempfile::tempdir().unwrap();
    let client = Client::new(&server.cluster(folder.path(), "{}", "")).unwrap();
    let prepare = |_| Request::post("/x").body(Bytes::new()).unwrap();
    let answer = client.exchange(3, prepare).await.unwrap();
    assert_eq!((answer.body.as_ref(), answer.is_cut), (b"hel".as_slice(), true));
    let answer = client.exchange(5, prepare).await.unwrap();
    assert_eq!(
        (answer.body.as_ref(), answer.is_cut),
        (b"hello".as_slice(), false)
    );
}

#[tokio::test]
async fn a_token_file_is_read_again_when_it_changes_and_kept_when_it_goes() {
    let tasks = TaskTracker::new();
    let server = Server::start(&tasks, &[b"http/1.1"]).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "old\n").unwrap();
    let client = Client::new(&server.cluster(folder.path(), "{tokenFile: token}", "")).unwrap();
    assert_eq!(status(&client).await.unwrap(), StatusCode::UNAUTHORIZED);
    // Having been refused, it looks at once.
    std::fs::write(&token, "new\n").unwrap();
    assert_eq!(status(&client).await.unwrap(), StatusCode::OK);
    std::fs::write(&token, "newer\n").unwrap();
    a_second_later().await;
    assert_eq!(status(&client).await.unwrap(), StatusCode::OK);
    std::fs::remove_file(&token).unwrap();
    a_second_later().await;
    assert_eq!(status(&client).await.unwrap(), StatusCode::OK);
    let seen: Vec<String> = server
        .shown()
        .into_iter()
        .filter_map(|shown| shown.authorization)
        .collect();
    assert_eq!(seen, ["Bearer old", "Bearer new", "Bearer newer", "Bearer newer"]);
}

#[tokio::test]
async fn a_client_certificate_that_changes_is_shown_on_new_connections() {
    let tasks = TaskTracker::new();
    for protocols in [&[b"h2".as_slice()] as &[&[u8]], &[b"http/1.1"]] {
        let server = Server::start(&tasks, protocols).await;
        let folder = tempfile::tempdir().unwrap();
        let write = |(certificate, key): (String, String)| {
            std::fs::write(folder.path().join("client.crt"), certificate).unwrap();
            std::fs::write(folder.path().join("client.key"), key).unwrap();
        };
        write(server.authority.issue());
        let user = "{client-certificate: client.crt, client-key: client.key}";
        let client = Client::new(&server.cluster(folder.path(), user, "")).unwrap();
        status(&client).await.unwrap();
        status(&client).await.unwrap();
        // In the middle of a rotation the pair does not go together.
        std::fs::write(folder.path().join("client.crt"), server.authority.issue().0).unwrap();
        a_second_later().await;
        status(&client).await.unwrap();
        write(server.authority.issue());
        a_second_later().await;
        status(&client).await.unwrap();
        let certificates: Vec<Vec<u8>> = server
            .shown()
            .into_iter()
            .map(|shown| shown.certificate.unwrap())
            .collect();
        assert_eq!(certificates.len(), 4);
        assert_eq!(certificates[0], certificates[1]);
        assert_eq!(certificates[0], certificates[2]);
        assert_ne!(certificates[0], certificates[3]);
    }
}

/// The answer to a question over connections that stream; its body is still to be read.
async fn begun(upstream: &Upstream) -> Response<UpstreamBody> {
    let nothing = Empty::new().map_err(|never: Infallible| match never {});
    let question = Request::get("/x").body(nothing.boxed_unsync()).unwrap();
    upstream.send(question).await.unwrap()
}

async fn whole(answer: Response<UpstreamBody>) {
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "hello");
}

#[tokio::test]
async fn streams_show_a_reloaded_certificate_from_the_next_request_on_and_what_is_under_way_goes_on() {
    let tasks = TaskTracker::new();
    for protocols in [&[b"h2".as_slice()] as &[&[u8]], &[b"http/1.1"]] {
        let server = Server::start(&tasks, protocols).await;
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| std::fs::write(folder.path().join(name), content).unwrap();
        let (certificate, key) = server.authority.issue();
        write("client.crt", &certificate);
        write("client.key", &key);
        let user = "{client-certificate: client.crt, client-key: client.key}";
        let upstream = Upstream::new(&server.cluster(folder.path(), user, ""), true).unwrap();
        whole(begun(&upstream).await).await;
        assert!(!upstream.reload().unwrap());
        whole(begun(&upstream).await).await;

        // In the middle of a rotation the pair does not go together; then there is no file, and one that is none.
        let (certificate, key) = server.authority.issue();
        write("client.crt", &certificate);
        upstream.reload().unwrap_err();
        std::fs::remove_file(folder.path().join("client.key")).unwrap();
        upstream.reload().unwrap_err();
        write("client.key", "no key");
        upstream.reload().unwrap_err();
        let under_way = begun(&upstream).await;

        write("client.key", &key);
        assert!(upstream.reload().unwrap());
        assert!(!upstream.reload().unwrap());
        let beside = begun(&upstream).await;
        whole(under_way).await;
        whole(beside).await;
        // Also what the one under way held is not used again.
        whole(begun(&upstream).await).await;
        assert_eq!(upstream.metrics().opened, 2);
        let nth = |nth: usize| server.shown().get(nth).unwrap().certificate.clone().unwrap();
        assert_eq!(server.shown().len(), 5);
        assert_eq!((nth(0), nth(1)), (nth(2), nth(2)));
        assert_ne!(nth(2), nth(3));
        assert_eq!(nth(3), nth(4));
    }
}

#[tokio::test]
async fn an_exec_plugin_is_run_again_when_its_token_is_refused_or_expired_and_not_before() {
    let tasks = TaskTracker::new();
    let server = Server::start(&tasks, &[b"http/1.1"]).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "old").unwrap();
    let script = r#"#!/bin/sh
cd "$(dirname "$0")"; echo run >> runs
printf '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"%s"%s}}' "$(cat token)" "$(cat expiry 2>/dev/null)"
"#;
    std::fs::write(folder.path().join("plugin"), script).unwrap();
    let user = format!(
        "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: sh, args: ['{}'], interactiveMode: Never}}}}",
        folder.path().join("plugin").display()
    );
    let client = Client::new(&server.cluster(folder.path(), &user, "")).unwrap();
    let runs = || {
        std::fs::read_to_string(folder.path().join("runs"))
            .unwrap()
            .lines()
            .count()
    };
    assert_eq!(status(&client).await.unwrap(), StatusCode::UNAUTHORIZED);
    std::fs::write(folder.path().join("token"), "new").unwrap();
    assert_eq!(status(&client).await.unwrap(), StatusCode::OK);
    assert_eq!(status(&client).await.unwrap(), StatusCode::OK);
    assert_eq!(runs(), 2);
    std::fs::write(
        folder.path().join("expiry"),
        ",\"expirationTimestamp\":\"2001-01-01T00:00:00Z\"",
    )
    .unwrap();
    std::fs::write(folder.path().join("token"), "old").unwrap();
    let other = Client::new(&server.cluster(folder.path(), &user, "")).unwrap();
    for _ in 0..2 {
        assert_eq!(status(&other).await.unwrap(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(runs(), 4);
}

#[tokio::test]
async fn a_server_that_the_authority_did_not_sign_for_is_not_believed_and_names_can_be_overridden() {
    let tasks = TaskTracker::new();
    let server = Server::start(&tasks, &[b"http/1.1"]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = server.cluster(folder.path(), "{token: t}", ", tls-server-name: other.example");
    let error = status(&Client::new(&cluster).unwrap()).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect(_)), "{error}");
    cluster.tls_server_name = Some("audit.example".to_owned());
    assert_eq!(
        status(&Client::new(&cluster).unwrap()).await.unwrap(),
        StatusCode::OK
    );
    assert_eq!(server.shown().len(), 1, "nothing was sent to who is not believed");
}

/// A proxy that wants `me:secret` and opens one tunnel after the other.
async fn proxy(tasks: &TaskTracker) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&heads);
    tasks.spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(near.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let target = head.split(' ').nth(1).unwrap().to_owned();
            seen.lock().unwrap().push(head);
            let mut far = TcpStream::connect(target).await.unwrap();
            near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
        }
    });
    (address, heads)
}

#[tokio::test]
async fn a_proxy_opens_a_tunnel_that_it_cannot_look_into() {
    let tasks = TaskTracker::new();
    let server = Server::start(&tasks, &[b"h2", b"http/1.1"]).await;
    let (address, heads) = proxy(&tasks).await;
    let folder = tempfile::tempdir().unwrap();
    let more = format!(", proxy-url: 'http://me:secret@{address}'");
    let client = Client::new(&server.cluster(folder.path(), "{token: t}", &more)).unwrap();
    assert_eq!(status(&client).await.unwrap(), StatusCode::OK);
    let heads = heads.lock().unwrap().clone();
    assert_eq!(
        heads,
        [format!(
            "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n",
            server.address
        )]
    );
    assert_eq!(server.shown()[0].authorization.as_deref(), Some("Bearer t"));
}

#[tokio::test]
async fn authorities_in_a_file_are_believed_as_they_are_now() {
    let tasks = TaskTracker::new();
    let server = Server::start(&tasks, &[b"h2".as_slice()]).await;
    let folder = tempfile::tempdir().unwrap();
    let write =
        |authority: &Authority| std::fs::write(folder.path().join("ca.crt"), authority.0.pem()).unwrap();
    let cluster = server.cluster(folder.path(), "{token: t}", "");
    let (upstream, client) = (
        Upstream::new(&cluster, true).unwrap(),
        Client::new(&cluster).unwrap(),
    );
    whole(begun(&upstream).await).await;
    status(&client).await.unwrap();

    // No connection that there is outlives the authorities that vouched for it.
    write(&Authority::new());
    assert!(upstream.reload().unwrap());
    let nothing = Empty::new().map_err(|never: Infallible| match never {});
    let question = Request::get("/x").body(nothing.boxed_unsync()).unwrap();
    upstream.send(question).await.unwrap_err();
    a_second_later().await;
    status(&client).await.unwrap_err();

    // What is no certificate leaves what there is.
    write(&server.authority);
    assert!(upstream.reload().unwrap());
    std::fs::write(folder.path().join("ca.crt"), "no certificate").unwrap();
    upstream.reload().unwrap_err();
    whole(begun(&upstream).await).await;
}
