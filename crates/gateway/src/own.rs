//! The gateway's own credential: with it tokens and access are reviewed, and users are impersonated.

use std::sync::Arc;

use http::HeaderValue;
use kaudit_dial::{
    ClientTlsError, Cluster, Credential, CredentialError, CurrentCredential, Upstream, UpstreamOptions,
};

use crate::identity::system_clock;

/// Why the gateway has no credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnCredentialError {
    /// The kubeconfig names none.
    #[error(
        "the kubeconfig of the cluster has no credential for the gateway itself, which client certificates, a front \
         proxy and reviews of tokens need: give its user a token, a token file, a client certificate, or a plugin"
    )]
    None,
    /// It would travel in the clear.
    #[error("the cluster is reached by plain HTTP, over which the gateway does not send its own credential")]
    PlainHttp,
    /// It cannot be used.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// Its certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] ClientTlsError),
}

/// The gateway's own credential, kept current, and connections that show it; cheap to clone.
#[derive(Clone, Debug)]
pub struct OwnCredential(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    upstream: Upstream,
    credential: Arc<CurrentCredential>,
    connections_show_it: bool,
}

/// Why the gateway's credential cannot be shown now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialProblem {
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error("the credential plugin of the gateway printed no token")]
    NoToken,
}

impl OwnCredential {
    /// The credential in a kubeconfig, shown over connections that are made as `connecting` says.
    ///
    /// # Errors
    ///
    /// [`OwnCredentialError`] when there is none that can be used.
    pub fn new(cluster: &Cluster, connecting: &UpstreamOptions) -> Result<Self, OwnCredentialError> {
        if !cluster.server.is_https {
            return Err(OwnCredentialError::PlainHttp);
        }
        if cluster.credential == Credential::None && cluster.identity.is_none() {
            return Err(OwnCredentialError::None);
        }
        // Connections show the certificate, and requests what else there is.
        let mut shown_by_requests = cluster.clone();
        let identity = shown_by_requests.identity.take();
        Ok(Self(Arc::new(Inner {
            upstream: Upstream::with_options(cluster, true, connecting)?,
            credential: Arc::new(CurrentCredential::new(&shown_by_requests, system_clock)?),
            connections_show_it: identity.is_some(),
        })))
    }

    /// Connections that show the credential's certificate, if it has one.
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        &self.0.upstream
    }

    /// Has the servers asked with it whether they are ready.
    pub(crate) fn check_servers(&self) {
        self.0
            .upstream
            .check_servers(Some(Arc::clone(&self.0.credential)));
    }

    /// The header that shows it; `None` where connections do.
    pub(crate) async fn authorization(&self) -> Result<Option<HeaderValue>, CredentialProblem> {
        // Boxed: running a plugin takes much that other requests need not carry.
        let header = Box::pin(self.0.credential.header()).await?;
        if header.is_none() && !self.0.connections_show_it {
            return Err(CredentialProblem::NoToken);
        }
        Ok(header)
    }

    /// The cluster did not know who the gateway is.
    pub(crate) async fn refused(&self) {
        self.0.credential.refused().await;
    }
}
