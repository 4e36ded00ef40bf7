//! One request's event in the making.
//!
//! Source: k8s.io/apiserver pkg/audit/context.go and request.go.

mod record;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use kaudit_event::{
    AuthenticationMetadata, Event, Level, ManagedFields, MicroTime, Stage, Status, Text, Unknown, UserInfo,
};
use kaudit_policy::{RequestAuditConfig, RequestInfo, RequestTarget};
use kaudit_sink::{Demand, Emission, Outcome, PolicyView, Reservation, Sink, annotate_truncated};
use tracing::warn;

use crate::bodies::{Deprecation, Encoding, ObjectMeta, parse_status};
use crate::capture::{Budget, Copy, Wanted};
use crate::latency::{self, Trackers};
use crate::metrics::{Metrics, count};
use crate::status::plain;

/// What all requests of one chain share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) demand: Demand,
    pub(crate) clock: fn() -> SystemTime,
}

/// A request's audit record, in the request's extensions. Cloning is cheap; all clones are one record.
///
/// At level None, and where no policy is in force, everything here does nothing.
#[derive(Clone, Debug)]
pub struct AuditContext(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    received: SystemTime,
    audit_id: Text,
    info: RequestInfo,
    target: RequestTarget,
    user: OnceLock<Arc<UserInfo>>,
    impersonated: OnceLock<Arc<UserInfo>>,
    /// Set with [`Phase::Silent`], so that what is said then needs no lock.
    is_silent: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    config: Option<RequestAuditConfig>,
    /// When the request came; set before the first wait, or when it is recorded.
    started: Option<Instant>,
    trackers: Trackers,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// The policy is not known yet: annotations are taken.
    Open(Vec<(Text, Text)>),
    /// Events are made.
    Audited(Box<Record>),
    /// Level None or no policy: nothing is recorded.
    Silent,
    /// The final event was made.
    Ended,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Open(Vec::new())
    }
}

/// What is kept of a request that is recorded.
#[derive(Debug)]
struct Record {
    event: Event,
    config: RequestAuditConfig,
    /// What the policy says, where more is recorded for others.
    policy: Option<PolicyView>,
    is_long_running: bool,
    head_seen: bool,
    /// Sessions that still relay bytes, and the end that waits for them.
    holds: usize,
    pending: Option<End>,
    reservation: Reservation,
    request_copy: Option<(Copy, RequestShape)>,
    response_copy: Option<Copy>,
    response_encoding: Encoding,
    /// Whether a Status in the answer is one that upstream wrote for what the client accepts.
    negotiation: Negotiation,
    /// Who the request asks to be, where only the answer will tell whether it was let.
    claims: Option<UserInfo>,
}

/// What a client accepts of a Status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Negotiation {
    #[default]
    Possible,
    /// None of the encodings that there are: upstream writes a Status past its encoders and records its code
    /// alone.
    Impossible,
}

/// What has to be known of a request to read its body.
#[derive(Debug)]
pub(crate) struct RequestShape {
    pub(crate) is_patch: bool,
    pub(crate) content_type: Text,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The last bytes were handed over just now.
    Written,
    /// There was nothing more to hand over.
    Complete,
    /// Nobody listened any more.
    ClientGone,
    /// The body broke off.
    UpstreamError(String),
    /// The service panicked.
    Panic(String),
}

