//! One request through the chain, held to what kube-apiserver's own chain answered and recorded.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod client;
mod handler;
mod scenario;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use http::Request;
use http::request::Parts;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use kaudit_event::{Stage, Text};
use kaudit_policy::Policy;
use kaudit_sink::{Emission, Outcome, Reason, Refusal, Reservation, Reserve, Sink};
use kaudit_tower::{
    Audit, AuditContext, Authentication, Authenticator, Authorization, AuthorizationRequest, Authorizer,
    BoxFuture, Decision, Impersonation, RemoteAddr,
};
use tower::{Layer as _, Service as _, service_fn};

use client::Answer;
use handler::Handler;
use scenario::Scenario;

/// What a tower service cannot do as a Go handler can: part of docs/differences.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unlike {
    /// The handler returns without a response. A tower service always has one.
    NoResponse,
    /// The connection is cut (which is also what upstream does after a panic, where this chain still
    /// answers 500), or taken over and answered by hand.
    Connection,
    /// An informational response comes before the final one; upstream records its code as the final.
    Informational,
    /// The target has bytes that hyper refuses and Go takes, such as `<`; no service sees it.
    Target,
}

fn unlike(scenario: &Scenario) -> Option<Unlike> {
    let steps = scenario.handler.steps.as_deref().unwrap_or_default();
    let has = |names: &[&str]| steps.iter().any(|step| names.contains(&step.op.as_str()));
    let is_reached = scenario.authn.result == "user" && scenario.authz.decision == "allow";
    if PathAndQuery::try_from(scenario.target.as_str()).is_err() {
        return Some(Unlike::Target);
    }
    if !is_reached {
        return None;
    }
    if has(&["hijack", "panic", "panic_error", "panic_abort"]) {
        return Some(Unlike::Connection);
    }
    if steps.iter().any(|step| step.code.is_some_and(|code| code < 200)) {
        return Some(Unlike::Informational);
    }
    let answers = has(&["write", "write_header", "respond_object", "respond_status"]);
    // Go makes an answer of nothing a 200; another one is the chain's, and the handler was not called.
    (!answers && scenario.response.status == 200).then_some(Unlike::NoResponse)
}

/// Keeps lines, and refuses stages.
#[derive(Debug)]
struct Lines {
    lines: Mutex<Vec<Option<String>>>,
    refuses: Vec<String>,
}

impl Sink for Lines {
    fn reserve(&self, _: u32) -> Reserve {
        Reserve::Ready(Reservation::none())
    }

    fn submit(&self, emission: &Emission<'_>, _: &mut Reservation) -> Outcome {
        let line = emission
            .line()
            .ok()
            .map(|line| String::from_utf8_lossy(line).trim_end().to_owned());
        self.lines.lock().unwrap().push(line);
        let stage = emission.event().stage.known().map_or("", Stage::as_str);
        if self.refuses.iter().any(|refused| refused == stage) {
            let refusal = Refusal {
                plugin: "test",
                reason: Reason::Write,
                message: "told to".to_owned(),
            };
            return Outcome::Refused(vec![refusal]);
        }
        Outcome::Accepted
    }

    fn name(&self) -> String {
        "lines".to_owned()
    }
}

#[derive(Debug)]
struct Identity(scenario::Authn);

impl Authenticator for Identity {
    fn authenticate<'a>(&'a self, _: &'a Parts, audit: &'a AuditContext) -> BoxFuture<'a, Authentication> {
        for (key, value) in &self.0.annotations {
            audit.annotate(key.clone(), value.clone());
        }
        let authentication = match (self.0.result.as_str(), &self.0.user) {
            ("user", Some(user)) => Authentication::User(Arc::new(user.info())),
            _ => Authentication::Failed,
        };
        Box::pin(std::future::ready(authentication))
    }
}

#[derive(Debug)]
struct Rules(scenario::Authz);

impl Authorizer for Rules {
    fn authorize<'a>(
        &'a self,
        request: AuthorizationRequest<'a>,
    ) -> BoxFuture<'a, Result<Authorization, String>> {
        let answer = |decision, reason: &str| {
            Ok(Authorization {
                decision,
                reason: reason.to_owned(),
            })
        };
        let outcome = if request.attributes.verb == b"impersonate" {
            if self.0.impersonate == "deny" {
                answer(Decision::Deny, "no impersonation")
            } else {
                answer(Decision::Allow, "")
            }
        } else {
            match self.0.decision.as_str() {
                "allow" => answer(Decision::Allow, &self.0.reason),
                "deny" => answer(Decision::Deny, &self.0.reason),
                "no-opinion" => answer(Decision::NoOpinion, &self.0.reason),
                _ => Err(self.0.reason.clone()),
            }
        };
        Box::pin(std::future::ready(outcome))
    }
}

