//! Everything outbound: kubeconfig, client TLS, connections.
//!
//! [`Cluster`] is where to go and how to trust it, read from a kubeconfig; [`Upstream`] holds connections
//! there for requests that stream, whose targets are sent as they were received. [`Client`] is for requests
//! of known length: it keeps credentials current and speaks HTTP/2 where that is negotiated.

mod causes;
mod client;
mod connect;
mod credential;
mod exec;
mod impersonation;
mod kubeconfig;
mod proxy;
mod server;
mod tls;
mod upstream;

pub use causes::with_causes;
pub use client::{Answer, Client, ClientError};
pub use connect::{ConnectError, Protocol};
pub use credential::{Credential, CredentialError, CurrentCredential, Identity, Pem};
pub use exec::{ExecError, ExecPlugin};
pub use impersonation::escaped_extra_key;
pub use kubeconfig::{Cluster, KubeconfigError};
pub use proxy::Proxy;
pub use server::Server;
pub use tls::{ClientTls, ClientTlsError, Trust};
pub use upstream::{
    BodyError, BoxError, Load, OutgoingBody, SendError, ServerMetrics, Servers, Upstream, UpstreamBody,
    UpstreamMetrics, UpstreamOptions, take_lane,
};