impl AuditContext {
    #[inline]
    pub(crate) fn new(shared: Arc<Shared>, audit_id: Text, info: RequestInfo, target: RequestTarget) -> Self {
        let received = (shared.clock)();
        Self(Arc::new(Inner {
            shared,
            received,
            audit_id,
            info,
            target,
            user: OnceLock::new(),
            impersonated: OnceLock::new(),
            is_silent: AtomicBool::new(false),
            state: Mutex::new(State::default()),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the record, where there is one.
    fn record<T>(&self, act: impl FnOnce(&mut Record) -> T) -> Option<T> {
        if self.0.is_silent.load(Ordering::Relaxed) {
            return None;
        }
        match &mut self.state().phase {
            Phase::Audited(record) => Some(act(record)),
            Phase::Open(_) | Phase::Silent | Phase::Ended => None,
        }
    }

    /// The request's Audit-ID.
    #[must_use]
    pub fn audit_id(&self) -> &Text {
        &self.0.audit_id
    }

    /// What the request is about.
    #[must_use]
    pub fn request_info(&self) -> &RequestInfo {
        &self.0.info
    }

    /// The request's target as it came.
    #[must_use]
    pub fn request_target(&self) -> &RequestTarget {
        &self.0.target
    }

    /// Who asks; `None` before authentication.
    #[must_use]
    pub fn user(&self) -> Option<&Arc<UserInfo>> {
        self.0.user.get()
    }

    /// Who the request asks to be carried out as, where impersonation is enforced or observed.
    #[must_use]
    pub fn impersonated_user(&self) -> Option<&Arc<UserInfo>> {
        self.0.impersonated.get()
    }

    /// Who the request is carried out as; a user without a name before authentication.
    #[must_use]
    pub fn acting_user(&self) -> Arc<UserInfo> {
        self.impersonated_user()
            .or_else(|| self.user())
            .cloned()
            .unwrap_or_default()
    }

    /// The level at which the request is recorded; `None` before the policy was asked.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        self.state().config.map(|config| config.level)
    }

    /// Whether anything that is said here can reach an event.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        matches!(self.state().phase, Phase::Open(_) | Phase::Audited(_))
    }

    /// Adds an annotation. The first value of a key stays; another one is refused with a warning.
    pub fn annotate(&self, key: impl Into<Text>, value: impl Into<Text>) {
        let (key, value) = (key.into(), value.into());
        let mut state = self.state();
        let annotations = match &mut state.phase {
            Phase::Open(annotations) => annotations,
            Phase::Audited(record) => &mut record.event.annotations,
            Phase::Silent | Phase::Ended => return,
        };
        match annotations.iter().find(|(present, _)| *present == key) {
            None => annotations.push((key, value)),
            Some((_, present)) if *present == value => {}
            Some((_, present)) => {
                let (audit_id, present) = (&self.0.audit_id, present.clone());
                warn!(%key, %value, %audit_id, %present, "an audit annotation was set before and stays as it is");
            }
        }
    }

    /// Records the object of a create or update, as the service decoded it: `json` is its compact form.
    ///
    /// Completes the event's objectRef with what is still empty in it.
    pub fn request_object(&self, json: Bytes, meta: &ObjectMeta) {
        self.record(|record| {
            record.complete_object_ref(meta, &self.0.info);
            if record.config.level >= Level::Request {
                record.event.request_object = Some(Unknown::json(record.without_managed_fields(json)));
            }
        });
    }

    /// Records a patch as it was sent. The objectRef stays as it is.
    pub fn request_patch(&self, patch: Bytes) {
        self.record(|record| {
            if record.config.level >= Level::Request {
                record.event.request_object = Some(Unknown::json(patch));
            }
        });
    }

    /// Records the Status that the service answers with.
    pub fn response_status(&self, status: &Status) {
        self.record(|record| record.event.response_status = Some(recorded(status)));
    }

    /// Records the Status that another server answered with, where the service only passes it on.
    pub fn relayed_status(&self, status: Status) {
        self.record(|record| {
            record.settle_claims(&status, &self.0.info);
            if record.negotiation == Negotiation::Impossible {
                return;
            }
            // What refuses a long-running request is in its first event already.
            if record.is_long_running && record.config.level >= Level::RequestResponse {
                record.event.response_object = Some(Unknown::json(record::status_object(&status)));
            }
            record.event.response_status = Some(status);
        });
    }

    /// Records the object that the service answers with: `json` is its compact form.
    pub fn response_object(&self, json: Bytes) {
        self.record(|record| {
            if record.config.level >= Level::RequestResponse {
                record.event.response_object = Some(Unknown::json(record.without_managed_fields(json)));
            }
        });
    }

    /// Keeps the request open: its final event comes when the last guard is dropped.
    ///
    /// For connections that become a tunnel; take it before the 101 is answered.
    #[must_use]
    pub fn hold_open(&self) -> SessionGuard {
        self.record(|record| record.holds += 1);
        SessionGuard(self.clone())
    }

    /// Who asks, from authentication on.
    pub(crate) fn authenticated(&self, user: Arc<UserInfo>) {
        // A request is authenticated once.
        drop(self.0.user.set(user));
    }

    /// Who the request is carried out as, where that is certain.
    pub fn impersonated(&self, user: UserInfo) {
        let user = self.0.impersonated.get_or_init(|| Arc::new(user));
        self.record(|record| record.event.impersonated_user = Some(user.as_ref().clone()));
    }

    /// The constrained verb that allowed that, where it was one: the event's `authenticationMetadata`.
    pub fn impersonated_by(&self, constraint: &'static str) {
        self.record(|record| {
            record.event.authentication_metadata = Some(AuthenticationMetadata {
                impersonation_constraint: Text::from_static(constraint),
            });
        });
    }

    /// Who the request asks to be carried out as; recorded once the answer shows that it was let.
    pub(crate) fn asks_to_be(&self, user: UserInfo) {
        let user = self.0.impersonated.get_or_init(|| Arc::new(user));
        self.record(|record| record.claims = Some(user.as_ref().clone()));
    }

    /// When the request came, which is now if nothing was waited for so far.
    pub(crate) fn started(&self) -> Instant {
        *self.state().started.get_or_insert_with(Instant::now)
    }

    pub(crate) fn track(&self, add: impl FnOnce(&mut Trackers)) {
        add(&mut self.state().trackers);
    }

    /// How the request is recorded: as `policy` says, and in as much detail as others want. From level
    /// Metadata on, with what is known of it; the result is false where nothing is recorded.
    pub(crate) fn begin(
        &self,
        policy: Option<RequestAuditConfig>,
        is_long_running: bool,
        draft: impl FnOnce() -> Event,
    ) -> bool {
        let metrics = &self.0.shared.metrics;
        if let Some(policy) = policy {
            metrics.count_level(policy.level);
        }
        let (config, policy) = capture(policy.unwrap_or_default(), &self.0.shared.demand);
        let mut state = self.state();
        state.config = Some(config);
        if config.level == Level::None {
            state.phase = Phase::Silent;
            self.0.is_silent.store(true, Ordering::Relaxed);
            return false;
        }
        state.started.get_or_insert_with(Instant::now);
        let annotations = match &mut state.phase {
            Phase::Open(annotations) => std::mem::take(annotations),
            Phase::Audited(_) | Phase::Silent | Phase::Ended => Vec::new(),
        };
        state.phase = Phase::Audited(Box::new(Record {
            event: Event {
                level: config.level.into(),
                audit_id: self.0.audit_id.clone(),
                request_received_timestamp: MicroTime::from(self.0.received),
                annotations,
                ..draft()
            },
            config,
            policy,
            is_long_running,
            head_seen: false,
            holds: 0,
            pending: None,
            reservation: Reservation::none(),
            request_copy: None,
            response_copy: None,
            response_encoding: Encoding::default(),
            negotiation: Negotiation::default(),
            claims: None,
        }));
        count(&metrics.received);
        true
    }

    pub(crate) fn reserved(&self, reservation: Reservation) {
        self.record(|record| record.reservation = reservation);
    }

    /// Makes the first event.
    pub(crate) fn receive(&self) -> Outcome {
        self.record(|record| self.emit(record, Stage::RequestReceived))
            .unwrap_or(Outcome::Accepted)
    }

    /// RequestReceived was refused: the request ends without another event.
    pub(crate) fn reject(&self) {
        count(&self.0.shared.metrics.rejected);
        count(&self.0.shared.metrics.finals);
        self.state().phase = Phase::Ended;
    }

    /// The one event of a request that got no further than its authentication or deadline.
    pub(crate) fn end_at_start(&self, code: i32) {
        let Some((mut record, _)) = self.take_record() else {
            return;
        };
        record.event.response_status.get_or_insert_default().code = code;
        // The stage's outcome changes nothing: the request is refused anyway.
        drop(self.emit(&mut record, Stage::ResponseStarted));
        count(&self.0.shared.metrics.finals);
    }

    pub(crate) fn preset_message(&self, message: String) {
        let status = Status {
            message: message.into(),
            ..Status::default()
        };
        self.record(|record| record.event.response_status = Some(status));
    }

    /// The service took longer than it may.
    pub(crate) fn timed_out(&self) {
        count(&self.0.shared.metrics.timeouts);
    }

    /// The head of the response: its code, and ResponseStarted where the request is long-running.
    pub(crate) fn head(&self, code: u16) {
        self.record(|record| {
            if record.head_seen {
                return;
            }
            record.head_seen = true;
            if let Some(body) = record
                .response_copy
                .as_ref()
                .and_then(|copy| copy.bytes().ok())
                .and_then(parse_status)
            {
                record.event.response_status = Some(body);
            }
            record.event.response_status.get_or_insert_default().code = i32::from(code);
            if code != 403
                && let Some(user) = record.claims.take()
            {
                record.event.impersonated_user = Some(user);
            }
            if record.is_long_running {
                drop(self.emit(record, Stage::ResponseStarted));
            }
        });
    }

    pub(crate) fn negotiates(&self, negotiation: Negotiation) {
        self.record(|record| record.negotiation = negotiation);
    }

    pub(crate) fn copies(&self, request: Option<(usize, RequestShape)>, response: Option<Wanted>) {
        let Shared { budget, metrics, .. } = &*self.0.shared;
        let copy = |wanted| Copy::new(wanted, Arc::clone(budget), Arc::clone(metrics));
        self.record(|record| {
            record.request_copy = request.map(|(limit, shape)| (copy(Wanted::Object { limit }), shape));
            record.response_copy = response.map(copy);
        });
    }

    pub(crate) fn copy_request(&self, data: &[u8]) {
        self.record(|record| {
            if let Some((copy, _)) = &mut record.request_copy {
                copy.push(data);
            }
        });
    }

    pub(crate) fn copy_response(&self, data: &[u8]) {
        self.record(|record| {
            if let Some(copy) = &mut record.response_copy {
                copy.push(data);
            }
        });
    }

    pub(crate) fn drop_response_copy(&self) {
        self.record(|record| record.response_copy = None);
    }

    /// The response is an object in a form that is not read.
    pub(crate) fn leave_out_response(&self) {
        self.record(|record| {
            if let Some(copy) = &mut record.response_copy {
                copy.leave_out();
            }
        });
    }

    pub(crate) fn response_is_in(&self, encoding: Encoding) {
        self.record(|record| record.response_encoding = encoding);
    }

    /// The response's copy is compressed.
    pub(crate) fn response_is_gzip(&self) {
        self.record(|record| record.response_copy = record.response_copy.take().map(Copy::gunzipped));
    }

    /// The response says that its version of the API is on its way out. Upstream notes it with the final event.
    ///
    /// Source: k8s.io/apiserver pkg/endpoints/metrics/metrics.go, MonitorRequest.
    pub(crate) fn deprecated(&self, deprecation: Deprecation) {
        self.record(|record| {
            record.add("k8s.io/deprecated", Text::from_static("true"));
            if let Some(release) = deprecation.removed_release {
                record.add("k8s.io/removed-release", release);
            }
        });
    }

    /// The record of a request that ends now.
    fn take_record(&self) -> Option<(Box<Record>, Trackers)> {
        let mut state = self.state();
        match std::mem::replace(&mut state.phase, Phase::Ended) {
            Phase::Audited(record) => Some((record, state.trackers)),
            phase => {
                state.phase = phase;
                None
            }
        }
    }

    /// INVARIANT G-2: the first caller makes the final event, every later one nothing.
    pub(crate) fn finish(&self, end: End) {
        let held = self.record(|record| {
            let held = record.holds > 0 && !matches!(end, End::Panic(_));
            if held {
                record.pending.get_or_insert_with(|| end.clone());
            }
            held
        });
        if held != Some(false) {
            return;
        }
        let Some((mut record, mut trackers)) = self.take_record() else {
            return;
        };
        let record = &mut *record;
        let metrics = &self.0.shared.metrics;
        count(&metrics.finals);
        record.apply_response_copy(&self.0.info);
        record.apply_request_copy(&self.0.info);
        if let End::Panic(message) = &end {
            count(&metrics.panics);
            record.event.response_status = Some(Status {
                status: Text::from_static("Failure"),
                message: format!("APIServer panic'd: {message}").into(),
                reason: Text::from_static("InternalError"),
                code: 500,
                ..Status::default()
            });
            drop(self.emit(record, Stage::Panic));
            return;
        }
        if record.event.response_status.is_none() {
            record.event.response_status = Some(Status {
                status: Text::from_static("Success"),
                message: Text::from_static("Connection closed early"),
                ..plain(200)
            });
            if record.is_long_running {
                drop(self.emit(record, Stage::ResponseStarted));
            }
        }
        match &end {
            End::ClientGone => {
                count(&metrics.client_gone);
                record.aborted(Text::from_static("client"));
            }
            End::UpstreamError(error) => {
                count(&metrics.upstream_errors);
                record.aborted(format!("upstream: {error}"));
            }
            End::Written | End::Complete | End::Panic(_) => {}
        }
        if record.event.verb != "watch" {
            let now = Instant::now();
            let total = now.duration_since(self.started());
            if total > latency::THRESHOLD && end == End::Written {
                trackers.response_write += now.elapsed();
            }
            for (key, value) in trackers.annotations(total) {
                record.add(key, value);
            }
        }
        drop(self.emit(record, Stage::ResponseComplete));
    }

    fn emit(&self, record: &mut Record, stage: Stage) -> Outcome {
        if record.config.omit_stages.contains(stage) {
            return Outcome::Accepted;
        }
        let received = record.event.request_received_timestamp;
        record.event.stage = stage.into();
        record.event.stage_timestamp = match stage {
            Stage::RequestReceived => received,
            _ => MicroTime::from((self.0.shared.clock)()).max(received),
        };
        count(&self.0.shared.metrics.events);
        let rule = record.config.rule.and_then(|rule| u32::try_from(rule).ok());
        let emission = Emission::new(&record.event)
            .for_policy(record.policy)
            .by_rule(rule);
        let outcome = self.0.shared.sink.submit(&emission, &mut record.reservation);
        let is_truncated = emission.is_marked_truncated();
        drop(emission);
        if is_truncated {
            annotate_truncated(&mut record.event);
        }
        outcome
    }
}

/// What is recorded where the policy says `policy` and others demand more, and then what the policy says.
fn capture(policy: RequestAuditConfig, demand: &Demand) -> (RequestAuditConfig, Option<PolicyView>) {
    let (level, stages) = demand.get();
    if level == Level::None {
        return (policy, None);
    }
    let omit_stages = match policy.level {
        Level::None => Stage::ALL.into_iter().collect(),
        _ => policy.omit_stages,
    };
    let capture = RequestAuditConfig {
        level: policy.level.max(level),
        omit_stages: omit_stages.without(stages),
        omit_managed_fields: false,
        rule: policy.rule,
    };
    let view = PolicyView {
        level: policy.level,
        omit_stages,
        managed_fields: if policy.omit_managed_fields {
            ManagedFields::Omit
        } else {
            ManagedFields::Keep
        },
    };
    (capture, (capture != policy).then_some(view))
}

/// What an event keeps of a Status.
fn recorded(status: &Status) -> Status {
    Status {
        status: status.status.clone(),
        message: status.message.clone(),
        reason: status.reason.clone(),
        details: status.details.clone(),
        code: status.code,
        ..Status::default()
    }
}

/// Keeps a request open while its connection is a tunnel.
#[derive(Debug)]
pub struct SessionGuard(AuditContext);

impl Drop for SessionGuard {
    fn drop(&mut self) {
        let pending = self.0.record(|record| {
            record.holds = record.holds.saturating_sub(1);
            if record.holds == 0 {
                record.pending.take()
            } else {
                None
            }
        });
        if let Some(end) = pending.flatten() {
            self.0.finish(end);
        }
    }
}
