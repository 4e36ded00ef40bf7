//! Kubernetes auditing as a tower middleware.
//!
//! [`Audit`] is the request chain of kube-apiserver in one call that fixes its order: audit init,
//! panic recovery, received time, RequestInfo, deadline, authentication (with the audit of failures),
//! audit, impersonation, authorization, and the service. It makes one event per stage and exactly one
//! final event per audited request, also when the client leaves, the service panics, or the connection
//! becomes a tunnel.
//!
//! The service finds in the request's extensions an [`AuditContext`]: who asks and for what, and where to
//! annotate the event and to say what was answered. With the feature `axum` it is an extractor, and a
//! [`StatusError`] is a response; `examples/axum-apiserver.rs` is a whole program.
//!
//! Source: k8s.io/apiserver pkg/server/config.go, DefaultBuildHandlerChain, and pkg/endpoints/filters.

mod audit_id;
mod authn;
mod authz;
#[cfg(feature = "axum")]
mod axum;
mod bodies;
mod body;
mod capture;
mod chain;
mod context;
mod deadline;
mod impersonation;
mod latency;
mod metrics;
mod policy;
mod status;

#[cfg(feature = "x509")]
pub use authn::certificate::{AuthorityError, ClientAuthority, certificate_user};
#[cfg(feature = "x509")]
pub use authn::front_proxy::{FrontProxy, FrontProxyHeaders};
pub use authn::{
    Anonymous, Authentication, Authenticator, BoxFuture, ClientCertificates, RemoteAddr,
    with_authenticated_group,
};
pub use authz::{
    AlwaysAllow, Authorization, AuthorizationRequest, Authorizer, Decision, forbidden_reason,
    refuses_impersonation,
};
pub use bodies::{ObjectMeta, parse_status};
pub use body::{BoxError, RequestBody, ResponseBody};
pub use capture::{Bodies, Capture};
pub use chain::{Audit, AuditBuilder, AuditFuture, AuditLayer, AuditService};
pub use context::{AuditContext, SessionGuard};
pub use impersonation::{Impersonated, Impersonation, Request as ImpersonationRequest};
pub use metrics::{Metrics, MetricsSnapshot};
pub use policy::PolicyHandle;
pub use status::{StatusError, status_response, text_response};
