//! The HTTP/2 pool against servers that refuse, go away, or allow few streams.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kaudit_dial::{Cluster, OutgoingBody, Protocol, SendError, Trust, Upstream, UpstreamOptions, take_lane};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

type Connection = h2::server::Connection<TcpStream, Bytes>;
type Call = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves each connection, which has its number, with `each`.
async fn server<F, S>(streams: u32, each: F) -> (Upstream, TaskTracker)
where
    F: Fn(usize, Connection) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = TaskTracker::new();
    let inner = tasks.clone();
    tasks.spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let connection = h2::server::Builder::new()
                .max_concurrent_streams(streams)
                .handshake(stream)
                .await
                .unwrap();
            inner.spawn(each(number, connection));
        }
    });
    let options = UpstreamOptions::default().protocol(Protocol::Http2).lanes(2);
    let cluster = Cluster::new(format!("http://{address}").parse().unwrap(), Trust::Public);
    (Upstream::with_options(&cluster, false, &options).unwrap(), tasks)
}

fn body(text: &'static str) -> OutgoingBody {
    Full::from(text).map_err(|never| match never {}).boxed_unsync()
}

fn request(method: Method, target: &str, text: &'static str) -> Request<OutgoingBody> {
    Request::builder()
        .method(method)
        .uri(target)
        .body(body(text))
        .unwrap()
}

fn get(target: &str) -> Request<OutgoingBody> {
    request(Method::GET, target, "")
}

fn answer(respond: &mut SendResponse<Bytes>, text: &'static str) {
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream
        .send_data(Bytes::from_static(text.as_bytes()), true)
        .unwrap();
}

async fn text(upstream: &Upstream, request: Request<OutgoingBody>) -> String {
    let response = upstream.send(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .unwrap()
}

/// Watches stay open; everything else is answered.
async fn watches_and_gets(mut connection: Connection, most: Arc<AtomicUsize>) {
    let mut open = Vec::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        if request.uri().path() == "/watch" {
            open.push(respond.send_response(Response::new(()), false).unwrap());
            most.fetch_max(open.len(), Ordering::Relaxed);
        } else {
            answer(&mut respond, "got");
        }
    }
}

#[tokio::test]
async fn t31_watches_leave_room_for_short_requests() {
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let (upstream, _tasks) = server(100, move |_, connection| {
        watches_and_gets(connection, Arc::clone(&seen))
    })
    .await;
    let mut watches = tokio::task::JoinSet::new();
    for _ in 0..250 {
        let upstream = upstream.clone();
        watches.spawn(async move { upstream.send(get("/watch")).await.unwrap() });
    }
    let watches = within(watches.join_all()).await;
    for _ in 0..100 {
        assert_eq!(within(text(&upstream, get("/pods"))).await, "got");
    }
    let metrics = upstream.metrics();
    assert_eq!(metrics.streams, 250);
    assert!((3..=5).contains(&metrics.http2), "{metrics:?}");
    assert!(most.load(Ordering::Relaxed) <= 100, "the server's limit holds");
    drop(watches);
    assert_eq!(upstream.metrics().streams, 0);
}

#[tokio::test]
async fn a_small_limit_of_the_server_is_kept_from_the_first_request_on() {
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let (upstream, _tasks) = server(5, move |_, connection| {
        watches_and_gets(connection, Arc::clone(&seen))
    })
    .await;
    let mut watches = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let upstream = upstream.clone();
        watches.spawn(async move { upstream.send(get("/watch")).await.unwrap() });
    }
    let watches = within(watches.join_all()).await;
    assert_eq!(within(text(&upstream, get("/pods"))).await, "got");
    let metrics = upstream.metrics();
    assert_eq!((metrics.retried, watches.len()), (0, 20), "no stream was refused");
    assert!(most.load(Ordering::Relaxed) <= 5);
}

