//! The auditing reverse proxy: kube-apiserver's audit events for a cluster whose control plane cannot be
//! configured.
//!
//! A client's request goes through [`kaudit_tower`]'s chain and then, unchanged but for the headers that
//! a proxy must touch, to the cluster. Whoever brings a token goes with it, and the gateway needs no
//! credential: who asks is learnt by a SelfSubjectReview and what was decided by a SelfSubjectAccessReview,
//! both sent with the client's token. Whom a client certificate or a front proxy names is impersonated
//! with an [`OwnCredential`]. Where identity cannot be learnt, nothing is forwarded.
//!
//! A request runs through `gateway` (connections), `identity` (who asks), `proxy` (forwarding, as it came or
//! by `impersonate`), `decision` (what the cluster's authorizer said), and, when it becomes a session,
//! `tunnel`. `upload` is a client's body on this way, `arrival` what one part of it tells another, and `traffic`
//! counts what went it.

mod access;
mod arrival;
mod body;
mod cache;
mod completion;
mod decision;
mod gateway;
mod headers;
mod identity;
mod impersonate;
mod inflight;
mod metrics;
mod own;
mod path;
mod patience;
mod proxy;
mod redirect;
mod review;
mod traffic;
mod trust;
mod tunnel;
mod upload;
mod watches;

pub use access::Access;
pub use body::{Body, Delivery};
pub use cache::NoRandomness;
pub use decision::{Asked, DecisionReviews};
pub use gateway::{Builder, Gateway, GatewayService};
pub use identity::{AnonymousRequests, Authorities, AuthoritiesHandle, Tokens};
pub use metrics::MetricsSnapshot;
pub use own::{OwnCredential, OwnCredentialError};
pub use path::PathMode;
pub use redirect::Redirects;
pub use traffic::TrafficSnapshot;
pub use trust::TrustedProxies;
