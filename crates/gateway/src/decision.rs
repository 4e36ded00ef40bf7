//! What the cluster's authorizer said: asked by an access review while the request is under way, or read
//! from the refusal itself.

mod budget;
mod review;

use std::sync::Arc;
use std::time::Duration;

use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use kaudit_event::{Level, Status, UserInfo};
use kaudit_policy::{Attributes, Policy, RequestInfo};
use kaudit_tower::{
    AuditContext, Authorization, AuthorizationRequest, Authorizer, BoxFuture, Decision, forbidden_reason,
    refuses_impersonation,
};
use tokio::time::Instant;
use tracing::debug;

use crate::cache::{self, Cache, Hasher, Key};
use crate::headers::AUDIT_ID;
use crate::metrics::{Metrics, count};
use crate::own::OwnCredential;
use crate::review::{Credentials, Reviewer};
use budget::Budget;
use review::{Review, Reviewed, SELF_SUBJECT, SUBJECT};

const DECISION: &str = "authorization.k8s.io/decision";
const REASON: &str = "authorization.k8s.io/reason";
const SOURCE: &str = "kaudit.dev/authz-source";

/// As long as kube-apiserver's webhook authorizer remembers a refusal.
const KNOWN: Duration = Duration::from_secs(10);

const UNAVAILABLE: Duration = Duration::from_secs(1);

/// Which decisions the cluster is asked about.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DecisionReviews {
    /// Whether it is asked at all.
    pub asked: Asked,
    /// About requests that this policy gives the level None it is not asked.
    pub policy: Option<Arc<Policy>>,
    /// Reviews per second and user, over ten seconds; what is known already is free.
    pub per_user: u32,
}

/// Whether the cluster is asked for the reasons of its decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "asked or not")]
pub enum Asked {
    /// It is asked, at the cost of one more request whose answer holds for ten seconds.
    #[default]
    Yes,
    /// It is not: events tell refusals with their reason, and that others were allowed.
    No,
}

impl Default for DecisionReviews {
    /// All, 50 a second.
    fn default() -> Self {
        Self {
            asked: Asked::default(),
            policy: None,
            per_user: 50,
        }
    }
}

/// Asks for decisions and remembers them for moments.
#[derive(Debug)]
pub(crate) struct Decisions {
    reviewer: Reviewer,
    reviews: DecisionReviews,
    budget: Budget,
    cache: Cache<Option<Answer>>,
    hasher: Hasher,
    metrics: Arc<Metrics>,
}

/// What the authorizer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    is_allowed: bool,
    reason: Arc<str>,
}

/// With whose credentials the cluster is asked.
#[derive(Debug)]
pub(crate) enum Asker<'a> {
    /// With those among the request's headers, which the key names, over connections of the client's kind.
    Client(&'a HeaderMap, Key),
    /// With those among the request's headers, which are the gateway's with the user it impersonates.
    Impersonating(&'a HeaderMap, &'a OwnCredential),
    /// With the gateway's, about the user of the question.
    Gateway(&'a OwnCredential),
}

/// What there is of a decision.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// What was asked before and still holds; `None` when there was no answer.
    Known(Option<Answer>),
    /// It has to be asked for.
    Unknown(Box<Question<'a>>),
}

/// One question.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    key: Key,
    user: Key,
    attributes: Attributes<'a>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Headers(HeaderMap),
    HeadersOver(HeaderMap, OwnCredential),
    Own(OwnCredential),
}

