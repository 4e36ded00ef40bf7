//! What a sink that answers later, or marks an event, means to the request.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use kaudit_event::{Stage, Text};
use kaudit_policy::Policy;
use kaudit_sink::{Emission, Outcome, Reason, Receipt, Refusal, Refusals, Reservation, Reserve, Sink};
use kaudit_tower::{Audit, AuditContext, RemoteAddr};
use tokio::sync::oneshot;
use tower::{Layer, Service, service_fn};

type End = oneshot::Sender<Result<(), Refusals>>;

/// Keeps the stages and answers each with a receipt that the test ends.
#[derive(Debug, Default)]
struct Later {
    stages: Mutex<Vec<Stage>>,
    ends: Mutex<Vec<End>>,
}

impl Sink for Later {
    fn reserve(&self, _: u32) -> Reserve {
        Reserve::Ready(Reservation::none())
    }

    fn submit(&self, emission: &Emission<'_>, _: &mut Reservation) -> Outcome {
        self.stages.lock().unwrap().extend(emission.event().stage.known());
        let (end, ended) = oneshot::channel();
        self.ends.lock().unwrap().push(end);
        Outcome::Pending(Receipt::new(async move { ended.await.unwrap() }))
    }

    fn name(&self) -> String {
        "later".to_owned()
    }
}

/// A request to a chain around `later`; `called` is set when the service is reached.
fn request(
    later: &Arc<Later>,
    called: &Arc<Mutex<bool>>,
) -> (Audit, impl Future<Output = StatusCode> + use<>) {
    let policy = b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n".as_slice();
    let (policy, _) = Policy::parse(policy).unwrap();
    let audit = Audit::builder(policy, Arc::clone(later) as Arc<dyn Sink>).build();
    let called = Arc::clone(called);
    let mut service = audit.layer().layer(service_fn(move |_| {
        *called.lock().unwrap() = true;
        async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::new()))) }
    }));
    let mut request = Request::get("/api/v1/pods")
        .body(Full::new(Bytes::new()))
        .unwrap();
    request
        .extensions_mut()
        .insert(RemoteAddr(Text::from_static("127.0.0.1:4711")));
    let response = service.call(request);
    (audit, async move { response.await.unwrap().status() })
}

fn refusal() -> Refusals {
    vec![Refusal {
        plugin: "later",
        reason: Reason::Delivery,
        message: "no".to_owned(),
    }]
}

#[test]
fn the_request_goes_on_when_request_received_is_delivered_and_not_before() {
    let (later, called) = (Arc::new(Later::default()), Arc::default());
    let (audit, response) = request(&later, &called);
    let mut response = pin!(response);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(response.as_mut().poll(&mut cx).is_pending());
    assert!(!*called.lock().unwrap());
    later.ends.lock().unwrap().remove(0).send(Ok(())).unwrap();
    assert_eq!(response.as_mut().poll(&mut cx), Poll::Ready(StatusCode::OK));
    assert!(*called.lock().unwrap());
    assert_eq!(
        *later.stages.lock().unwrap(),
        [Stage::RequestReceived, Stage::ResponseComplete]
    );
    let metrics = audit.metrics();
    assert_eq!((metrics.received, metrics.finals), (1, 1));
}

#[test]
fn t41_a_refusal_that_comes_later_refuses_the_request_and_no_further_event_is_made() {
    let (later, called) = (Arc::new(Later::default()), Arc::default());
    let (audit, response) = request(&later, &called);
    let mut response = pin!(response);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(response.as_mut().poll(&mut cx).is_pending());
    later.ends.lock().unwrap().remove(0).send(Err(refusal())).unwrap();
    let status = response.as_mut().poll(&mut cx);
    assert_eq!(status, Poll::Ready(StatusCode::INTERNAL_SERVER_ERROR));
    assert!(!*called.lock().unwrap());
    assert_eq!(*later.stages.lock().unwrap(), [Stage::RequestReceived]);
    let metrics = audit.metrics();
    assert_eq!((metrics.finals, metrics.rejected), (1, 1));
}

