//! A gateway that answers so many requests at once.

use std::sync::Arc;
use std::time::Duration;

use kaudit_dial::{Cluster, Trust, Upstream};
use kaudit_gateway::Gateway;
use kaudit_listen::{ListenConfig, Listener};
use kaudit_policy::Policy;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::fixture::{Events, head, past_reviews, raw_upstream};

const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";

async fn ask(client: &mut TcpStream, target: &str) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer good\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_request_more_than_may_be_is_429_and_audited_and_watches_are_not_counted() {
    let answers = Arc::new(Semaphore::new(0));
    let permits = Arc::clone(&answers);
    let (upstream, mut tasks) = raw_upstream(move |mut stream, _| {
        let permits = Arc::clone(&permits);
        async move {
            loop {
                let request = past_reviews(&mut stream).await;
                if request.is_empty() {
                    return;
                }
                if !request.contains("watch=1") {
                    permits.acquire().await.unwrap().forget();
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let cluster = Cluster::new(format!("http://{upstream}").parse().unwrap(), Trust::Public);
    let (policy, _) = Policy::parse(POLICY.as_bytes()).unwrap();
    let events = Arc::new(Events::default());
    let gateway = Gateway::builder(
        Upstream::new(&cluster, false).unwrap(),
        policy,
        Arc::clone(&events) as _,
    )
    .requests_in_flight(Some(1))
    .build()
    .unwrap();
    let listener = Listener::bind(ListenConfig::plain("127.0.0.1:0".parse().unwrap()))
        .await
        .unwrap();
    let (address, stop) = (listener.local_addr(), CancellationToken::new());
    let (serving, stopped) = (gateway.clone(), stop.clone());
    tasks.spawn(async move { serving.serve(listener, stopped, Duration::from_secs(5)).await });

    let mut first = TcpStream::connect(address).await.unwrap();
    ask(&mut first, "/api/v1/pods").await;
    events.when(1).await;
    while gateway.metrics().forwarded < 1 {
        tokio::task::yield_now().await;
    }
    let mut second = TcpStream::connect(address).await.unwrap();
    ask(&mut second, "/api/v1/secrets").await;
    let refusal = head(&mut second).await.to_ascii_lowercase();
    assert!(refusal.starts_with("http/1.1 429"), "{refusal}");
    assert!(refusal.contains("\r\nretry-after: 1\r\n"), "{refusal}");
    assert_eq!(gateway.metrics().over_in_flight, 1);
    let mut watch = TcpStream::connect(address).await.unwrap();
    ask(&mut watch, "/api/v1/pods?watch=1").await;
    assert!(head(&mut watch).await.starts_with("HTTP/1.1 200"));
    let seen = events.when(5).await;
    let refused = seen
        .iter()
        .find(|event| event["responseStatus"]["code"] == 429)
        .unwrap();
    assert_eq!(refused["stage"], "ResponseComplete");
    assert_eq!(refused["responseStatus"]["reason"], "TooManyRequests");
    assert_eq!(
        refused["annotations"]["kaudit.dev/refused"],
        "in flight: too many requests"
    );

    answers.add_permits(2);
    assert!(head(&mut first).await.starts_with("HTTP/1.1 200"));
    while gateway.audit_metrics().received > gateway.audit_metrics().finals {
        tokio::task::yield_now().await;
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    ask(&mut third, "/api/v1/pods").await;
    assert!(head(&mut third).await.starts_with("HTTP/1.1 200"));
    drop((first, second, third, watch));
    stop.cancel();
    tasks.abort_all();
}
