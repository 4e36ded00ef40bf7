//! Who asks: learnt from the cluster by a SelfSubjectReview with the client's own credentials.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use kaudit_event::{Text, UserInfo};
use kaudit_policy::RequestInfo;
use kaudit_tower::{Anonymous, AuditContext, Authentication, Authenticator, BoxFuture, StatusError};
use serde::Deserialize;
use tracing::warn;

use crate::cache::{Cache, Found, Hasher};
use crate::metrics::{Metrics, count};
use crate::review::{Credentials, ReviewError, Reviewer};

const PATH: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// A user stays known for as long as kube-apiserver keeps a reviewed token.
const KNOWN: Duration = Duration::from_secs(10);

/// Wrong credentials may become right at any moment.
const REFUSED: Duration = Duration::from_secs(5);

/// While the cluster does not answer, it is asked no more often.
const UNAVAILABLE: Duration = Duration::from_secs(1);

/// INVARIANT G-3: a request whose user this does not name goes no further.
#[derive(Debug)]
pub(crate) struct Identity {
    reviewer: Reviewer,
    cache: Cache<Answer>,
    hasher: Hasher,
    metrics: Arc<Metrics>,
}

#[derive(Clone, Debug)]
enum Answer {
    User(Arc<UserInfo>),
    Refused,
    Unavailable(Arc<str>),
}

impl Identity {
    pub(crate) fn new(reviewer: Reviewer, hasher: Hasher, metrics: Arc<Metrics>) -> Self {
        Self {
            reviewer,
            cache: Cache::new(),
            hasher,
            metrics,
        }
    }

    async fn review(&self, credentials: &Credentials) -> (Answer, Duration) {
        let review =
            serde_json::json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
        let answer = self
            .reviewer
            .ask::<SelfSubjectReview>(PATH, credentials.headers(), &review)
            .await;
        match answer {
            Ok(review) if !review.status.user_info.username.is_empty() => {
                (Answer::User(Arc::new(review.status.user_info.into())), KNOWN)
            }
            Ok(_) => self.unavailable("the cluster's answer names no user"),
            Err(ReviewError::Code(StatusCode::UNAUTHORIZED)) => (Answer::Refused, REFUSED),
            // Anonymous requests may not ask who they are, but they are let in.
            Err(ReviewError::Code(StatusCode::FORBIDDEN)) if credentials.is_none() => {
                (Answer::User(Arc::new(Anonymous::user())), KNOWN)
            }
            Err(ReviewError::Code(StatusCode::NOT_FOUND)) => self.unavailable(
                "the cluster does not serve authentication.k8s.io/v1 selfsubjectreviews (Kubernetes 1.28)",
            ),
            Err(error) => self.unavailable(&error.to_string()),
        }
    }

    fn unavailable(&self, why: &str) -> (Answer, Duration) {
        count(&self.metrics.identity_failures);
        warn!(%why, "cannot learn who asks");
        (Answer::Unavailable(Arc::from(why)), UNAVAILABLE)
    }
}

impl Authenticator for Identity {
    fn authenticate<'a>(&'a self, parts: &'a Parts, _: &'a AuditContext) -> BoxFuture<'a, Authentication> {
        Box::pin(async move {
            let credentials = Credentials::of(&parts.headers);
            let key = self.hasher.key(credentials.parts());
            let (answer, found) = self.cache.answer(key, || self.review(&credentials)).await;
            count(match found {
                Found::Known => &self.metrics.identity_hits,
                Found::Asked => &self.metrics.identity_reviews,
            });
            match answer {
                Answer::User(user) => Authentication::User(user),
                // A cluster may let nobody in anonymously but for probes and discovery: it decides.
                Answer::Refused if credentials.is_none() && is_non_resource(parts) => {
                    Authentication::User(Arc::new(Anonymous::user()))
                }
                Answer::Refused => Authentication::Failed,
                Answer::Unavailable(why) => Authentication::Unavailable(StatusError::unavailable(format!(
                    "the gateway cannot learn who asks, so the request was not forwarded: {why}"
                ))),
            }
        })
    }
}

fn is_non_resource(parts: &Parts) -> bool {
    parts
        .extensions
        .get::<Arc<RequestInfo>>()
        .is_some_and(|info| !info.is_resource_request())
}

#[derive(Deserialize)]
struct SelfSubjectReview {
    #[serde(default)]
    status: ReviewStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReviewStatus {
    user_info: WireUser,
}

/// `authentication.k8s.io/v1` UserInfo.
#[derive(Default, Deserialize)]
#[serde(default)]
struct WireUser {
    username: String,
    uid: String,
    groups: Option<Vec<String>>,
    extra: std::collections::BTreeMap<String, Option<Vec<String>>>,
}

impl From<WireUser> for UserInfo {
    fn from(user: WireUser) -> Self {
        let texts = |values: Vec<String>| values.into_iter().map(Text::from).collect();
        Self {
            username: user.username.into(),
            uid: user.uid.into(),
            groups: user.groups.map(texts),
            extra: user
                .extra
                .into_iter()
                .map(|(key, values)| (key.into(), values.map(texts)))
                .collect(),
        }
    }
}
