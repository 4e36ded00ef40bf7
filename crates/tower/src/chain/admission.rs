//! The way to the service: RequestInfo, deadline, authentication, audit, impersonation, authorization.
//!
//! A request goes as far as it can without waiting in one synchronous walk; what has to wait (a webhook
//! that authenticates, room in a queue) goes on in a future of its own.

#![expect(
    clippy::result_large_err,
    reason = "a refusal is the whole answer; it is made once per request and moved once"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use kaudit_event::{Event, Level, Text, UserInfo};
use kaudit_policy::{Attributes, RequestTarget, source_ips, user_agent};
use kaudit_sink::{Outcome, Receipt, Refusals, Reservation, Reserve};

use super::Chain;
use super::answers::{OwnResponse, accepts, answer, refused};
use crate::authn::{Authentication, BoxFuture, RemoteAddr, failure_message};
use crate::authz::{Authorization, AuthorizationRequest, Refusal, conclude};
use crate::bodies::issues_token;
use crate::body::{Guard, RequestBody};
use crate::capture::{Bodies, Wanted};
use crate::context::{AuditContext, Negotiation, RequestShape};
use crate::impersonation::{Impersonation, Request as ImpersonationRequest};
use crate::status::{StatusError, internal_error, text_response};
use crate::{audit_id, deadline};

/// What became of a request on its way.
pub(super) enum Admission<B> {
    /// It goes to the service.
    Admitted(Admitted<B>),
    /// It is answered here.
    Refused(Option<Refused>),
    /// It waits.
    Waiting(BoxFuture<'static, Self>),
}

/// A request for the service.
pub(super) struct Admitted<B> {
    /// Until the service is ready to take it.
    pub(super) request: Option<Request<RequestBody<B>>>,
    /// Until the service has answered.
    pub(super) ending: Option<Ending>,
}

/// An answer without the service.
pub(super) struct Refused {
    pub(super) response: OwnResponse,
    pub(super) guard: Option<Guard>,
    pub(super) audit_id: Text,
}

/// What has to be known when the service has answered.
pub(super) struct Ending {
    pub(super) audit: AuditContext,
    pub(super) guard: Option<Guard>,
    /// How long the service may take.
    pub(super) limit: Option<Duration>,
    pub(super) is_head: bool,
    pub(super) copies_response: bool,
    pub(super) bodies: Bodies,
}

/// The next thing to do; all but the second and the last may have to wait.
enum Step {
    Authenticate,
    Begin,
    Room(BoxFuture<'static, Result<Reservation, Refusals>>),
    Receipt(Receipt),
    Authorize,
    Done,
}

/// A request on its way.
struct Walk<B> {
    chain: Arc<Chain>,
    audit: AuditContext,
    parts: Parts,
    body: B,
    guard: Option<Guard>,
    is_long_running: bool,
    limit: Duration,
}

/// Starts a request on its way.
#[inline]
pub(super) fn admit<B: Send + 'static>(chain: &Arc<Chain>, request: Request<B>) -> Admission<B> {
    let (parts, body) = request.into_parts();
    let audit_id = audit_id::of_request(&parts);
    let early = |response, audit_id| {
        Admission::Refused(Some(Refused {
            response,
            guard: None,
            audit_id,
        }))
    };
    // One after the other and not as a pair: each is hundreds of bytes that would be moved once more.
    let method = parts.method.as_str().as_bytes();
    let target = uri(&parts).path_and_query().map_or("", |target| target.as_str());
    let Ok(target) = RequestTarget::parse(method, target.as_bytes()) else {
        let response = text_response(StatusCode::BAD_REQUEST, "400 Bad Request".to_owned());
        return early(response, audit_id);
    };
    let info = match chain.resolver.resolve(method, &target) {
        Ok(info) => info,
        Err(error) => {
            let text = format!("failed to create RequestInfo: {error}");
            return early(internal_error(&target.request_uri(), &text), audit_id);
        }
    };
    let is_long_running = chain.long_running.matches(&info);
    let audit = AuditContext::new(Arc::clone(&chain.shared), audit_id, info, target);
    let limit = match deadline::of_query(uri(&parts).query()) {
        Ok(limit) => limit,
        Err(_) if is_long_running => deadline::DEFAULT,
        Err(message) => {
            let error = StatusError::new(StatusCode::BAD_REQUEST, "BadRequest", message);
            let response = refuse_unknown(chain, &parts, &audit, &error);
            return early(response, audit.audit_id().clone());
        }
    };
    let mut walk = Walk {
        chain: Arc::clone(chain),
        audit,
        parts,
        body,
        guard: None,
        is_long_running,
        limit,
    };
    walk.parts.extensions.insert(walk.audit.clone());
    match walk.advance(Step::Authenticate) {
        Ok(Step::Done) => Admission::Admitted(walk.admitted()),
        Ok(step) => walk.waiting(step),
        Err(response) => walk.refused(response),
    }
}

/// The target as the client sent it.
#[cfg(feature = "axum")]
fn uri(parts: &Parts) -> &http::Uri {
    crate::axum::original_uri(parts)
}

/// The target as the client sent it.
#[cfg(not(feature = "axum"))]
const fn uri(parts: &Parts) -> &http::Uri {
    &parts.uri
}

/// Answers a request without a user: its one event is ResponseStarted.
///
/// Source: k8s.io/apiserver pkg/endpoints/filters/authn_audit.go and request_deadline.go.
fn refuse_unknown(chain: &Chain, parts: &Parts, audit: &AuditContext, error: &StatusError) -> OwnResponse {
    let config = (*chain.policy.current())
        .as_ref()
        .map(|policy| policy.evaluate(&Attributes::new(None, audit.request_info())));
    let is_recorded = audit.begin(config, false, || draft(parts, audit, None));
    if is_recorded && error.code() == StatusCode::UNAUTHORIZED {
        audit.preset_message(failure_message(parts));
    }
    let response = answer(parts, audit, error);
    audit.end_at_start(i32::from(response.status().as_u16()));
    response
}

impl<B> Walk<B> {
    /// Goes on until something has to be waited for.
    fn advance(&mut self, mut step: Step) -> Result<Step, OwnResponse> {
        loop {
            step = match step {
                Step::Authenticate => {
                    match self
                        .chain
                        .authenticator
                        .authenticate_now(&self.parts, &self.audit)
                    {
                        Some(authentication) => self.authenticated(authentication)?,
                        None => return Ok(Step::Authenticate),
                    }
                }
                Step::Begin => self.begin()?,
                Step::Room(_) | Step::Receipt(_) => return Ok(step),
                Step::Authorize => match self.authorize_now()? {
                    Some(step) => step,
                    None => return Ok(Step::Authorize),
                },
                Step::Done => return Ok(Step::Done),
            };
        }
    }

