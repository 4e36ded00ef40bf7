//! Connections on threads of their own.

use std::convert::Infallible;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use kaudit_listen::{Listener, Workers};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::fixture::{LONG, ask, plain};

/// Answers with the name of the thread.
#[derive(Clone, Debug)]
struct Named;

impl Service<Request<Incoming>> for Named {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<String>, Infallible>>;

    fn call(&self, _: Request<Incoming>) -> Self::Future {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        std::future::ready(Ok(Response::new(name)))
    }
}

#[tokio::test]
async fn a_connection_is_served_by_the_thread_with_the_fewest_and_stays_there() {
    let workers = Workers::start(2, |_| ()).unwrap();
    let mut config = plain(|_| ());
    config.workers = Some(workers.clone());
    let listener = Listener::bind(config).await.unwrap();
    let (addr, stop) = (listener.local_addr(), CancellationToken::new());
    let mut clients = Vec::new();
    let asked = async {
        let mut threads = Vec::new();
        for _ in 0..4 {
            let mut client = TcpStream::connect(addr).await.unwrap();
            let (_, thread) = ask(&mut client).await;
            assert_eq!(ask(&mut client).await.1, thread);
            threads.push(thread);
            clients.push(client);
        }
        threads.sort_unstable();
        assert_eq!(threads, ["worker-0", "worker-0", "worker-1", "worker-1"]);
        stop.cancel();
    };
    tokio::join!(listener.serve(|_| Named, stop.clone(), LONG), asked);
    workers.end().await;
}

#[tokio::test]
async fn each_thread_learns_its_number_before_it_serves() {
    let (tell, told) = std::sync::mpsc::channel();
    let workers = Workers::start(3, move |number| tell.send(number).unwrap()).unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [0, 1, 2]);
    workers.end().await;
}
