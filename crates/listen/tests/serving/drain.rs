//! The end of a server is no end of its clients' requests.

use std::time::Duration;

use kaudit_listen::Listener;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::fixture::{LONG, Server, ask, plain, rest};

const SHORT: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a_kept_connection_is_answered_once_more_after_the_stop_and_told_that_it_ends() {
    let server = Server::start(plain(|limits| limits.linger = LONG)).await;
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    let (head, _) = ask(&mut client).await;
    assert!(!head.contains("connection:"), "{head}");
    server.stop.cancel();
    let (head, _) = ask(&mut client).await;
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert_eq!(rest(&mut client).await.unwrap(), b"");
    server.end().await;
}

#[tokio::test]
async fn connections_without_a_request_are_closed_when_they_lingered() {
    let server = Server::start(plain(|limits| limits.linger = SHORT)).await;
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    let mut used = TcpStream::connect(server.addr).await.unwrap();
    ask(&mut used).await;
    server.stop.cancel();
    assert_eq!(rest(&mut silent).await.unwrap(), b"");
    assert_eq!(rest(&mut used).await.unwrap(), b"");
    server.end().await;
}

#[tokio::test]
async fn connections_in_the_queue_at_the_stop_are_served() {
    let listener = Listener::bind(plain(|_| {})).await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr()).await.unwrap();
    let server = Server::serve(listener);
    // Nothing ran yet: the stop is heard before the first connection is taken, or after.
    server.stop.cancel();
    let (head, _) = ask(&mut client).await;
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    server.end().await;
}

#[tokio::test]
async fn what_comes_after_the_stop_to_a_socket_that_was_handed_over_is_the_next_servers() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let adopt =
        || Listener::adopt(socket.try_clone().unwrap(), plain(|limits| limits.linger = SHORT)).unwrap();
    let first = Server::serve(adopt());
    assert_eq!(first.addr, socket.local_addr().unwrap());
    ask(&mut TcpStream::connect(first.addr).await.unwrap()).await;
    first.end().await;
    let mut client = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: server\r\n")
        .await
        .unwrap();
    let second = Server::serve(adopt());
    client.write_all(b"\r\n").await.unwrap();
    ask(&mut TcpStream::connect(second.addr).await.unwrap()).await;
    second.stop.cancel();
    let answer = String::from_utf8(rest(&mut client).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    second.end().await;
}

/// A client of HTTP/2 by prior knowledge that has had one answer and never reads again.
async fn deaf(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let raw = stream.into_std().unwrap();
    let kept = TcpStream::from_std(raw.try_clone().unwrap()).unwrap();
    let (mut requests, connection) = h2::client::handshake(TcpStream::from_std(raw).unwrap())
        .await
        .unwrap();
    let request = http::Request::get("http://server/").body(()).unwrap();
    let (answer, _) = requests.send_request(request, true).unwrap();
    tokio::select! {
        answer = answer => drop(answer.unwrap().into_body().data().await),
        ended = connection => panic!("{ended:?}"),
    }
    kept
}

#[tokio::test]
async fn an_http2_peer_that_does_not_acknowledge_the_end_does_not_hold_the_drain() {
    let server = Server::start(plain(|limits| {
        limits.linger = LONG;
        limits.goaway = SHORT;
    }))
    .await;
    let client = deaf(&server).await;
    server.end().await;
    drop(client);
}

#[tokio::test]
async fn an_http2_peer_ends_at_once_what_has_no_requests() {
    let server = Server::start(plain(|limits| {
        limits.linger = LONG;
        limits.goaway = LONG;
    }))
    .await;
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    let request = http::Request::get("http://server/").body(()).unwrap();
    let (answer, _) = requests.send_request(request, true).unwrap();
    let asked = async {
        let mut body = answer.await.unwrap().into_body();
        while let Some(data) = body.data().await {
            data.unwrap();
        }
        server.stop.cancel();
    };
    let (ended, ()) = tokio::join!(connection, asked);
    ended.unwrap();
    server.end().await;
}
