//! Whose a bearer token is: the cluster says it, asked with the token itself or about it.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use kaudit_event::{Text, UserInfo};
use kaudit_tower::Anonymous;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use tracing::warn;

use crate::cache::{Cache, Found, Hasher, Key};
use crate::metrics::{Metrics, count};
use crate::own::OwnCredential;
use crate::review::{Credentials, ReviewError, Reviewer};

const SELF_SUBJECT_REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A user stays known for as long as kube-apiserver keeps a reviewed token.
const KNOWN: Duration = Duration::from_secs(10);

/// Wrong credentials may become right at any moment.
const REFUSED: Duration = Duration::from_secs(5);

/// While the cluster does not answer, it is asked no more often.
const UNAVAILABLE: Duration = Duration::from_secs(1);

/// How bearer tokens become users.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Tokens {
    /// The cluster is asked with the token itself who its bearer is (SelfSubjectReview). The gateway needs
    /// no rights.
    #[default]
    SelfSubject,
    /// The cluster is asked about the token (TokenReview), with the gateway's own credential.
    Reviewed(OwnCredential),
}

/// What the cluster said of credentials.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    User(Arc<UserInfo>),
    Refused,
    Unavailable(Arc<str>),
}

/// Asks whose tokens are and remembers it for moments.
#[derive(Debug)]
pub(crate) struct TokenUsers {
    tokens: Tokens,
    reviewer: Reviewer,
    cache: Cache<Answer>,
    hasher: Hasher,
    metrics: Arc<Metrics>,
}

impl TokenUsers {
    pub(crate) fn new(tokens: Tokens, reviewer: Reviewer, hasher: Hasher, metrics: Arc<Metrics>) -> Self {
        Self {
            tokens,
            reviewer,
            cache: Cache::new(),
            hasher,
            metrics,
        }
    }

    /// The answer that is known already.
    pub(super) fn known(&self, key: Key, now: Instant) -> Option<Answer> {
        let answer = self.cache.known(key, now)?;
        count(&self.metrics.identity_hits);
        Some(answer)
    }

    pub(super) async fn ask(&self, credentials: &Credentials, key: Key) -> Answer {
        let (answer, found) = self.cache.answer(key, || self.review(credentials)).await;
        count(match found {
            Found::Known => &self.metrics.identity_hits,
            Found::Asked => &self.metrics.identity_reviews,
        });
        answer
    }

    /// Names credentials.
    pub(super) fn key(&self, credentials: &Credentials) -> Key {
        self.hasher.key(credentials.parts())
    }

    async fn review(&self, credentials: &Credentials) -> (Answer, Duration) {
        let token = credentials.token();
        match (&self.tokens, token) {
            (Tokens::Reviewed(own), Some(token)) => self.token_review(own, token).await,
            // Who shows no token has to be asked for as nobody in particular.
            (Tokens::SelfSubject | Tokens::Reviewed(_), _) => self.self_subject_review(credentials).await,
        }
    }

    async fn self_subject_review(&self, credentials: &Credentials) -> (Answer, Duration) {
        let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
        let answer = self
            .reviewer
            .ask::<SelfSubjectReview>(SELF_SUBJECT_REVIEWS, credentials.headers(), &review)
            .await;
        match answer {
            Ok(review) => self.user(review.status.user_info),
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

    async fn token_review(&self, own: &OwnCredential, token: &[u8]) -> (Answer, Duration) {
        let review = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
            "spec": {"token": String::from_utf8_lossy(token)}});
        match self.reviewer.ask_as::<TokenReview>(own, TOKEN_REVIEWS, &review).await {
            Ok(TokenReview { status }) if status.authenticated => self.user(status.user),
            Ok(TokenReview { status }) if status.error.is_empty() || is_refusal(&status.error) => {
                (Answer::Refused, REFUSED)
            }
            Ok(TokenReview { status }) => self.unavailable(&status.error),
            Err(ReviewError::Code(StatusCode::FORBIDDEN)) => self.unavailable(
                "the gateway may not create tokenreviews: bind its user to the ClusterRole system:auth-delegator",
            ),
            Err(error) => self.unavailable(&error.to_string()),
        }
    }

    fn user(&self, user: WireUser) -> (Answer, Duration) {
        if user.username.is_empty() {
            return self.unavailable("the cluster's answer names no user");
        }
        (Answer::User(Arc::new(user.into())), KNOWN)
    }

    fn unavailable(&self, why: &str) -> (Answer, Duration) {
        count(&self.metrics.identity_failures);
        warn!(%why, "cannot learn who asks");
        (Answer::Unavailable(Arc::from(why)), UNAVAILABLE)
    }
}

/// Whether a review's error says that the token is wrong, and not that it could not be looked at.
fn is_refusal(error: &str) -> bool {
    ["invalid bearer token", "token lookup failed", "unauthorized"]
        .iter()
        .any(|text| error.to_ascii_lowercase().contains(text))
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

#[derive(Deserialize)]
struct TokenReview {
    #[serde(default)]
    status: TokenReviewStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenReviewStatus {
    authenticated: bool,
    user: WireUser,
    error: String,
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
