//! Who asks: a front proxy's word, a client certificate, a bearer token, or nobody in particular.
//!
//! Source: kubernetes pkg/kubeapiserver/authenticator/config.go, Config.New.

mod certificates;
mod tokens;

use std::sync::Arc;
use std::time::SystemTime;

use http::request::Parts;
use kaudit_tower::{
    Anonymous, AuditContext, Authentication, Authenticator, BoxFuture, StatusError, with_authenticated_group,
};

use crate::arrival::{Arrival, AsUser, Passage};
use crate::cache::Key;
use crate::metrics::{Metrics, count};
use crate::review::Credentials;
pub use certificates::{Authorities, AuthoritiesHandle};
use tokens::Answer;
pub(crate) use tokens::TokenUsers;
pub use tokens::Tokens;

/// What becomes of requests without credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "forwarded or refused")]
pub enum AnonymousRequests {
    /// They are forwarded; the cluster decides.
    #[default]
    Forwarded,
    /// They are answered 401.
    Refused,
}

/// INVARIANT G-3: a request whose user this does not name goes no further.
#[derive(Debug)]
pub(crate) struct Identity {
    tokens: TokenUsers,
    authorities: Option<AuthoritiesHandle>,
    anonymous: AnonymousRequests,
    metrics: Arc<Metrics>,
    clock: fn() -> SystemTime,
}

/// What a certificate says of a request.
enum ByCertificate {
    Named(Authentication),
    /// There is none.
    Nothing,
    /// There is one that names nobody whom the gateway believes: only another credential helps.
    Bad,
}

impl Identity {
    pub(crate) fn new(
        tokens: TokenUsers,
        authorities: Option<AuthoritiesHandle>,
        anonymous: AnonymousRequests,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            tokens,
            authorities,
            anonymous,
            metrics,
            clock: system_clock,
        }
    }

    /// The first kind of credentials that is good counts, whatever else the request bears.
    fn by_certificate(&self, parts: &Parts, arrival: &Arrival) -> ByCertificate {
        let (Some(authorities), Some(shown)) = (&self.authorities, &arrival.certificates) else {
            return ByCertificate::Nothing;
        };
        let worth = authorities.worth(shown, self.clock);
        let named_by_proxy = || authorities.current().front_proxy_headers()?.user(&parts.headers);
        let user = match (worth.is_front_proxy.then(named_by_proxy).flatten(), worth.as_user) {
            (Some(user), _) => {
                count(&self.metrics.identity_front_proxy);
                Arc::new(with_authenticated_group(user))
            }
            (None, AsUser::Named(user)) => {
                count(&self.metrics.identity_certificates);
                user
            }
            (None, AsUser::Nameless) => return ByCertificate::Nothing,
            (None, AsUser::Foreign) => return ByCertificate::Bad,
        };
        arrival.set_passage(Passage::Impersonating);
        ByCertificate::Named(Authentication::User(user))
    }

    /// What the cluster's word on a token, or on none, means for the request.
    fn conclude(
        &self,
        answer: Answer,
        (credentials, key): (&Credentials, Key),
        audit: &AuditContext,
        arrival: &Arrival,
    ) -> Authentication {
        let user = match answer {
            Answer::User(user) => user,
            // A cluster may let nobody in anonymously but for probes and discovery: it decides.
            Answer::Refused if credentials.is_none() && !audit.request_info().is_resource_request() => {
                Arc::new(Anonymous::user())
            }
            Answer::Refused => return Authentication::Failed,
            Answer::Unavailable(why) => {
                return Authentication::Unavailable(StatusError::unavailable(format!(
                    "the gateway cannot learn who asks, so the request was not forwarded: {why}"
                )));
            }
        };
        arrival.set_passage(Passage::AsItCame(key));
        Authentication::User(user)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates and credentials are good for a time, and this is where it enters"
)]
pub(crate) fn system_clock() -> SystemTime {
    SystemTime::now()
}

impl Authenticator for Identity {
    fn authenticate_now(&self, parts: &Parts, audit: &AuditContext) -> Option<Authentication> {
        // Without it the proxy forwards nothing, so that any answer is safe.
        let Some(arrival) = parts.extensions.get::<Arc<Arrival>>() else {
            return Some(Authentication::Failed);
        };
        arrival.passing.is(audit);
        let is_bad = match self.by_certificate(parts, arrival) {
            ByCertificate::Named(user) => return Some(user),
            ByCertificate::Bad => true,
            ByCertificate::Nothing => false,
        };
        let credentials = Credentials::of(&parts.headers);
        if credentials.is_none() && (is_bad || self.anonymous == AnonymousRequests::Refused) {
            return Some(Authentication::Failed);
        }
        let key = self.tokens.key(&credentials);
        let answer = self.tokens.known(key, arrival.passing.began())?;
        Some(self.conclude(answer, (&credentials, key), audit, arrival))
    }

    /// Asks the cluster about what [`Self::authenticate_now`] did not know.
    fn authenticate<'a>(
        &'a self,
        parts: &'a Parts,
        audit: &'a AuditContext,
    ) -> BoxFuture<'a, Authentication> {
        Box::pin(async move {
            let Some(arrival) = parts.extensions.get::<Arc<Arrival>>() else {
                return Authentication::Failed;
            };
            let credentials = Credentials::of(&parts.headers);
            let key = self.tokens.key(&credentials);
            let answer = self.tokens.ask(&credentials, key).await;
            self.conclude(answer, (&credentials, key), audit, arrival)
        })
    }
}
