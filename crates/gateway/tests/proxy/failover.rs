//! A cluster of several servers, and servers that keep the gateway waiting or send its clients away.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kaudit_dial::{Cluster, Servers, Trust, Upstream, UpstreamOptions};
use kaudit_gateway::{Builder, Redirects};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::fixture::{Fixture, METADATA, SSR, expected, head, past_reviews, raw_upstream, stages};

const PODS: &str = "/api/v1/namespaces/n/pods";

/// Long enough for a review on loopback, short enough to wait for.
const PATIENCE: Duration = Duration::from_millis(300);

async fn gateway(
    servers: &[SocketAddr],
    build: impl FnOnce(Builder) -> Builder,
    tasks: JoinSet<()>,
) -> Fixture {
    let servers = servers
        .iter()
        .map(|address| format!("http://{address}").parse().unwrap());
    let options = UpstreamOptions::default().servers(Servers::new(servers));
    let cluster = Cluster::new("http://cluster.example".parse().unwrap(), Trust::Public);
    let upstream = Upstream::with_options(&cluster, false, &options).unwrap();
    Fixture::over(
        upstream,
        build,
        METADATA,
        false,
        Arc::new(Mutex::new(Vec::new())),
        tasks,
    )
    .await
}

/// A server that answers reviews and gives `each` the connection behind the first other request's head.
async fn server<F, S>(each: F) -> (SocketAddr, JoinSet<()>)
where
    F: Fn(TcpStream, String) -> S + Clone + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    raw_upstream(move |mut stream, _| {
        let each = each.clone();
        async move {
            let head = past_reviews(&mut stream).await;
            if !head.is_empty() {
                each(stream, head).await;
            }
        }
    })
    .await
}

async fn say(stream: &mut TcpStream, status: &str, more: &str) {
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
}

async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn a_server_that_is_gone_is_noticed_by_nobody() {
    let (there, tasks) = server(|mut stream, head| async move {
        assert!(head.contains("host: cluster.example:80\r\n"), "{head}");
        say(&mut stream, "200 OK", "").await;
    })
    .await;
    let fixture = gateway(&[nobody().await, there], |builder| builder, tasks).await;
    for asked in 1..=10 {
        let answer = fixture.get(PODS, "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let events = fixture.events_when(asked * 2).await;
        assert_eq!(events.last().unwrap()["responseStatus"]["code"], 200);
    }
    let metrics = fixture.gateway.metrics();
    assert_eq!((metrics.unreachable, metrics.identity_failures), (0, 0));
    fixture.finish().await;
}

#[tokio::test]
async fn a_review_that_broke_off_is_asked_once_more() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let (address, tasks) = raw_upstream(move |mut stream, _| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move {
            if number == 0 {
                assert!(head(&mut stream).await.contains(SSR));
                return;
            }
            if !past_reviews(&mut stream).await.is_empty() {
                say(&mut stream, "200 OK", "").await;
            }
        }
    })
    .await;
    let fixture = gateway(&[address], |builder| builder, tasks).await;
    let answer = fixture.get(PODS, "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(asked.load(Ordering::Relaxed) >= 2);
    fixture.finish().await;
}

#[tokio::test]
async fn with_no_server_left_the_answer_and_the_event_say_so() {
    let fixture = gateway(
        &[nobody().await, nobody().await],
        |builder| builder,
        JoinSet::new(),
    )
    .await;
    for _ in 0..2 {
        let answer = fixture.get(PODS, "").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    }
    let servers: Vec<_> = fixture.gateway.servers();
    assert!(servers.iter().all(|server| server.aside.is_some()), "{servers:?}");
    fixture.finish().await;
}