    /// The rest of the way as a future; its size is no matter to requests that need not wait.
    #[cold]
    fn waiting(mut self, step: Step) -> Admission<B>
    where
        B: Send + 'static,
    {
        Admission::Waiting(Box::pin(async move {
            match self.wait(step).await {
                Ok(()) => Admission::Admitted(self.admitted()),
                Err(response) => self.refused(response),
            }
        }))
    }

    /// Waits wherever it has to.
    async fn wait(&mut self, mut step: Step) -> Result<(), OwnResponse> {
        loop {
            let next = match step {
                Step::Authenticate => {
                    let started = self.audit.started();
                    let authenticator = Arc::clone(&self.chain.authenticator);
                    let authentication = authenticator.authenticate(&self.parts, &self.audit).await;
                    self.audit
                        .track(|trackers| trackers.authentication += started.elapsed());
                    self.authenticated(authentication)?
                }
                Step::Room(room) => {
                    let room = room.await;
                    self.reserved(room)?
                }
                Step::Receipt(receipt) => match receipt.await {
                    Ok(()) => Step::Authorize,
                    Err(_) => return Err(self.rejected()),
                },
                Step::Authorize => self.authorize().await?,
                Step::Done => return Ok(()),
                Step::Begin => Step::Begin,
            };
            step = self.advance(next)?;
        }
    }

    fn authenticated(&mut self, authentication: Authentication) -> Result<Step, OwnResponse> {
        let error = match authentication {
            Authentication::User(user) => {
                self.audit.authenticated(user);
                return Ok(Step::Begin);
            }
            Authentication::Failed => StatusError::unauthorized(),
            Authentication::Unavailable(error) => error,
        };
        Err(refuse_unknown(&self.chain, &self.parts, &self.audit, &error))
    }