impl Decisions {
    pub(crate) fn new(
        reviewer: Reviewer,
        reviews: DecisionReviews,
        hasher: Hasher,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            reviewer,
            budget: Budget::new(reviews.per_user),
            reviews,
            cache: Cache::new(),
            hasher,
            metrics,
        }
    }

    /// Whether the cluster is asked about requests like this one.
    pub(crate) fn is_asked(&self, user: Option<&UserInfo>, info: &RequestInfo) -> bool {
        let is_skipped = |policy: &Arc<Policy>| {
            let level = policy.evaluate(&Attributes::new(user, info)).level;
            level == Level::None
        };
        self.reviews.asked == Asked::Yes && !self.reviews.policy.as_ref().is_some_and(is_skipped)
    }

    /// The decision about a request that came at `now`, or what to ask for it; the headers of `asker` are those that go to
    /// the cluster.
    pub(crate) fn find<'a>(&self, asker: &Asker<'_>, attributes: Attributes<'a>, now: Instant) -> Found<'a> {
        let matter = review::subject_matter(&attributes);
        let key = self.key(&matter, asker, &attributes);
        match self.cache.known(key, now) {
            Some(answer) => {
                count(&self.metrics.decision_hits);
                Found::Known(answer)
            }
            None => Found::Unknown(Box::new(self.question(key, asker, attributes))),
        }
    }

    #[cold]
    fn question<'a>(&self, key: Key, asker: &Asker<'_>, attributes: Attributes<'a>) -> Question<'a> {
        let way = match asker {
            Asker::Client(headers, _) => Way::Headers(identity(headers)),
            Asker::Impersonating(headers, own) => Way::HeadersOver(identity(headers), (*own).clone()),
            Asker::Gateway(own) => Way::Own((*own).clone()),
        };
        Question {
            key,
            user: self.key(&[], asker, &attributes),
            attributes,
            way,
        }
    }

    /// Names what is asked by a user. Without a matter, which has a fixed number of parts, the user.
    fn key(&self, matter: &[&[u8]], asker: &Asker<'_>, attributes: &Attributes<'_>) -> Key {
        let matter = matter.iter().copied();
        match asker {
            Asker::Client(headers, key) => self.hasher.key(matter.chain([&key[..]]).chain(whom(headers))),
            Asker::Impersonating(headers, _) => {
                let credentials = Credentials::of(headers);
                let matter = matter.chain(credentials.parts());
                self.hasher.key(matter.chain(whom(headers)))
            }
            Asker::Gateway(_) => self.hasher.key(matter.chain(review::subject(attributes))),
        }
    }

    /// The cluster's answer; `None` when it gives none, or was asked too much for this user.
    pub(crate) async fn ask(&self, question: Question<'_>) -> Option<Answer> {
        if !self.budget.take(&question.user) {
            count(&self.metrics.decision_over_budget);
            return None;
        }
        self.ask_anyway(question).await
    }

    async fn ask_anyway(&self, question: Question<'_>) -> Option<Answer> {
        let Question {
            key, attributes, way, ..
        } = question;
        let ask = || async {
            let subject = attributes.user.filter(|_| matches!(way, Way::Own(_)));
            let review = Review::of(&attributes, subject);
            let asked = match way {
                Way::Headers(headers) => {
                    self.reviewer
                        .ask::<Reviewed>(SELF_SUBJECT, headers, &review)
                        .await
                }
                Way::HeadersOver(headers, own) => {
                    let upstream = own.upstream();
                    self.reviewer
                        .ask_over::<Reviewed>(upstream, SELF_SUBJECT, headers, &review)
                        .await
                }
                Way::Own(own) => self.reviewer.ask_as::<Reviewed>(&own, SUBJECT, &review).await,
            };
            match asked {
                Ok(Reviewed { status }) => {
                    let answer = Answer {
                        is_allowed: status.allowed,
                        reason: status.reason.into(),
                    };
                    (Some(answer), KNOWN)
                }
                Err(error) => {
                    debug!(%error, "cannot learn what was decided");
                    count(&self.metrics.decision_failures);
                    (None, UNAVAILABLE)
                }
            }
        };
        let (answer, found) = self.cache.answer(key, ask).await;
        count(match found {
            cache::Found::Known => &self.metrics.decision_hits,
            cache::Found::Asked => &self.metrics.decision_reviews,
        });
        answer
    }
}

/// The headers that say who asks and for whom.
fn identity(headers: &HeaderMap) -> HeaderMap {
    let mut sent = Credentials::of(headers).headers();
    for (name, value) in impersonation(headers) {
        sent.append(HeaderName::clone(name), value.clone());
    }
    sent
}

/// For whom somebody asks, in parts.
fn whom(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    impersonation(headers).flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()])
}

/// The headers that say for whom somebody asks.
fn impersonation(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("impersonate-"))
}

/// Decides who may impersonate whom: the cluster does, asked with the gateway's credential.
#[derive(Debug)]
pub(crate) struct ImpersonationAuthorizer<'a> {
    pub(crate) decisions: &'a Decisions,
    pub(crate) own: &'a OwnCredential,
}

impl Authorizer for ImpersonationAuthorizer<'_> {
    fn authorize<'a>(
        &'a self,
        request: AuthorizationRequest<'a>,
    ) -> BoxFuture<'a, Result<Authorization, String>> {
        Box::pin(async move {
            let asker = Asker::Gateway(self.own);
            let answer = match self.decisions.find(&asker, request.attributes, Instant::now()) {
                Found::Known(answer) => answer,
                Found::Unknown(question) => self.decisions.ask_anyway(*question).await,
            };
            match answer {
                Some(answer) => Ok(Authorization {
                    decision: if answer.is_allowed {
                        Decision::Allow
                    } else {
                        Decision::Deny
                    },
                    reason: answer.reason.to_string(),
                }),
                None => Err("the gateway cannot learn whether this is allowed".to_owned()),
            }
        })
    }
}

