//! The innermost service: it does what the steps say, as a Go handler would, as far as a service can.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use kaudit_tower::{AuditContext, BoxFuture, ObjectMeta, RequestBody, parse_status};
use tower::Service;

use crate::scenario::Step;

const ABORT: &str = "net/http: abort Handler";

#[derive(Clone, Debug)]
pub(crate) struct Handler(Arc<Vec<Step>>);

impl Handler {
    pub(crate) fn new(steps: Vec<Step>) -> Self {
        Self(Arc::new(steps))
    }
}

impl Service<Request<RequestBody<Incoming>>> for Handler {
    type Response = Response<Steps>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Steps>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody<Incoming>>) -> Self::Future {
        let steps = self.0.iter().cloned().collect();
        Box::pin(async move { Ok(answer(request, steps).await) })
    }
}

/// Runs the steps up to the response's head; the rest is done as its body.
async fn answer(request: Request<RequestBody<Incoming>>, mut steps: VecDeque<Step>) -> Response<Steps> {
    let audit = request.extensions().get::<AuditContext>().unwrap().clone();
    let mut body = Some(request.into_body());
    let mut headers = HeaderMap::new();
    while let Some(step) = steps.pop_front() {
        match step.op.as_str() {
            "header" => {
                let name = HeaderName::try_from(step.name).unwrap();
                headers.insert(name, HeaderValue::try_from(step.value).unwrap());
            }
            "read_body" => {
                if let Some(body) = body.take() {
                    drop(body.collect().await);
                }
            }
            "sleep" => tokio::time::sleep(Duration::from_millis(step.ms)).await,
            "write_header" if step.code.unwrap() < 200 => {}
            "write_header" => return response(step.code.unwrap(), headers, audit, steps),
            "write" => {
                steps.push_front(step);
                return response(200, headers, audit, steps);
            }
            "hijack" => return switch(audit),
            "respond_object" | "respond_status" => {
                let json = Bytes::from(step.object_json.clone());
                if let Some(status) = parse_status(&json) {
                    audit.response_status(&status);
                }
                audit.response_object(json);
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                let code = step.code.unwrap();
                steps.push_front(step);
                return response(code, headers, audit, steps);
            }
            _ => side_effect(&step, &audit),
        }
    }
    response(200, headers, audit, steps)
}

/// What can happen before and after the head. Panics are raised without the report that a real one makes.
fn side_effect(step: &Step, audit: &AuditContext) {
    match step.op.as_str() {
        "annotate" => audit.annotate(step.name.clone(), step.value.clone()),
        "log_request_patch" => audit.request_patch(Bytes::from(step.body.clone())),
        "log_request_object" => {
            let json = Bytes::from(step.object_json.clone());
            let meta = ObjectMeta::from_json(&json).unwrap();
            audit.request_object(json, &meta);
        }
        "panic" | "panic_error" => std::panic::resume_unwind(Box::new(step.value.clone())),
        "panic_abort" => std::panic::resume_unwind(Box::new(ABORT)),
        _ => {}
    }
}

fn response(
    code: u16,
    mut headers: HeaderMap,
    audit: AuditContext,
    mut steps: VecDeque<Step>,
) -> Response<Steps> {
    let writes = steps.iter().find(|step| step.op == "write");
    if let Some(write) = writes
        && !write.body.is_empty()
        && !matches!(code, 204 | 304)
    {
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.entry(header::CONTENT_TYPE).or_insert(text);
    }
    if matches!(code, 204 | 304) {
        steps.retain(|step| step.op != "write");
    }
    let mut response = Response::new(Steps {
        audit,
        steps,
        asleep: None,
    });
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    *response.headers_mut() = headers;
    response
}

/// The nearest thing to taking the connection over: the protocol is switched and the session held.
fn switch(audit: AuditContext) -> Response<Steps> {
    drop(audit.hold_open());
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("test"));
    response(101, headers, audit, VecDeque::new())
}

/// A body that does what is left to do.
#[derive(Debug)]
pub(crate) struct Steps {
    audit: AuditContext,
    steps: VecDeque<Step>,
    asleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Body for Steps {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            if let Some(asleep) = &mut self.asleep {
                std::task::ready!(asleep.as_mut().poll(cx));
                self.asleep = None;
            }
            let Some(step) = self.steps.pop_front() else {
                return Poll::Ready(None);
            };
            match step.op.as_str() {
                "sleep" => {
                    let time = Duration::from_millis(step.ms);
                    self.asleep = Some(Box::pin(tokio::time::sleep(time)));
                }
                "write" if !step.body.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(step.body.into()))));
                }
                "respond_object" | "respond_status" => {
                    return Poll::Ready(Some(Ok(Frame::data(format!("{}\n", step.object_json).into()))));
                }
                _ => side_effect(&step, &self.audit),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.asleep.is_none()
    }
}