    /// The policy decides; an audited request needs room for its events.
    fn begin(&mut self) -> Result<Step, OwnResponse> {
        let user = self.audit.user().map(AsRef::as_ref);
        let config = (*self.chain.policy.current())
            .as_ref()
            .map(|policy| policy.evaluate(&Attributes::new(user, self.audit.request_info())));
        let is_recorded = self.audit.begin(config, self.is_long_running, || {
            draft(&self.parts, &self.audit, user)
        });
        if !is_recorded {
            return Ok(Step::Authorize);
        }
        match self.chain.shared.sink.reserve(3) {
            Reserve::Ready(reservation) => self.reserved(Ok(reservation)),
            Reserve::Refused(refusals) => self.reserved(Err(refusals)),
            Reserve::Wait(room) => Ok(Step::Room(room)),
        }
    }

    /// Makes RequestReceived, without which the request does not go on.
    fn reserved(&mut self, room: Result<Reservation, Refusals>) -> Result<Step, OwnResponse> {
        if let Ok(reservation) = room {
            self.audit.reserved(reservation);
            let next = match self.audit.receive() {
                Outcome::Accepted => Some(Step::Authorize),
                // A client that leaves meanwhile gets its final event like any other.
                Outcome::Pending(receipt) => Some(Step::Receipt(receipt)),
                Outcome::Refused(_) => None,
            };
            if let Some(next) = next {
                self.guard = Some(Guard::new(self.audit.clone()));
                return Ok(next);
            }
        }
        Err(self.rejected())
    }

    /// RequestReceived was not kept by a sink that has to keep it.
    fn rejected(&mut self) -> OwnResponse {
        self.audit.reject();
        self.guard = None;
        let uri = self.audit.request_target().request_uri();
        internal_error(&uri, "failed to store audit event")
    }

    /// Impersonation and authorization where they need not wait; `None` where they have to.
    fn authorize_now(&mut self) -> Result<Option<Step>, OwnResponse> {
        match self.chain.impersonation {
            Impersonation::Off => {}
            Impersonation::Observe => {
                if let Ok(Some(asked)) = ImpersonationRequest::from_headers(&self.parts.headers) {
                    self.audit.asks_to_be(asked.user());
                }
            }
            Impersonation::Enforce => {
                match ImpersonationRequest::from_headers(&self.parts.headers) {
                    Ok(None) => {}
                    // Each of the names it asks for is decided by itself.
                    Ok(Some(_)) => return Ok(None),
                    Err(error) => return Err(answer(&self.parts, &self.audit, &error)),
                }
            }
        }
        let Some(authorizer) = self.chain.authorizer.clone() else {
            return Ok(Some(Step::Done));
        };
        let user = self.audit.acting_user();
        let outcome = authorizer.authorize_now(AuthorizationRequest {
            user: &user,
            attributes: Attributes::new(Some(&user), self.audit.request_info()),
        });
        match outcome {
            Some(outcome) => self.authorized(outcome, &user).map(Some),
            None => Ok(None),
        }
    }

    async fn authorize(&mut self) -> Result<Step, OwnResponse> {
        let chain = Arc::clone(&self.chain);
        if chain.impersonation == Impersonation::Enforce
            && let Ok(Some(asked)) = ImpersonationRequest::from_headers(&self.parts.headers)
        {
            let user = self.audit.acting_user();
            let started = Instant::now();
            if let Some(authorizer) = &chain.authorizer
                && let Err(error) = asked.authorize(&user, authorizer.as_ref()).await
            {
                return Err(refused(&self.parts, &self.audit, Refusal::Forbidden(error)));
            }
            self.audit
                .track(|trackers| trackers.impersonation += started.elapsed());
            self.audit.impersonated(asked.user());
        }
        let Some(authorizer) = &chain.authorizer else {
            return Ok(Step::Done);
        };
        let user = self.audit.acting_user();
        let started = Instant::now();
        let outcome = authorizer
            .authorize(AuthorizationRequest {
                user: &user,
                attributes: Attributes::new(Some(&user), self.audit.request_info()),
            })
            .await;
        self.audit
            .track(|trackers| trackers.authorization += started.elapsed());
        self.authorized(outcome, &user)
    }

