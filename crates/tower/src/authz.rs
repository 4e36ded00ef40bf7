//! Who may.

use std::fmt;

use kaudit_event::UserInfo;
use kaudit_policy::{Attributes, RequestInfo};

use crate::authn::BoxFuture;
use crate::{AuditContext, StatusError};

/// What is to be decided: a user and what it asks for.
#[derive(Clone, Copy, Debug)]
pub struct AuthorizationRequest<'a> {
    /// Who.
    pub user: &'a UserInfo,
    /// The attributes of what is asked; for impersonation not those of the request itself.
    pub attributes: Attributes<'a>,
}

/// The answer of an authorizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "upstream has these three")]
pub enum Decision {
    /// It may.
    Allow,
    /// It may not.
    Deny,
    /// This authorizer does not say; which is a refusal in the end.
    NoOpinion,
}

/// A decision with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a decision and its reason")]
pub struct Authorization {
    /// The decision.
    pub decision: Decision,
    /// Why, for the audit annotation; may be empty.
    pub reason: String,
}

/// Decides.
pub trait Authorizer: Send + Sync + fmt::Debug {
    /// The decision where it is known without waiting; `None` has [`Authorizer::authorize`] called.
    fn authorize_now(&self, _: AuthorizationRequest<'_>) -> Option<Result<Authorization, String>> {
        None
    }

    /// Decides one request. An error is answered 500 and annotated as an internal error.
    fn authorize<'a>(
        &'a self,
        request: AuthorizationRequest<'a>,
    ) -> BoxFuture<'a, Result<Authorization, String>>;
}

/// Everybody may do everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysAllow;

impl AlwaysAllow {
    const fn answer() -> Result<Authorization, String> {
        Ok(Authorization {
            decision: Decision::Allow,
            reason: String::new(),
        })
    }
}

impl Authorizer for AlwaysAllow {
    fn authorize_now(&self, _: AuthorizationRequest<'_>) -> Option<Result<Authorization, String>> {
        Some(Self::answer())
    }

    fn authorize<'a>(&'a self, _: AuthorizationRequest<'a>) -> BoxFuture<'a, Result<Authorization, String>> {
        Box::pin(std::future::ready(Self::answer()))
    }
}

const DECISION: &str = "authorization.k8s.io/decision";
const REASON: &str = "authorization.k8s.io/reason";

/// Writes the two annotations, and the answer of a refused request.
///
/// Source: k8s.io/apiserver pkg/endpoints/filters/authorization.go, WithAuthorization.
pub(crate) fn conclude(
    outcome: Result<Authorization, String>,
    user: &UserInfo,
    info: &RequestInfo,
    audit: &AuditContext,
) -> Result<(), Refusal> {
    match outcome {
        Ok(Authorization {
            decision: Decision::Allow,
            reason,
        }) => {
            audit.annotate(DECISION, "allow");
            audit.annotate(REASON, reason);
            Ok(())
        }
        Ok(Authorization { reason, .. }) => {
            audit.annotate(DECISION, "forbid");
            audit.annotate(REASON, reason.clone());
            Err(Refusal::Forbidden(forbidden(user, info, &reason)))
        }
        Err(error) => {
            audit.annotate(REASON, "internal error");
            Err(Refusal::Internal(error))
        }
    }
}

/// Why a request goes no further.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Answered with a Status.
    Forbidden(StatusError),
    /// Answered 500 as plain text.
    Internal(String),
}

/// The Status of a refused request.
///
/// Source: k8s.io/apiserver pkg/endpoints/handlers/responsewriters/errors.go, Forbidden;
/// k8s.io/apimachinery pkg/api/errors/errors.go, NewForbidden.
pub(crate) fn forbidden(user: &UserInfo, info: &RequestInfo, reason: &str) -> StatusError {
    forbidden_by(&Attributes::new(Some(user), info), reason)
}

/// The same for what is asked about a request.
pub(crate) fn forbidden_by(attributes: &Attributes<'_>, reason: &str) -> StatusError {
    let message = forbidden_message(attributes);
    let message = if reason.is_empty() {
        message
    } else {
        format!("{message}: {reason}")
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !attributes.is_resource_request {
        return StatusError::forbidden("", "", "", format!("forbidden: {message}"));
    }
    let (resource, group) = (text(attributes.resource), text(attributes.api_group));
    let name = text(attributes.name);
    let qualified = if group.is_empty() {
        resource.clone()
    } else {
        format!("{resource}.{group}")
    };
    let message = if name.is_empty() {
        format!("{qualified} is forbidden: {message}")
    } else {
        format!(
            "{qualified} {} is forbidden: {message}",
            kaudit_event::go_quoted(name.as_bytes())
        )
    };
    StatusError::forbidden(&name, &group, &resource, message)
}

/// The authorizer's reason in the message of a 403 that refuses just this request to `user`; `None` when
/// the message is another's, for example an admission controller's.
#[must_use]
pub fn forbidden_reason<'m>(message: &'m str, user: &UserInfo, info: &RequestInfo) -> Option<&'m str> {
    let ours = forbidden(user, info, "").status.message;
    let rest = message.strip_prefix(&*ours.to_string_lossy())?;
    if rest.is_empty() {
        Some("")
    } else {
        rest.strip_prefix(": ")
    }
}

/// Whether the message of a 403 refuses the requester to be `acting`, by the verb `impersonate` or by one of the
/// constrained ones (`impersonate:user-info`, `impersonate-on:...`).
///
/// A refusal of the request itself is none, whatever stands in the names that it quotes: those are the client's.
#[must_use]
pub fn refuses_impersonation(message: &str, acting: &UserInfo, info: &RequestInfo) -> bool {
    message.contains(" cannot impersonate") && forbidden_reason(message, acting, info).is_none()
}

/// `User "u" cannot get resource "r" in API group "g" in the namespace "n"`, with HTML characters as
/// entities.
#[must_use]
pub(crate) fn forbidden_message(attributes: &Attributes<'_>) -> String {
    let quoted = |bytes: &[u8]| escape_html(&kaudit_event::go_quoted(bytes));
    let plain = |bytes: &[u8]| escape_html(&String::from_utf8_lossy(bytes));
    let user = attributes.user.map(|user| user.username.as_bytes());
    let user = quoted(user.unwrap_or_default());
    let verb = plain(attributes.verb);
    if !attributes.is_resource_request {
        return format!("User {user} cannot {verb} path {}", quoted(attributes.path));
    }
    let mut resource = attributes.resource.to_vec();
    if !attributes.subresource.is_empty() {
        resource.push(b'/');
        resource.extend_from_slice(attributes.subresource);
    }
    let what = format!(
        "User {user} cannot {verb} resource {} in API group {}",
        quoted(&resource),
        quoted(attributes.api_group)
    );
    if attributes.namespace.is_empty() {
        format!("{what} at the cluster scope")
    } else {
        format!("{what} in the namespace {}", quoted(attributes.namespace))
    }
}

/// `&`, `<` and `>` as entities: these texts may end in a browser.
pub(crate) fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