/// What one scenario gave.
struct Outcomes {
    answer: Answer,
    events: Vec<Option<String>>,
}

async fn play(scenario: &Scenario) -> Outcomes {
    let (policy, _) = Policy::parse(scenario.policy.as_bytes()).expect("the policy is valid");
    let sink = Arc::new(Lines {
        lines: Mutex::default(),
        refuses: scenario.sink_refuses.clone(),
    });
    let audit = Audit::builder(policy, Arc::clone(&sink) as Arc<dyn Sink>)
        .authenticator(Arc::new(Identity(scenario.authn.clone())))
        .authorizer(Arc::new(Rules(scenario.authz.clone())))
        .impersonation(Impersonation::Enforce)
        .build();
    let handler = Handler::new(scenario.handler.steps.clone().unwrap_or_default());
    let service = audit.layer().layer(handler);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request
            .extensions_mut()
            .insert(RemoteAddr(Text::from_static("127.0.0.1:4711")));
        service.clone().call(request)
    });
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let serve = async {
        // An aborted response is an error here and an early end at the client.
        let served = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(theirs), TowerToHyperService::new(service))
            .with_upgrades()
            .await;
        drop(served);
    };
    let (answer, ()) = tokio::join!(client::exchange(ours, scenario), serve);
    let metrics = audit.metrics();
    assert_eq!(metrics.received, metrics.finals, "G-2: {}", scenario.id);
    let events = std::mem::take(&mut *sink.lines.lock().unwrap());
    Outcomes { answer, events }
}

#[tokio::test]
async fn filter_scenarios_vectors() {
    hold(&["s/"]).await;
}

#[tokio::test]
async fn t25_a_401_is_one_event_with_the_status_that_was_written() {
    hold(&["s/authn/", "s/omit/failed-authn/"]).await;
}

#[tokio::test]
async fn t26_a_refused_impersonation_is_a_pair_without_impersonated_user() {
    hold(&["s/impersonate/denied", "s/impersonate/no-user"]).await;
}

#[tokio::test]
async fn t27_a_timeout_that_is_none_is_one_event() {
    hold(&["s/early/bad-timeout"]).await;
}

#[tokio::test]
async fn t36_a_panic_has_its_stage() {
    hold(&["s/kind/panic/", "s/kind/write-then-panic/", "s/omit/short-panic/"]).await;
}

#[tokio::test]
async fn t38_the_answer_to_a_head_ends_as_others_do() {
    hold(&["s/meta/head"]).await;
}

#[tokio::test]
async fn t41_a_sink_refuses_nothing_at_later_stages() {
    hold(&[
        "s/early/sink-refuses-but-omitted",
        "s/early/sink-refuses-started",
        "s/early/sink-refuses-last",
    ])
    .await;
}

#[tokio::test]
async fn t42_an_audit_id_is_taken_verbatim_or_made() {
    hold(&["s/audit-id/"]).await;
}

/// Plays the scenarios whose id begins so.
async fn hold(beginnings: &[&str]) {
    let scenarios: Vec<Scenario> = scenario::read()
        .into_iter()
        .filter(|scenario| {
            beginnings
                .iter()
                .any(|beginning| scenario.id.starts_with(beginning))
        })
        .collect();
    assert!(scenarios.len() >= beginnings.len());
    let mut wrong = Vec::new();
    let mut apart = Vec::new();
    for scenario in &scenarios {
        let Outcomes { mut answer, events } = play(scenario).await;
        let (mut expected, unlike) = (scenario.response.clone(), unlike(scenario));
        let (id, events) = scenario::normalised(events, &answer);
        answer.name_id(&id);
        match unlike {
            // Its events are another's: a response that was never given is given here.
            Some(Unlike::NoResponse | Unlike::Informational | Unlike::Target) => {
                apart.push(&scenario.id);
                continue;
            }
            // The events are the same, what the client sees is not.
            Some(Unlike::Connection) => expected.clone_from(&answer),
            None => {}
        }
        if events != scenario.events {
            let show = |events: &[Option<String>]| {
                events.iter().fold(String::new(), |mut text, event| {
                    writeln!(text, "      {}", event.as_deref().unwrap_or("null")).unwrap();
                    text
                })
            };
            wrong.push(format!(
                "{}\n    expected\n{}    got\n{}",
                scenario.id,
                show(&scenario.events),
                show(&events)
            ));
        } else if answer != expected {
            wrong.push(format!(
                "{}\n    expected {expected:?}\n    got      {answer:?}",
                scenario.id
            ));
        }
    }
    let (count, all) = (wrong.len(), scenarios.len());
    assert!(
        count == 0,
        "{count} of {all} are wrong\n{}",
        wrong.into_iter().take(12).collect::<String>()
    );
    assert!(apart.len() * 5 < all, "too many are not compared: {apart:?}");
}