/// Refuses so many streams, then answers; says how many requests came.
async fn refusing(count: u32) -> (Upstream, TaskTracker, Arc<AtomicUsize>) {
    let came = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&came);
    let refused = Arc::new(AtomicUsize::new(count.try_into().unwrap()));
    let (upstream, tasks) = server(100, move |_, mut connection| {
        let (came, refused) = (Arc::clone(&seen), Arc::clone(&refused));
        async move {
            let mut answers = tokio::task::JoinSet::new();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                came.fetch_add(1, Ordering::Relaxed);
                let left =
                    refused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
                if left.is_ok() {
                    respond.send_reset(Reason::REFUSED_STREAM);
                } else {
                    let mut body = request.into_body();
                    answers.spawn(async move {
                        let data = body.data().await.unwrap().unwrap();
                        assert_eq!(data, "once");
                        answer(&mut respond, "created");
                    });
                }
            }
        }
    })
    .await;
    (upstream, tasks, came)
}

#[tokio::test]
async fn t28_a_refused_stream_is_sent_once_more_with_its_body() {
    let (upstream, _tasks, came) = refusing(1).await;
    assert_eq!(
        within(text(&upstream, request(Method::POST, "/pods", "once"))).await,
        "created"
    );
    assert_eq!((came.load(Ordering::Relaxed), upstream.metrics().retried), (2, 1));
}

#[tokio::test]
async fn t28_a_stream_refused_twice_is_an_error() {
    let (upstream, _tasks, came) = refusing(2).await;
    let error = within(upstream.send(request(Method::POST, "/pods", "once")))
        .await
        .unwrap_err();
    assert!(matches!(error, SendError::Reset(_)), "{error}");
    assert_eq!(came.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn t28_what_a_server_may_have_acted_on_is_not_sent_again() {
    let came = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&came);
    let (upstream, _tasks) = server(100, move |_, mut connection| {
        let came = Arc::clone(&seen);
        async move {
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                came.fetch_add(1, Ordering::Relaxed);
                respond.send_reset(Reason::INTERNAL_ERROR);
            }
        }
    })
    .await;
    for method in [Method::POST, Method::GET] {
        let before = came.load(Ordering::Relaxed);
        within(upstream.send(request(method, "/pods", "")))
            .await
            .unwrap_err();
        assert_eq!(came.load(Ordering::Relaxed), before + 1);
    }
}

#[tokio::test]
async fn t28_only_safe_requests_are_repeated_when_a_connection_is_lost() {
    let came = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&came);
    let (upstream, _tasks) = server(100, move |_, mut connection| {
        let came = Arc::clone(&seen);
        async move {
            // Each second request is the last thing that its connection sees.
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                if came.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                    return;
                }
                answer(&mut respond, "got");
            }
        }
    })
    .await;
    assert_eq!(within(text(&upstream, get("/pods"))).await, "got");
    assert_eq!(came.load(Ordering::Relaxed), 2);
    within(upstream.send(request(Method::POST, "/pods", "x")))
        .await
        .unwrap_err();
    assert_eq!(came.load(Ordering::Relaxed), 3, "a POST is not repeated");
}

