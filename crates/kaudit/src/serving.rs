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
use crate::auditing::Auditing;
use crate::exit::Failure;
use crate::metrics::{self, Sources};
use crate::reload::{Reloads, Watched, WatchedPolicy};

/// What a serving gateway is made of.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) cluster: Cluster,
    pub(crate) auditing: Auditing,
    pub(crate) listen: SocketAddr,
    pub(crate) tls: ServerTls,
    pub(crate) metrics: SocketAddr,
    /// Requests may finish for so long after the stop.
    pub(crate) grace: Duration,
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
            grace,
        } = plan;
        let upstream = Upstream::new(&cluster, false).map_err(Failure::usage)?;
        let gateway = Gateway::builder(
            upstream.clone(),
            auditing.policy.clone(),
            Arc::clone(&auditing.sink),
        )
        .build()
        .map_err(Failure::unreachable)?;
        let listener = Listener::bind(ListenConfig::https(listen, tls.clone()))
            .await
            .map_err(Failure::unreachable)?;
        let admin_listener = Listener::bind(ListenConfig::plain(metrics))
            .await
            .map_err(Failure::unreachable)?;
        let (addr, metrics) = (listener.local_addr(), admin_listener.local_addr());
        let (stop, last) = (CancellationToken::new(), CancellationToken::new());
        let reloads = Arc::new(Reloads::default());
        let watched = Watched {
            policies: auditing
                .policy_file
                .iter()
                .map(|file| WatchedPolicy::new(file.clone(), auditing.policy.clone()))
                .collect(),
            certificate: Some(tls),
            reloads: Arc::clone(&reloads),
        };
        let registry = metrics::registry(Sources {
            gateway: gateway.clone(),
            upstream,
            counters: Arc::clone(&auditing.counters),
            reloads,
        });
        let admin = Admin::new(registry, stop.clone());
        let tasks = TaskTracker::new();
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
        self.auditing.shutdown().await;
        self.last.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
