//! The server as a whole: what it is made of, and how it is served.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use kaudit_listen::Listener;
use tokio_util::sync::CancellationToken;

use crate::response::Body;
use crate::state::{Clock, State};
use crate::{seed, server};

/// What a [`Sandbox`] is made of.
pub struct Builder {
    authority: String,
    clock: Clock,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}

impl Builder {
    /// The certificate authority (PEM) that pods are told to trust.
    #[must_use]
    pub fn certificate_authority(mut self, pem: impl Into<String>) -> Self {
        self.authority = pem.into();
        self
    }

    /// Where the server takes the time from.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The server, with its first objects.
    #[must_use]
    pub fn build(self) -> Sandbox {
        let stop = CancellationToken::new();
        let state = Arc::new(State::new(self.clock, self.authority, stop));
        seed::plant(&state);
        Sandbox { state }
    }
}

/// A small Kubernetes-style API server in memory.
#[derive(Clone, Debug)]
pub struct Sandbox {
    state: Arc<State>,
}

impl Sandbox {
    /// Begins a server.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            authority: String::new(),
            clock: Arc::new(Timestamp::now),
        }
    }

    /// The server as a service, to be called in this process or behind a listener.
    #[must_use]
    pub fn service(&self) -> SandboxService {
        SandboxService {
            state: Arc::clone(&self.state),
        }
    }

    /// Serves a listener until `stop`, then ends watches and sessions and lets the rest finish
    /// within `grace`.
    pub async fn serve(&self, listener: Listener, stop: CancellationToken, grace: Duration) {
        let ends = self.state.stop.clone();
        let service = self.service();
        let serve = listener.serve(move |_| service.clone(), stop.clone(), grace);
        let end_sessions = async {
            stop.cancelled().await;
            ends.cancel();
        };
        tokio::join!(serve, end_sessions);
        self.state.tasks.close();
        if tokio::time::timeout(grace, self.state.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                open = self.state.tasks.len(),
                "sessions are still running after the grace period"
            );
        }
    }
}

/// [`Sandbox`] as a tower service.
#[derive(Clone, Debug)]
pub struct SandboxService {
    state: Arc<State>,
}

impl<B> tower_service::Service<Request<B>> for SandboxService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let state = Arc::clone(&self.state);
        Box::pin(async move { Ok(server::answer(state, request).await) })
    }
}
