//! The gateway with what belongs to it: metrics and health, files that change, an orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kaudit_dial::{Cluster, Upstream};
use kaudit_gateway::Gateway;
use kaudit_listen::{ListenConfig, Listener, ServerTls};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::Admin;
use crate::api::{self, Token};
use crate::auditing::Auditing;
use crate::exit::Failure;
use crate::metrics::{self, Sources};
use crate::reload::{Reloads, Watched, WatchedPolicy};

/// Requests of the API may finish for so long after the stop.
const API_GRACE: Duration = Duration::from_secs(1);

/// What a serving gateway is made of.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) cluster: Cluster,
    pub(crate) auditing: Auditing,
    pub(crate) listen: SocketAddr,
    pub(crate) tls: ServerTls,
    pub(crate) metrics: SocketAddr,
    pub(crate) api: Option<ApiPlan>,
    /// Requests may finish for so long after the stop.
    pub(crate) grace: Duration,
}

/// Where the API is, and who may use it.
#[derive(Debug)]
pub(crate) struct ApiPlan {
    pub(crate) listen: SocketAddr,
    pub(crate) token: Token,
}

/// A gateway that serves.
#[derive(Debug)]
pub(crate) struct Serving {
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Ends what must outlive the gateway: metrics and the watch over files.
    last: CancellationToken,
    gateway: TaskTracker,
    auditing: Auditing,
    pub(crate) addr: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) api: Option<SocketAddr>,
}

impl Serving {
    /// Binds the sockets and serves.
    pub(crate) async fn start(plan: Plan) -> Result<Self, Failure> {
        let Plan {
            cluster,
            auditing,
            listen,
            tls,
            metrics,
            api,
            grace,
        } = plan;
        let upstream = Upstream::new(&cluster, false).map_err(Failure::usage)?;
        let gateway = Gateway::builder(
            upstream.clone(),
            auditing.policy.clone(),
            Arc::clone(&auditing.sink),
        )
        .demand(auditing.demand.clone())
        .build()
        .map_err(Failure::unreachable)?;
        let listener = Listener::bind(ListenConfig::https(listen, tls.clone()))
            .await
            .map_err(Failure::unreachable)?;
        let admin_listener = Listener::bind(ListenConfig::plain(metrics))
            .await
            .map_err(Failure::unreachable)?;
        let (addr, metrics) = (listener.local_addr(), admin_listener.local_addr());
        let tasks = TaskTracker::new();
        let (stop, last) = (CancellationToken::new(), CancellationToken::new());
        let reloads = Arc::new(Reloads::default());
        let watched = Watched {
            policies: auditing
                .policy_file
                .iter()
                .map(|file| WatchedPolicy::new(file.clone(), auditing.policy.clone()))
                .collect(),
            certificate: Some(tls),
            sinks: Arc::clone(&auditing.sinks),
            reloads: Arc::clone(&reloads),
        };
        let registry = metrics::registry(Sources {
            gateway: gateway.clone(),
            upstream,
            sinks: Arc::clone(&auditing.sinks),
            reloads,
        });
        let admin = Admin::new(registry, Arc::clone(&auditing.sinks), stop.clone());
        let api = match api {
            Some(api) => Some(serve_api(api, &auditing, &tasks, last.clone()).await?),
            None => None,
        };
        tasks.spawn(admin.serve(admin_listener, last.clone()));
        tasks.spawn(watched.run(last.clone()));
        let gateway_task = TaskTracker::new();
        let stopped = stop.clone();
        gateway_task.spawn(async move { gateway.serve(listener, stopped, grace).await });
        Ok(Self {
            tasks,
            stop,
            last,
            gateway: gateway_task,
            auditing,
            addr,
            metrics,
            api,
        })
    }

    /// Takes no more requests, lets those in flight end, then writes what is queued. `now` cuts short.
    pub(crate) async fn stop(self, now: CancellationToken) {
        self.stop.cancel();
        self.gateway.close();
        tokio::select! {
            () = self.gateway.wait() => {}
            () = now.cancelled() => {}
        }
        // Cut short, what is still under way ends with the runtime, and is counted and reported as lost.
        tokio::select! {
            () = self.auditing.shutdown() => {}
            () = now.cancelled() => {}
        }
        self.last.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn serve_api(
    plan: ApiPlan,
    auditing: &Auditing,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Result<SocketAddr, Failure> {
    let listener = Listener::bind(ListenConfig::plain(plan.listen))
        .await
        .map_err(Failure::unreachable)?;
    let address = listener.local_addr();
    let router = api::router(Arc::clone(&auditing.sinks), Arc::new(plan.token));
    tasks.spawn(listener.serve(move |_| router.clone(), stop, API_GRACE));
    Ok(address)
}
