//! Everything outbound: kubeconfig, client TLS, connections.
//!
//! [`Cluster`] is where to go and how to trust it, read from a kubeconfig; [`Upstream`] holds connections
//! there. Request targets are sent as they were received.

mod connect;
mod kubeconfig;
mod tls;
mod upstream;

pub use connect::ConnectError;
pub use kubeconfig::{Cluster, Credential, KubeconfigError, Server};
pub use tls::{ClientTls, ClientTlsError, Trust};
pub use upstream::{BoxError, OutgoingBody, SendError, Upstream, UpstreamBody, UpstreamMetrics};