#[test]
fn t37_a_client_that_leaves_while_request_received_is_delivered_gets_its_final_event() {
    let (later, called) = (Arc::new(Later::default()), Arc::default());
    let (audit, response) = request(&later, &called);
    {
        let mut response = Box::pin(response);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(response.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!(
        *later.stages.lock().unwrap(),
        [Stage::RequestReceived, Stage::ResponseComplete]
    );
    let metrics = audit.metrics();
    assert_eq!((metrics.received, metrics.finals), (1, 1));
}

/// Marks every event that has annotations, and keeps the keys of each.
#[derive(Debug, Default)]
struct Marking(Mutex<Vec<(Stage, Vec<Text>)>>);

impl Sink for Marking {
    fn reserve(&self, _: u32) -> Reserve {
        Reserve::Ready(Reservation::none())
    }

    fn submit(&self, emission: &Emission<'_>, _: &mut Reservation) -> Outcome {
        let event = emission.event();
        let keys = event.annotations.iter().map(|(key, _)| key.clone()).collect();
        self.0.lock().unwrap().push((event.stage.known().unwrap(), keys));
        emission.mark_truncated();
        Outcome::Accepted
    }

    fn name(&self) -> String {
        "marking".to_owned()
    }
}

#[test]
fn the_audit_id_of_an_answer_is_marked_as_never_the_same_again_whoever_sets_it() {
    let policy = b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n".as_slice();
    let (policy, _) = Policy::parse(policy).unwrap();
    for ours in [None, Some("of-the-service")] {
        let audit = Audit::builder(policy.clone(), Arc::new(Marking::default())).build();
        let mut service = audit.layer().layer(service_fn(move |_| {
            let mut response = Response::new(Full::new(Bytes::new()));
            if let Some(id) = ours {
                let id = HeaderValue::from_static(id);
                response.headers_mut().insert("audit-id", id);
            }
            async { Ok::<_, Infallible>(response) }
        }));
        let request = Request::get("/api/v1/pods")
            .header("audit-id", "of-the-client")
            .body(Full::new(Bytes::new()))
            .unwrap();
        let mut response = pin!(service.call(request));
        let Poll::Ready(Ok(response)) = response.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("nothing waits")
        };
        let id = response.headers().get("audit-id").unwrap();
        assert_eq!(id, ours.unwrap_or("of-the-client"));
        assert!(id.is_sensitive());
    }
}

#[test]
fn the_stages_after_a_truncated_one_carry_its_annotation() {
    let policy = b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n".as_slice();
    let (policy, _) = Policy::parse(policy).unwrap();
    let sink = Arc::new(Marking::default());
    let audit = Audit::builder(policy, Arc::clone(&sink) as Arc<dyn Sink>).build();
    let mut service = audit.layer().layer(service_fn(|request: Request<_>| {
        let audit = request.extensions().get::<AuditContext>().unwrap();
        audit.annotate("a.example/b", "c");
        async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::new()))) }
    }));
    let mut request = Request::get("/api/v1/pods?watch=true")
        .body(Full::new(Bytes::new()))
        .unwrap();
    request
        .extensions_mut()
        .insert(RemoteAddr(Text::from_static("127.0.0.1:4711")));
    let mut response = pin!(service.call(request));
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(response) = response.as_mut().poll(&mut cx) else {
        panic!("nothing waits")
    };
    drop(response);
    let seen = sink.0.lock().unwrap().clone();
    let stages: Vec<(Stage, usize)> = seen.iter().map(|(stage, keys)| (*stage, keys.len())).collect();
    assert_eq!(
        stages,
        [
            (Stage::RequestReceived, 0),
            (Stage::ResponseStarted, 1),
            (Stage::ResponseComplete, 2)
        ]
    );
    assert!(
        seen.last()
            .unwrap()
            .1
            .contains(&Text::from_static("audit.k8s.io/truncated"))
    );
}
