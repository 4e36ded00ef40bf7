//! A request through the middleware and out again, with a log backend that writes to nowhere.
//!
//! The bare service does what a server without auditing does too, as upstream's bare chain: it stamps the
//! request, resolves its RequestInfo and puts both with the user into the extensions. What a level costs
//! more than that is auditing.

use std::convert::Infallible;
use std::hint::black_box;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use kaudit_backend::{Format, Log};
use kaudit_event::{Text, UserInfo};
use kaudit_policy::{Policy, RequestInfo, RequestInfoResolver, RequestTarget};
use kaudit_sink::Counters;
use kaudit_tower::{Audit, AuditContext, Authentication, Authenticator, BoxFuture, ObjectMeta, RemoteAddr};
use serde_json::Value;
use tower_layer::Layer as _;
use tower_service::Service;

use crate::{Bench, text, user};

/// Authenticates everybody as the same user, as upstream's benchmark does.
#[derive(Debug)]
struct Fixed(Arc<UserInfo>);

impl Authenticator for Fixed {
    fn authenticate_now(&self, _: &http::request::Parts, _: &AuditContext) -> Option<Authentication> {
        Some(Authentication::User(Arc::clone(&self.0)))
    }

    fn authenticate<'a>(
        &'a self,
        _: &'a http::request::Parts,
        _: &'a AuditContext,
    ) -> BoxFuture<'a, Authentication> {
        Box::pin(std::future::ready(Authentication::User(Arc::clone(&self.0))))
    }
}

/// The handler of both halves: it records both objects and answers with so many bytes. Like upstream's
/// its response has a map of headers before auditing adds one.
/// Cheap to clone, as a router is.
#[derive(Clone)]
struct Handler(Arc<Answer>);

struct Answer {
    request: Bytes,
    response: Bytes,
    meta: ObjectMeta,
    plain: Bytes,
}

impl<B: Send + 'static> Service<Request<B>> for Handler {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let extensions = request.extensions();
        if let Some(audit) = extensions.get::<AuditContext>() {
            audit.request_object(self.0.request.clone(), &self.0.meta);
            audit.response_object(self.0.response.clone());
        }
        let mut response = Response::new(Full::new(self.0.plain.clone()));
        *response.status_mut() = StatusCode::CREATED;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        std::future::ready(Ok(response))
    }
}

/// What the bare service knows of a request.
#[derive(Clone)]
#[expect(dead_code, reason = "a handler would read it")]
struct Known {
    received: SystemTime,
    info: RequestInfo,
    target: RequestTarget,
    user: Arc<UserInfo>,
}

/// The service without auditing.
#[derive(Clone)]
struct Bare {
    resolver: Arc<RequestInfoResolver>,
    user: Arc<UserInfo>,
    handler: Handler,
}

impl<B: Send + 'static> Service<Request<B>> for Bare {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[expect(clippy::disallowed_methods, reason = "a benchmark without a clock of its own")]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let method = request.method().as_str().as_bytes();
        let target = request.uri().path_and_query().unwrap().as_str();
        let target = RequestTarget::parse(method, target.as_bytes()).unwrap();
        let info = self.resolver.resolve(method, &target).unwrap();
        request.extensions_mut().insert(Arc::new(Known {
            received: SystemTime::now(),
            info,
            target,
            user: Arc::clone(&self.user),
        }));
        self.handler.clone().call(request)
    }
}

/// Runs the bare service and the levels.
pub(crate) fn run(bench: &Bench, inputs: &Value) {
    // Deadlines need a timer; nothing here waits for one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let request_json = Bytes::from(text(inputs, "request_object_json").to_owned());
    let plain_bytes = usize::try_from(inputs["plain_response_bytes"].as_u64().unwrap()).unwrap();
    let handler = Handler(Arc::new(Answer {
        meta: ObjectMeta::from_json(&request_json).unwrap(),
        request: request_json,
        response: Bytes::from(text(inputs, "response_object_json").to_owned()),
        plain: Bytes::from(vec![b'x'; plain_bytes]),
    }));
    let user = Arc::new(user(&inputs["user"]));
    let mut bare = Bare {
        resolver: Arc::new(RequestInfoResolver::default()),
        user: Arc::clone(&user),
        handler: handler.clone(),
    };
    bench.measure("Chain/bare", || {
        serve(&mut bare, request(inputs));
    });
    for level in ["None", "Metadata", "RequestResponse"] {
        let policy = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: {level}\n");
        let (policy, _) = Policy::parse(policy.as_bytes()).unwrap();
        let log = Log::stream(Box::new(io::sink()), Format::Json, Arc::new(Counters::default()));
        let audit = Audit::builder(policy, Arc::new(log))
            .authenticator(Arc::new(Fixed(Arc::clone(&user))))
            .build();
        let mut service = audit.layer().layer(handler.clone());
        bench.measure(&format!("Chain/{level}"), || {
            serve(&mut service, request(inputs));
        });
    }
}

fn request(inputs: &Value) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(text(inputs, "method"))
        .uri(text(inputs, "target"));
    for (name, value) in inputs["headers"].as_object().unwrap() {
        request = request.header(name, value.as_str().unwrap());
    }
    let mut request = request.body(Full::new(Bytes::new())).unwrap();
    let remote = text(inputs, "remote_addr").to_owned();
    request.extensions_mut().insert(RemoteAddr(Text::from(remote)));
    request
}

/// Polls the call where it stands and takes the body's frames, as a server does.
fn serve<S, B>(service: &mut S, request: Request<Full<Bytes>>)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes>,
{
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(response)) = pin!(service.call(request)).poll(&mut context) else {
        panic!("nothing here waits");
    };
    let mut body = pin!(response.into_body());
    while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut context) {
        black_box(frame.is_ok());
    }
}
