//! Bodies over one HTTP/2 connection that are taken, and those that nobody takes.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::Service;
use kaudit_listen::{Limits, Listener};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::fixture::{LONG, plain};

/// Takes bodies but those for `/untaken`, and says how long they were.
#[derive(Clone, Debug)]
struct Counts;

impl Service<Request<Incoming>> for Counts {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<String>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Box::pin(async move {
            if request.uri().path() == "/untaken" {
                std::future::pending::<()>().await;
            }
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok(Response::new(body.len().to_string()))
        })
    }
}

#[tokio::test]
async fn a_body_that_nobody_takes_keeps_no_other_of_its_connection_waiting() {
    const LENGTH: usize = 2 << 20;
    let listener = Listener::bind(plain(|_| ())).await.unwrap();
    let (address, stop) = (listener.local_addr(), CancellationToken::new());
    let asked = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
        let ask = async {
            let post = |path: &str| Request::post(format!("http://server{path}")).body(()).unwrap();
            let (_untaken, mut body) = requests.send_request(post("/untaken"), false).unwrap();
            // As much of it as the server lets come.
            let mut room = usize::try_from(Limits::default().stream_ahead_bytes).unwrap();
            body.reserve_capacity(room);
            while room > 0 {
                let more = poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
                body.send_data(Bytes::from(vec![0; more]), false).unwrap();
                room -= more;
            }
            requests = requests.ready().await.unwrap();
            let (answer, mut body) = requests.send_request(post("/taken"), false).unwrap();
            body.send_data(Bytes::from(vec![0; LENGTH]), true).unwrap();
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            let mut said = answer.into_body();
            assert_eq!(said.data().await.unwrap().unwrap(), LENGTH.to_string());
        };
        tokio::select! {
            () = ask => {}
            ended = connection => panic!("{ended:?}"),
        }
        stop.cancel();
    };
    let served = listener.serve(|_| Counts, stop.clone(), LONG);
    tokio::time::timeout(LONG, async { tokio::join!(served, asked) })
        .await
        .unwrap();
}