/// A server that never answers, and tells when a connection to it was closed.
async fn silent() -> (SocketAddr, JoinSet<()>, mpsc::Receiver<()>) {
    let (closed, closes) = mpsc::channel(8);
    let (address, tasks) = server(move |mut stream, _| {
        let closed = closed.clone();
        async move {
            assert_eq!(stream.read(&mut [0; 64]).await.unwrap_or_default(), 0);
            closed.send(()).await.unwrap();
        }
    })
    .await;
    (address, tasks, closes)
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_in_time_is_answered_for() {
    for target in [PODS.to_owned(), format!("{PODS}?watch=1")] {
        let (address, tasks, mut closes) = silent().await;
        let fixture = gateway(&[address], |builder| builder.response_limit(PATIENCE), tasks).await;
        let answer = fixture.get(&target, "").await;
        assert!(answer.starts_with("HTTP/1.1 504"), "{target}: {answer}");
        for part in [
            r#""kind":"Status""#,
            r#""reason":"Timeout""#,
            r#""code":504"#,
            "sent no answer",
        ] {
            assert!(answer.contains(part), "{part}: {answer}");
        }
        let events = fixture.events_when(2).await;
        assert_eq!(events.last().unwrap()["stage"], "ResponseComplete");
        assert_eq!(events.last().unwrap()["responseStatus"]["code"], 504);
        // The server is not left working for nobody.
        closes.recv().await.unwrap();
        assert_eq!(fixture.gateway.metrics().unanswered, 1);
        fixture.finish().await;
    }
}

#[tokio::test]
async fn a_short_request_ends_after_the_time_that_it_asks_for_and_is_counted() {
    let (address, tasks, mut closes) = silent().await;
    let fixture = gateway(&[address], |builder| builder, tasks).await;
    let answer = fixture.get(&format!("{PODS}?timeout=300ms"), "").await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    let events = fixture.events_when(2).await;
    assert_eq!(events.last().unwrap()["responseStatus"]["code"], 504);
    closes.recv().await.unwrap();
    assert_eq!(fixture.gateway.audit_metrics().timeouts, 1);
    assert_eq!(fixture.gateway.metrics().unanswered, 0);
    fixture.finish().await;
}

#[tokio::test]
async fn what_may_begin_late_is_waited_for() {
    let (go_on, mut gone_on) = mpsc::channel::<()>(1);
    let (came, mut comes) = mpsc::channel(1);
    let (logs, mut log) = mpsc::channel::<TcpStream>(1);
    let (address, mut tasks) = server(move |mut stream, head| {
        let (logs, came) = (logs.clone(), came.clone());
        async move {
            if head.contains("/log?") {
                logs.send(stream).await.unwrap();
                came.send(()).await.unwrap();
            } else {
                // Until the gateway has enough of it.
                drop(stream.read(&mut [0; 64]).await);
            }
        }
    })
    .await;
    tasks.spawn(async move {
        let mut stream = log.recv().await.unwrap();
        gone_on.recv().await.unwrap();
        say(&mut stream, "200 OK", "").await;
    });
    let fixture = gateway(&[address], |builder| builder.response_limit(PATIENCE), tasks).await;
    let log_target = format!("{PODS}/p/log?follow=1");
    let patient = fixture.get(&log_target, "");
    let impatient = async {
        comes.recv().await.unwrap();
        let answer = fixture.get(PODS, "").await;
        assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
        go_on.send(()).await.unwrap();
    };
    let (answer, ()) = tokio::join!(patient, impatient);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    fixture.finish().await;
}

async fn redirected(location: &'static str, redirects: Redirects) -> (String, Fixture) {
    let (address, tasks) = server(move |mut stream, _| async move {
        say(&mut stream, "302 Found", &format!("Location: {location}\r\n")).await;
    })
    .await;
    let fixture = gateway(&[address], |builder| builder.redirects(redirects), tasks).await;
    let answer = fixture.get(&format!("{PODS}/p/proxy/x"), "").await;
    (answer, fixture)
}

#[tokio::test]
async fn t45_a_redirect_is_relayed_and_never_followed() {
    // A gateway that followed it would find somebody there.
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("http://{}/", elsewhere.local_addr().unwrap()).leak();
    let (answer, fixture) = redirected(location, Redirects::Relay).await;
    assert!(answer.starts_with("HTTP/1.1 302"), "{answer}");
    assert!(answer.contains(&format!("location: {location}\r\n")), "{answer}");
    let waker = std::task::Waker::noop();
    let accepted = elsewhere.poll_accept(&mut std::task::Context::from_waker(waker));
    assert!(accepted.is_pending(), "somebody came");
    fixture.finish().await;
}

#[tokio::test]
async fn t45_a_redirect_to_another_host_is_refused_where_that_is_wanted() {
    for location in [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "https://cluster.example/",
    ] {
        let (answer, fixture) = redirected(location, Redirects::Refuse).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert!(!answer.contains("evil"), "{answer}");
        let events = fixture.events_when(3).await;
        assert_eq!(
            stages(&events),
            expected(&[
                ("RequestReceived", 0),
                ("ResponseStarted", 502),
                ("ResponseComplete", 502)
            ])
        );
        assert_eq!(
            events[2]["annotations"]["kaudit.dev/refused"],
            "redirect: to another host"
        );
        assert_eq!(fixture.gateway.metrics().refused_redirects, 1);
        fixture.finish().await;
    }
    for location in ["/there", "http://gateway/there", "there"] {
        let (answer, fixture) = redirected(location, Redirects::Refuse).await;
        assert!(answer.starts_with("HTTP/1.1 302"), "{location}: {answer}");
        fixture.finish().await;
    }
}
