//! Sessions on upgraded connections, with another implementation of WebSocket as the client.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::request::Parts;
use kaudit_event::{Text, UserInfo};
use kaudit_listen::{ListenConfig, Listener};
use kaudit_sandbox::Sandbox;
use kaudit_tower::{AuditContext, Authentication, Authenticator, BoxFuture};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_util::sync::CancellationToken;

/// Everybody may do everything.
#[derive(Debug)]
struct Admin;

impl Authenticator for Admin {
    fn authenticate<'a>(&'a self, _: &'a Parts, _: &'a AuditContext) -> BoxFuture<'a, Authentication> {
        let user = UserInfo {
            username: Text::from_static("admin"),
            groups: Some(vec![
                Text::from_static("system:masters"),
                Text::from_static("system:authenticated"),
            ]),
            ..UserInfo::default()
        };
        Box::pin(std::future::ready(Authentication::User(Arc::new(user))))
    }
}

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Server {
    /// A sandbox on loopback with the pod `p`, without TLS.
    async fn start() -> Self {
        let listener = Listener::bind(ListenConfig::plain("127.0.0.1:0".parse().unwrap()))
            .await
            .unwrap();
        let address = listener.local_addr();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let sandbox = Sandbox::builder().authenticator(Arc::new(Admin)).build();
        let stopped = stop.clone();
        tasks.spawn(async move { sandbox.serve(listener, stopped, Duration::from_secs(5)).await });
        let server = Self { address, stop, tasks };
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let pod = pod.to_string();
        let request = format!(
            "POST /api/v1/namespaces/default/pods HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{pod}",
            pod.len()
        );
        let answer = server.raw(&request).await;
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        server
    }

    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn open(&self, target: &str, protocol: &str) -> WebSocketStream<TcpStream> {
        let uri = format!("ws://{}/api/v1/namespaces/default/pods/p/{target}", self.address);
        let mut request = uri.into_client_request().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol.parse().unwrap());
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        let chosen = response
            .headers()
            .get("sec-websocket-protocol")
            .unwrap()
            .to_str()
            .unwrap();
        assert!(protocol.contains(chosen));
        socket
    }

    /// The server ends in good order, with its sessions.
    async fn end(mut self) {
        self.stop.cancel();
        self.tasks.join_next().await.unwrap().unwrap();
    }
}

/// Everything until the server closes: standard output, standard error, final status.
async fn drain(socket: &mut WebSocketStream<TcpStream>) -> (String, String, Value) {
    let (mut stdout, mut stderr, mut status) = (Vec::new(), Vec::new(), Value::Null);
    while let Some(message) = socket.next().await {
        match message.unwrap() {
            Message::Binary(data) => match data.split_first() {
                Some((1, data)) => stdout.extend_from_slice(data),
                Some((2, data)) => stderr.extend_from_slice(data),
                Some((3, data)) => status = serde_json::from_slice(data).unwrap(),
                other => panic!("unexpected message {other:?}"),
            },
            Message::Close(_) => break,
            other => panic!("unexpected message {other:?}"),
        }
    }
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(stdout), text(stderr), status)
}

fn message(channel: u8, data: &[u8]) -> Message {
    Message::Binary([&[channel], data].concat().into())
}

#[tokio::test]
async fn a_command_answers_on_its_channels() {
    let server = Server::start().await;
    let mut socket = server
        .open(
            "exec?command=sh&command=-c&command=echo+a%3B+echo+b+%3E%262%3B+exit+7&stdout=1&stderr=1",
            "v4.channel.k8s.io",
        )
        .await;
    let (stdout, stderr, status) = drain(&mut socket).await;
    assert_eq!((&*stdout, &*stderr), ("a\n", "b\n"));
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(
        status["details"]["causes"][0],
        json!({"reason": "ExitCode", "message": "7"})
    );
    server.end().await;
}

#[tokio::test]
async fn protocol_5_closes_standard_input() {
    let server = Server::start().await;
    let mut socket = server
        .open(
            "exec?command=cat&stdin=1&stdout=1",
            "v4.channel.k8s.io, v5.channel.k8s.io",
        )
        .await;
    socket.send(message(0, b"one ")).await.unwrap();
    socket.send(Message::Ping(vec![1].into())).await.unwrap();
    socket.send(message(0, b"two")).await.unwrap();
    socket
        .send(message(4, b"{\"Width\":80,\"Height\":24}"))
        .await
        .unwrap();
    socket.send(message(255, &[0])).await.unwrap();
    let mut stdout = Vec::new();
    let mut status = Value::Null;
    while let Some(Ok(found)) = socket.next().await {
        match found {
            Message::Binary(data) if data[0] == 1 => stdout.extend_from_slice(&data[1..]),
            Message::Binary(data) if data[0] == 3 => status = serde_json::from_slice(&data[1..]).unwrap(),
            _ => {}
        }
    }
    assert_eq!(
        (stdout.as_slice(), &status["status"]),
        (&b"one two"[..], &json!("Success"))
    );
    server.end().await;
}

#[tokio::test]
async fn forwarded_ports_echo() {
    let server = Server::start().await;
    let mut socket = server.open("portforward?ports=8080", "v4.channel.k8s.io").await;
    for channel in [0, 1] {
        assert_eq!(
            socket.next().await.unwrap().unwrap(),
            message(channel, &8080_u16.to_le_bytes())
        );
    }
    socket.send(message(0, b"ping")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), message(0, b"ping"));
    server.end().await;
}

#[tokio::test]
async fn a_spdy_client_gets_its_bytes_back() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = "POST /api/v1/namespaces/default/pods/p/attach?stdin=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
        Upgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    stream.write_all(b"bytes").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"bytes");
    server.end().await;
}

#[tokio::test]
async fn an_unknown_subprotocol_is_refused() {
    let server = Server::start().await;
    let answer = server
        .raw(
            "GET /api/v1/namespaces/default/pods/p/exec?command=ls HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: nonsense\r\nContent-Length: 0\r\n\r\n\
             GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    server.end().await;
}
