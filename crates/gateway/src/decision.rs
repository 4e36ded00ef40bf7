//! What the cluster's authorizer said: asked by a SelfSubjectAccessReview while the request is under way,
//! or read from the refusal itself.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use kaudit_event::{Status, UserInfo};
use kaudit_policy::RequestInfo;
use kaudit_tower::{AuditContext, forbidden_reason};
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::cache::{Cache, Found, Hasher, Key};
use crate::metrics::{Metrics, count};
use crate::review::{Credentials, Reviewer};

const PATH: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

const DECISION: &str = "authorization.k8s.io/decision";
const REASON: &str = "authorization.k8s.io/reason";
const SOURCE: &str = "kaudit.dev/authz-source";

/// As long as kube-apiserver's webhook authorizer remembers a refusal.
const KNOWN: Duration = Duration::from_secs(10);

const UNAVAILABLE: Duration = Duration::from_secs(1);

/// Asks for decisions and remembers them for moments.
#[derive(Debug)]
pub(crate) struct Decisions {
    reviewer: Reviewer,
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

/// One question, free of the request that it is about.
#[derive(Debug)]
pub(crate) struct Question {
    credentials: HeaderMap,
    key: Key,
    review: Review,
}

impl Decisions {
    pub(crate) fn new(reviewer: Reviewer, hasher: Hasher, metrics: Arc<Metrics>) -> Self {
        Self {
            reviewer,
            cache: Cache::new(),
            hasher,
            metrics,
        }
    }

    /// What to ask about a request; `headers` are those that go to the cluster.
    pub(crate) fn question(&self, headers: &HeaderMap, info: &RequestInfo) -> Question {
        let credentials = Credentials::of(headers);
        let mut sent = credentials.headers();
        let impersonation = headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("impersonate-"));
        for (name, value) in impersonation {
            sent.append(HeaderName::clone(name), value.clone());
        }
        let review = Review::of(info);
        let named = sent
            .iter()
            .flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]);
        let attributes = review.spec.parts();
        let key = self
            .hasher
            .key(named.chain(attributes.iter().map(|part| part.as_bytes())));
        Question {
            credentials: sent,
            key,
            review,
        }
    }

    /// The cluster's answer; `None` when it gives none.
    pub(crate) async fn ask(&self, question: Question) -> Option<Answer> {
        let Question {
            credentials,
            key,
            review,
        } = question;
        let ask = || async {
            match self.reviewer.ask::<Reviewed>(PATH, credentials, &review).await {
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
            Found::Known => &self.metrics.decision_hits,
            Found::Asked => &self.metrics.decision_reviews,
        });
        answer
    }
}

/// What an answer's own text says about the decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// The authorizer refused, for this reason.
    Forbidden(String),
    /// The request came past the authorizer.
    Handled,
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
                None if is_impersonated && message.contains(" cannot impersonate") => Self::Unknown,
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

    /// Whether nothing is left to ask.
    pub(crate) const fn is_complete(&self) -> bool {
        matches!(self, Self::Forbidden(_))
    }
}

/// Writes the annotations that the cluster's own event has.
pub(crate) fn annotate(audit: &AuditContext, evidence: Evidence, answer: Option<Answer>) {
    let (decision, reason, source) = match (evidence, answer) {
        (Evidence::Forbidden(reason), _) => ("forbid", Some(reason), "message"),
        (Evidence::Handled, Some(answer)) if answer.is_allowed => {
            ("allow", Some(answer.reason.to_string()), "review")
        }
        (Evidence::Handled, _) => ("allow", None, "none"),
        (Evidence::Unknown, _) => return,
    };
    audit.annotate(DECISION, decision);
    if let Some(reason) = reason {
        audit.annotate(REASON, reason);
    }
    audit.annotate(SOURCE, source);
}

/// `authorization.k8s.io/v1` SelfSubjectAccessReview.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    kind: &'static str,
    api_version: &'static str,
    spec: Spec,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Spec {
    ResourceAttributes {
        namespace: String,
        verb: String,
        group: String,
        version: String,
        resource: String,
        subresource: String,
        name: String,
    },
    NonResourceAttributes {
        path: String,
        verb: String,
    },
}

impl Review {
    fn of(info: &RequestInfo) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let spec = if info.is_resource_request() {
            Spec::ResourceAttributes {
                namespace: text(info.namespace()),
                verb: text(info.verb()),
                group: text(info.api_group()),
                version: text(info.api_version()),
                resource: text(info.resource()),
                subresource: text(info.subresource()),
                name: text(info.name()),
            }
        } else {
            Spec::NonResourceAttributes {
                path: text(info.path()),
                verb: text(info.verb()),
            }
        };
        Self {
            kind: "SelfSubjectAccessReview",
            api_version: "authorization.k8s.io/v1",
            spec,
        }
    }
}

impl Spec {
    fn parts(&self) -> Vec<&str> {
        match self {
            Self::ResourceAttributes {
                namespace,
                verb,
                group,
                version,
                resource,
                subresource,
                name,
            } => vec![
                "resource",
                namespace,
                verb,
                group,
                version,
                resource,
                subresource,
                name,
            ],
            Self::NonResourceAttributes { path, verb } => vec!["path", path, verb],
        }
    }
}

#[derive(Deserialize)]
struct Reviewed {
    #[serde(default)]
    status: ReviewedStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ReviewedStatus {
    allowed: bool,
    reason: String,
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
