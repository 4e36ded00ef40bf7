//! Everything inbound: listeners with TLS that reloads, limits, timeouts and drain.
//!
//! [`Listener::bind`] takes the socket at once, so that a wrong address fails at start; [`Listener::serve`]
//! runs until it is told to stop, then lets what is in flight finish within a grace period, and who is about to
//! ask be answered. [`Listener::adopt`] takes a socket that outlives the process. HTTP/1.1 and
//! HTTP/2 are served on one port, chosen by ALPN, or by the first bytes where there is no TLS.

mod activity;
mod addresses;
mod connection;
mod gathered;
mod limits;
mod metrics;
mod proxy_protocol;
mod server;
mod streams;
mod tls;
mod workers;

pub use connection::ConnectionInfo;
pub use hyper_util::service::TowerToHyperService;
pub use limits::Limits;
pub use metrics::{ListenerMetrics, Refused};
pub use proxy_protocol::ProxyProtocol;
pub use server::{ListenConfig, ListenError, Listener};
pub use streams::Turn;
pub use tls::{ClientCertificates, ServerTls, SniCertificate, TlsError, TlsOptions, TlsVersion};
pub use workers::Workers;
