//! What one client may take.

use std::time::Duration;

use kaudit_listen::{Listener, ListenerMetrics, ProxyProtocol, Refused};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::fixture::{Server, ask, plain, rest};

const SHORT: Duration = Duration::from_millis(20);

async fn start(proxies: ProxyProtocol, unbounded: &[&str]) -> (Server, ListenerMetrics) {
    let mut config = plain(|limits| {
        limits.connections_per_address = 2;
        limits.linger = SHORT;
    });
    config.proxies = proxies;
    config.unbounded = unbounded.iter().map(|network| network.parse().unwrap()).collect();
    let listener = Listener::bind(config).await.unwrap();
    let metrics = listener.metrics();
    (Server::serve(listener), metrics)
}

async fn connect(server: &Server, header: &str) -> TcpStream {
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    client.write_all(header.as_bytes()).await.unwrap();
    client
}

#[tokio::test]
async fn a_client_with_enough_connections_gets_no_more_until_one_ends() {
    let (server, metrics) = start(ProxyProtocol::default(), &[]).await;
    let mut clients = [connect(&server, "").await, connect(&server, "").await];
    for client in &mut clients {
        ask(client).await;
    }
    let mut third = connect(&server, "").await;
    assert!(rest(&mut third).await.unwrap_or_default().is_empty());
    assert_eq!(metrics.refused(Refused::Address), 1);
    let [first, _second] = clients;
    drop((first, third));
    while metrics.open() > 1 {
        tokio::task::yield_now().await;
    }
    ask(&mut connect(&server, "").await).await;
    server.end().await;
}

#[tokio::test]
async fn a_proxy_has_as_many_connections_as_its_clients_may_have() {
    let proxies = ProxyProtocol::from(vec!["127.0.0.0/8".parse().unwrap()]);
    let (server, metrics) = start(proxies, &[]).await;
    let header = |client: u8| format!("PROXY TCP4 192.0.2.{client} 198.51.100.1 1 6443\r\n");
    let mut clients = Vec::new();
    for header in [header(1), header(1), header(2), header(2)]
        .iter()
        .chain([&"PROXY UNKNOWN\r\n".to_owned(); 3])
    {
        let mut client = connect(&server, header).await;
        ask(&mut client).await;
        clients.push(client);
    }
    let mut third = connect(&server, &header(1)).await;
    assert!(rest(&mut third).await.unwrap_or_default().is_empty());
    assert_eq!(metrics.refused(Refused::Address), 1);
    server.end().await;
}

#[tokio::test]
async fn an_address_that_stands_for_many_is_not_bounded() {
    let (server, metrics) = start(ProxyProtocol::default(), &["127.0.0.1/32"]).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = connect(&server, "").await;
        ask(&mut client).await;
        clients.push(client);
    }
    assert_eq!(metrics.refused(Refused::Address), 0);
    server.end().await;
}
