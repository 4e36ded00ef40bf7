//! What is known about a connection before its first request.

use std::net::SocketAddr;

use rustls_pki_types::CertificateDer;

/// A connection's ends and what its TLS handshake proved.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The peer.
    pub remote_addr: SocketAddr,
    /// This end.
    pub local_addr: SocketAddr,
    /// The protocol that ALPN chose, for example `h2`.
    pub alpn: Option<Vec<u8>>,
    /// The peer's certificates, leaf first; verified against the client authority, unless certificates are
    /// [`crate::ClientCertificates::Presented`]. Empty when the peer showed none.
    pub peer_certificates: Vec<CertificateDer<'static>>,
}