    fn authorized(
        &self,
        outcome: Result<Authorization, String>,
        user: &UserInfo,
    ) -> Result<Step, OwnResponse> {
        match conclude(outcome, user, self.audit.request_info(), &self.audit) {
            Ok(()) => Ok(Step::Done),
            Err(refusal) => Err(refused(&self.parts, &self.audit, refusal)),
        }
    }

    #[cold]
    fn refused(self, response: OwnResponse) -> Admission<B> {
        if self.guard.is_some() {
            self.audit.head(response.status().as_u16());
        }
        Admission::Refused(Some(Refused {
            response,
            guard: self.guard,
            audit_id: self.audit.audit_id().clone(),
        }))
    }

    #[inline(always)]
    fn admitted(self) -> Admitted<B> {
        let (copies_request, copies_response) = self.copies();
        if copies_request.is_some() || copies_response.is_some() {
            if !accepts(&self.parts.headers) {
                self.audit.negotiates(Negotiation::Impossible);
            }
            let content_type = self
                .parts
                .headers
                .get(header::CONTENT_TYPE)
                .map(|value| Text::copy_from_slice(value.as_bytes()));
            let shape = RequestShape {
                is_patch: self.parts.method == Method::PATCH,
                content_type: content_type.unwrap_or_default(),
            };
            self.audit
                .copies(copies_request.map(|limit| (limit, shape)), copies_response);
        }
        let copy_to = copies_request.is_some().then(|| self.audit.clone());
        Admitted {
            ending: Some(Ending {
                guard: self.guard,
                limit: (!self.is_long_running).then_some(self.limit),
                is_head: self.parts.method == Method::HEAD,
                copies_response: copies_response.is_some(),
                bodies: self.chain.bodies,
                audit: self.audit,
            }),
            request: Some(Request::from_parts(
                self.parts,
                RequestBody::new(self.body, copy_to),
            )),
        }
    }

    /// How much of both bodies is copied; nothing where the service says itself what they are.
    fn copies(&self) -> (Option<usize>, Option<Wanted>) {
        if self.chain.bodies == Bodies::Explicit {
            return (None, None);
        }
        let level = self.audit.level().unwrap_or_default();
        if level == Level::None {
            return (None, None);
        }
        let info = self.audit.request_info();
        let writes = matches!(
            info.verb(),
            b"create" | b"update" | b"patch" | b"delete" | b"deletecollection"
        );
        let is_object = info.is_resource_request()
            && !matches!(
                info.subresource(),
                b"exec" | b"attach" | b"portforward" | b"proxy" | b"log"
            );
        let request = (writes
            && is_object
            && (level >= Level::Request || matches!(info.verb(), b"create" | b"update")))
        .then_some(self.chain.capture.request_bytes);
        let is_discovery = !info.is_resource_request() && matches!(info.path(), [b'/', b'a', b'p', b'i', ..]);
        let response =
            if level >= Level::RequestResponse && !self.is_long_running && (is_object || is_discovery) {
                Wanted::Object {
                    limit: self.chain.capture.response_bytes,
                }
            } else if issues_token(info) {
                Wanted::Token
            } else {
                Wanted::Status
            };
        (request, Some(response))
    }
}

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What is known of a request when it arrives.
///
/// Source: k8s.io/apiserver pkg/audit/request.go, LogRequestMetadata.
fn draft(parts: &Parts, audit: &AuditContext, user: Option<&UserInfo>) -> Event {
    let first = |name: &HeaderName| parts.headers.get(name).map(HeaderValue::as_bytes);
    let remote = parts
        .extensions
        .get::<RemoteAddr>()
        .map_or(b"".as_slice(), |remote| remote.0.as_bytes());
    let info = audit.request_info();
    Event {
        request_uri: Text::from(audit.request_target().request_uri()),
        verb: info.verb_text().clone(),
        user: user.cloned().unwrap_or_default(),
        source_ips: source_ips(first(&FORWARDED_FOR), first(&REAL_IP), remote),
        user_agent: user_agent(first(&header::USER_AGENT)),
        object_ref: info.object_ref(),
        ..Event::default()
    }
}