#[tokio::test]
async fn t28_a_watch_survives_goaway_and_new_requests_use_a_new_connection() {
    let (go_away, told) = watch::channel(false);
    let (more, mut events) = mpsc::channel::<&'static str>(1);
    let (watching, mut watched) = mpsc::channel::<SendResponse<Bytes>>(1);
    let (upstream, tasks) = server(100, move |number, mut connection| {
        let (mut told, watching) = (told.clone(), watching.clone());
        async move {
            let mut is_going = false;
            loop {
                tokio::select! {
                    call = connection.accept() => {
                        let Some(Ok((request, mut respond))) = call else { return };
                        if request.uri().path() == "/watch" {
                            watching.send(respond).await.unwrap();
                        } else {
                            answer(&mut respond, if number == 0 { "first" } else { "second" });
                        }
                    }
                    () = async { drop(told.wait_for(|told| *told).await) }, if number == 0 && !is_going => {
                        is_going = true;
                        connection.graceful_shutdown();
                    }
                }
            }
        }
    })
    .await;
    tasks.spawn(async move {
        let mut respond = watched.recv().await.unwrap();
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        while let Some(event) = events.recv().await {
            stream
                .send_data(Bytes::from_static(event.as_bytes()), false)
                .unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", "yes".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
    });
    let mut watch = within(upstream.send(get("/watch"))).await.unwrap().into_body();
    more.send("before").await.unwrap();
    assert_eq!(
        within(watch.frame()).await.unwrap().unwrap().into_data().unwrap(),
        "before"
    );
    assert_eq!(within(text(&upstream, get("/pods"))).await, "first");
    go_away.send_replace(true);
    // Until the server's word has arrived, requests still go over the first connection, and are answered.
    within(async { while text(&upstream, get("/pods")).await == "first" {} }).await;
    more.send("after").await.unwrap();
    assert_eq!(
        within(watch.frame()).await.unwrap().unwrap().into_data().unwrap(),
        "after"
    );
    drop(more);
    let trailers = within(watch.frame())
        .await
        .unwrap()
        .unwrap()
        .into_trailers()
        .unwrap();
    assert_eq!(trailers.get("x-end").unwrap(), "yes");
    assert!(within(watch.frame()).await.is_none());
}

#[tokio::test]
async fn requests_arrive_as_they_were_sent_with_their_trailers() {
    let (came, mut seen) = mpsc::channel::<Call>(1);
    let (upstream, _tasks) = server(100, move |_, mut connection| {
        let came = came.clone();
        async move {
            while let Some(Ok(call)) = connection.accept().await {
                came.send(call).await.unwrap();
            }
        }
    })
    .await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"data"))),
        Ok(Frame::trailers(trailers)),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
    let target = "//api/../v1/pods/x%2Fy?watch=0&x=%zz;a=b&&";
    let request = Request::post(target)
        .header("connection", "x-one")
        .header("te", "trailers")
        .header("host", "client")
        .body(body)
        .unwrap();
    let sending = upstream.send(request);
    let serving = async {
        let (request, mut respond) = seen.recv().await.unwrap();
        assert_eq!(request.uri().path_and_query().unwrap(), target);
        let names: Vec<&str> = request.headers().keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["te"]);
        let mut body = request.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "data");
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(trailers.get("x-sum").unwrap(), "7");
        answer(&mut respond, "");
    };
    let (response, ()) = within(async { tokio::join!(sending, serving) }).await;
    response.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_reset_in_its_middle_does_not_look_whole() {
    let (cut, told) = watch::channel(false);
    let (upstream, _tasks) = server(100, move |_, mut connection| {
        let mut told = told.clone();
        async move {
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"half"), false).unwrap();
            tokio::select! {
                _ = connection.accept() => {}
                () = async { drop(told.wait_for(|told| *told).await) } => {}
            }
            stream.send_reset(Reason::CANCEL);
            while connection.accept().await.is_some() {}
        }
    })
    .await;
    let mut body = within(upstream.send(get("/pods"))).await.unwrap().into_body();
    assert_eq!(
        within(body.frame()).await.unwrap().unwrap().into_data().unwrap(),
        "half"
    );
    cut.send_replace(true);
    within(body.frame()).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn threads_with_numbers_have_connections_of_their_own() {
    let (upstream, _tasks) = server(100, |_, connection| watches_and_gets(connection, Arc::default())).await;
    assert_eq!(within(text(&upstream, get("/pods"))).await, "got");
    for number in [0, 1, 1] {
        let asks = upstream.clone();
        let ask = move || {
            take_lane(number);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            runtime.block_on(async {
                for _ in 0..3 {
                    assert_eq!(within(text(&asks, get("/pods"))).await, "got");
                }
            });
        };
        tokio::task::spawn_blocking(move || std::thread::spawn(ask).join().unwrap())
            .await
            .unwrap();
    }
    // The connection of a thread that has ended is not used again.
    let metrics = upstream.metrics();
    assert_eq!((metrics.opened, metrics.reused), (4, 6), "{metrics:?}");
    assert_eq!(within(text(&upstream, get("/pods"))).await, "got");
    assert_eq!(upstream.metrics().opened, 4);
}