/// What an answer's own text says about the decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// The authorizer refused, for this reason.
    Forbidden(String),
    /// The request came past the authorizer.
    Handled,
    /// The server handed the connection on, and somebody behind it refused: what a review says holds.
    HandedOn,
    /// The request did not reach the authorizer.
    Unknown,
}

impl Evidence {
    /// Reads code and Status of an answer.
    ///
    /// A 403 in the authorizer's own words about this very request is its refusal; in other words it is
    /// an admission controller's, which the authorizer had let the request come to.
    pub(crate) fn of(
        code: StatusCode,
        status: Option<&Status>,
        user: &UserInfo,
        info: &RequestInfo,
        is_impersonated: bool,
    ) -> Self {
        let message = status
            .map(|status| status.message.to_string_lossy().into_owned())
            .unwrap_or_default();
        match code {
            StatusCode::FORBIDDEN => match forbidden_reason(&message, user, info) {
                Some(reason) => Self::Forbidden(reason.to_owned()),
                None if is_impersonated && refuses_impersonation(&message, user, info) => Self::Unknown,
                None if message.is_empty() => Self::Unknown,
                None => Self::Handled,
            },
            StatusCode::UNAUTHORIZED
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Self::Unknown,
            StatusCode::BAD_REQUEST if is_impersonated => Self::Unknown,
            _ if message.ends_with(" without impersonating a user name") => Self::Unknown,
            _ => Self::Handled,
        }
    }

    /// Reads the refusal of an upgrade. Of what the kubelet says to an exec the server sees nothing but that the
    /// connection is no longer its own, so the answer has none of its marks.
    ///
    /// Source: k8s.io/apimachinery pkg/util/proxy/upgradeaware.go, tryUpgrade.
    pub(crate) fn of_upgrade(self, head: &Parts, status: Option<&Status>) -> Self {
        let is_servers_own = status.is_some() || head.headers.contains_key(AUDIT_ID);
        if self == Self::Unknown && head.status == StatusCode::FORBIDDEN && !is_servers_own {
            Self::HandedOn
        } else {
            self
        }
    }

    /// Whether nothing is left to ask.
    pub(crate) const fn is_complete(&self) -> bool {
        matches!(self, Self::Forbidden(_))
    }
}

/// Writes the annotations that the cluster's own event has.
pub(crate) fn annotate(audit: &AuditContext, evidence: Evidence, answer: Option<Answer>) {
    let (decision, reason, source) = match (evidence, answer) {
        (Evidence::Forbidden(reason), _) => ("forbid", Some(reason), "message"),
        (Evidence::Handled | Evidence::HandedOn, Some(answer)) if answer.is_allowed => {
            ("allow", Some(answer.reason.to_string()), "review")
        }
        (Evidence::Handled, _) => ("allow", None, "none"),
        // Nobody but the cluster knows, and the event says so.
        (Evidence::HandedOn | Evidence::Unknown, _) => return audit.annotate(SOURCE, "unknown"),
    };
    audit.annotate(DECISION, decision);
    if let Some(reason) = reason {
        audit.annotate(REASON, reason);
    }
    audit.annotate(SOURCE, source);
}

#[cfg(test)]
mod tests {
    use kaudit_policy::{RequestInfoResolver, RequestTarget};

    use super::*;

    fn evidence(code: u16, message: &'static str, is_impersonated: bool) -> Evidence {
        let target = RequestTarget::parse(b"GET", b"/api/v1/namespaces/shop/configmaps").unwrap();
        let info = RequestInfoResolver::default().resolve(b"GET", &target).unwrap();
        let status = Status {
            message: message.into(),
            ..Status::default()
        };
        let code = StatusCode::from_u16(code).unwrap();
        Evidence::of(code, Some(&status), &UserInfo::default(), &info, is_impersonated)
    }

    #[test]
    fn a_refused_impersonation_never_reached_the_authorizer_of_the_request() {
        let legacy = "users \"alice\" is forbidden: User \"mallory\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope";
        let constrained = "configmaps is forbidden: User \"mallory\" cannot impersonate-on:user-info:list resource \"configmaps\" in API group \"\" in the namespace \"shop\"";
        let nobody = "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"developers\"}, Extra:map[string][]string(nil)} without impersonating a user name";
        assert_eq!(evidence(403, legacy, true), Evidence::Unknown);
        assert_eq!(evidence(403, constrained, true), Evidence::Unknown);
        assert_eq!(evidence(400, nobody, false), Evidence::Unknown);
        assert_eq!(evidence(400, "the name is wrong", false), Evidence::Handled);
    }
}
