//! Who asks.

#[cfg(feature = "x509")]
pub(crate) mod certificate;
#[cfg(feature = "x509")]
pub(crate) mod front_proxy;

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::request::Parts;
use kaudit_event::{Text, UserInfo};

use crate::{AuditContext, StatusError};

/// A future that is not named.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The peer's address; the server puts it into each request's extensions.
#[derive(Clone, Debug)]
pub struct RemoteAddr(pub Text);

impl From<SocketAddr> for RemoteAddr {
    fn from(address: SocketAddr) -> Self {
        Self(Text::from(address.to_string()))
    }
}

/// The peer's verified certificates in DER, leaf first; the server puts them into the extensions.
#[derive(Clone, Debug, Default)]
pub struct ClientCertificates(pub Vec<Bytes>);

/// What an authenticator found out.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "the chain must look at each")]
pub enum Authentication {
    /// This user.
    User(Arc<UserInfo>),
    /// Nobody: no credentials, or wrong ones. Answered 401.
    Failed,
    /// It cannot be learnt now. Answered with this error; the request goes no further.
    Unavailable(StatusError),
}

/// Tells who asks. It may annotate the event; that is kept also when authentication fails.
pub trait Authenticator: Send + Sync + fmt::Debug {
    /// The answer where it is known without waiting; `None` has [`Authenticator::authenticate`] called.
    fn authenticate_now(&self, _: &Parts, _: &AuditContext) -> Option<Authentication> {
        None
    }

    /// Authenticates one request by its head.
    fn authenticate<'a>(&'a self, parts: &'a Parts, audit: &'a AuditContext)
    -> BoxFuture<'a, Authentication>;
}

/// Everybody is `system:anonymous`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

impl Anonymous {
    /// The anonymous user.
    #[must_use]
    pub fn user() -> UserInfo {
        UserInfo {
            username: Text::from_static("system:anonymous"),
            groups: Some(vec![Text::from_static("system:unauthenticated")]),
            ..UserInfo::default()
        }
    }
}

const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Adds the group of everybody who is known; the anonymous user and who is in it already stay as they are.
///
/// Source: k8s.io/apiserver pkg/authentication/group/authenticated_group_adder.go.
#[must_use]
pub fn with_authenticated_group(mut user: UserInfo) -> UserInfo {
    let groups = user.groups.get_or_insert_default();
    let is_known = groups
        .iter()
        .any(|group| *group == AUTHENTICATED || *group == UNAUTHENTICATED);
    if user.username != "system:anonymous" && !is_known {
        groups.push(Text::from_static(AUTHENTICATED));
    }
    user
}

impl Authenticator for Anonymous {
    fn authenticate_now(&self, _: &Parts, _: &AuditContext) -> Option<Authentication> {
        static ANONYMOUS: LazyLock<Arc<UserInfo>> = LazyLock::new(|| Arc::new(Anonymous::user()));
        Some(Authentication::User(Arc::clone(&ANONYMOUS)))
    }

    fn authenticate<'a>(&'a self, _: &'a Parts, _: &'a AuditContext) -> BoxFuture<'a, Authentication> {
        Box::pin(std::future::ready(Authentication::User(Arc::new(Self::user()))))
    }
}

/// The text that says what a request without a user tried.
///
/// Source: k8s.io/apiserver pkg/endpoints/filters/authn_audit.go, getAuthMethods.
pub(crate) fn failure_message(parts: &Parts) -> String {
    let authorization = parts
        .headers
        .get(http::header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let scheme = authorization
        .map(str::trim)
        .and_then(|value| value.split_once(' '))
        .map(|(scheme, _)| scheme);
    let is = |name: &str| scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(name));
    let mut methods = Vec::new();
    if is("basic") {
        methods.push("basic");
    }
    if is("bearer") {
        methods.push("bearer");
    }
    let token = parts.uri.query().and_then(|query| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix("access_token="))
    });
    if token.is_some_and(|token| !token.trim().is_empty()) {
        methods.push("access_token");
    }
    if parts
        .extensions
        .get::<ClientCertificates>()
        .is_some_and(|certificates| !certificates.0.is_empty())
    {
        methods.push("x509");
    }
    if methods.is_empty() {
        "Authentication failed, no credentials provided".to_owned()
    } else {
        format!("Authentication failed, attempted: {}", methods.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_are_in_the_group_of_the_known_once() {
        let user = with_authenticated_group(UserInfo {
            username: Text::from_static("ann"),
            ..UserInfo::default()
        });
        assert_eq!(user.groups, Some(vec![Text::from_static(AUTHENTICATED)]));
        assert_eq!(with_authenticated_group(user.clone()), user);
        let anonymous = Anonymous::user();
        assert_eq!(with_authenticated_group(anonymous.clone()), anonymous);
    }
}
