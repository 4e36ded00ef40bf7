//! The auditing reverse proxy: kube-apiserver's audit events for a cluster whose control plane cannot be
//! configured.
//!
//! A client's request goes through [`kaudit_tower`]'s chain and then, unchanged but for the headers that
//! a proxy must touch, to the cluster, with the client's own credentials. The gateway itself has none: who
//! asks is learnt by a SelfSubjectReview and what was decided by a SelfSubjectAccessReview, both sent with
//! the client's token. Where identity cannot be learnt, nothing is forwarded.
//!
//! A request runs through `gateway` (connections), `identity` (who asks), `proxy` (forwarding), `decision`
//! (what the cluster's authorizer said), and, when it becomes a session, `tunnel`.

mod body;
mod cache;
mod decision;
mod gateway;
mod headers;
mod identity;
mod metrics;
mod path;
mod proxy;
mod review;
mod tunnel;

pub use body::Body;
pub use cache::NoRandomness;
pub use gateway::{Builder, Gateway, GatewayService};
pub use metrics::MetricsSnapshot;
pub use path::PathMode;
