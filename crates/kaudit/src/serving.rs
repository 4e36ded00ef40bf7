//! What serves, whatever its roles are: metrics and health, files that change, the API, an orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use axum::Extension;
use ipnet::IpNet;
use kaudit_collect::{Forward, Intake, Name, Tailing};
use kaudit_dial::{Cluster, Upstream, UpstreamOptions, take_lane};
use kaudit_gateway::Gateway;
use kaudit_listen::{
    ConnectionInfo, Limits, ListenConfig, Listener, ProxyProtocol, ServerTls, TowerToHyperService, Workers,
};
use kaudit_sink::Sink;
use kaudit_store::Store;
use kaudit_tower::RemoteAddr;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_log::AccessLog;
use crate::admin::Admin;
use crate::api::{self, Own, Token};
use crate::auditing::Auditing;
use crate::collecting::Receiving;
use crate::collection::Collection;
use crate::completeness::{self, Watching};
use crate::connecting::{self, Answers};
use crate::data::DataDir;
use crate::exit::Failure;
use crate::identifying::Identifying;
use crate::metrics::{self, Sources};
use crate::reload::{Watched, WatchedConnections, WatchedPolicy};
use crate::sockets::Place;
use crate::storing::{self, Storing};

/// Requests of the API may finish for so long after the stop.
const API_GRACE: Duration = Duration::from_secs(1);

/// What a serving process is made of.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) gateway: Option<GatewayPlan>,
    pub(crate) collect: Option<CollectPlan>,
    /// Filled from the journal of `collect`.
    pub(crate) store: Option<StorePlan>,
    /// Held until the end.
    pub(crate) data: Option<DataDir>,
    pub(crate) metrics: Place,
    pub(crate) api: Option<ApiPlan>,
    /// Requests may finish for so long after the stop.
    pub(crate) grace: Duration,
}

/// A gateway.
#[derive(Debug)]
pub(crate) struct GatewayPlan {
    pub(crate) cluster: Cluster,
    pub(crate) identifying: Identifying,
    pub(crate) connecting: UpstreamOptions,
    pub(crate) answers: Answers,
    pub(crate) auditing: Auditing,
    pub(crate) listen: Place,
    pub(crate) tls: ServerTls,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) front: Front,
}

/// What a gateway takes from the network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Front {
    pub(crate) proxies: ProxyProtocol,
    /// Networks whose addresses stand for many clients.
    pub(crate) unbounded: Vec<IpNet>,
    pub(crate) limits: Limits,
    pub(crate) requests_in_flight: Option<usize>,
    /// `None` where the gateway's own default holds.
    pub(crate) body_idle_limit: Option<Duration>,
}

/// A journal, and what fills it from outside.
#[derive(Debug)]
pub(crate) struct CollectPlan {
    pub(crate) intake: Intake,
    pub(crate) receiving: Option<Receiving>,
    pub(crate) tails: Vec<Tailing>,
    pub(crate) completeness: Vec<Watching>,
    pub(crate) forward: Option<Forward>,
}

impl CollectPlan {
    /// A journal that is filled from inside alone.
    pub(crate) const fn of(intake: Intake) -> Self {
        Self {
            intake,
            receiving: None,
            tails: Vec::new(),
            completeness: Vec::new(),
            forward: None,
        }
    }
}

/// A store, and how it is filled.
#[derive(Debug)]
pub(crate) struct StorePlan {
    pub(crate) store: Store,
    pub(crate) settings: storing::Settings,
}

/// Where the API is, and who may use it.
#[derive(Debug)]
pub(crate) struct ApiPlan {
    pub(crate) listen: Place,
    pub(crate) token: Token,
    /// What the events are about that requests to it leave in the journal.
    pub(crate) cluster: Name,
}

/// A process that serves.
#[derive(Debug)]
pub(crate) struct Serving {
    tasks: TaskTracker,
    stop: CancellationToken,
    gateways: TaskTracker,
    /// Ends the receiver, which takes what gateways deliver while they end.
    stop_receiving: CancellationToken,
    receivers: TaskTracker,
    stop_forwarding: CancellationToken,
    forwards: TaskTracker,
    /// Ends the API, whose own events the journal still takes.
    stop_api: CancellationToken,
    apis: TaskTracker,
    own: Option<Arc<dyn Sink>>,
    /// Ends what must outlive them: metrics and the watch over files.
    last: CancellationToken,
    auditing: Option<Auditing>,
    collection: Option<Collection>,
    pub(crate) storing: Option<Storing>,
    _data: Option<DataDir>,
    pub(crate) gateway: Option<SocketAddr>,
    pub(crate) collector: Option<SocketAddr>,
    pub(crate) metrics: SocketAddr,
    pub(crate) api: Option<SocketAddr>,
}

impl Serving {
    /// Binds the sockets and serves.
    pub(crate) async fn start(plan: Plan) -> Result<Self, Failure> {
        let Plan {
            gateway,
            collect,
            store,
            data,
            metrics,
            api,
            grace,
        } = plan;
        let stop = CancellationToken::new();
        let mut watched = Watched::default();

        // Everything is bound before anything serves.
        let admin_listener = metrics.listener(ListenConfig::plain).await?;
        let (api_listener, api) = match api {
            Some(ApiPlan {
                listen,
                token,
                cluster,
            }) => (
                Some(listen.listener(ListenConfig::plain).await?),
                Some((token, cluster)),
            ),
            None => (None, None),
        };
        let gateway = match gateway {
            Some(plan) => Some(BoundGateway::bind(plan, &mut watched).await?),
            None => None,
        };
        let (collection, receiving) = match collect {
            Some(plan) => {
                let receiver = plan
                    .receiving
                    .as_ref()
                    .map(|receiving| receiving.receiver.clone());
                let collection = Collection::new(plan.intake, receiver, plan.tails, plan.forward);
                collection.watch(plan.completeness);
                (Some(collection), plan.receiving)
            }
            None => (None, None),
        };

        let storing = match (store, &collection) {
            (Some(StorePlan { store, settings }), Some(collection)) => {
                let started = Storing::start(store, collection.journal(), settings);
                Some(started.map_err(Failure::unreachable)?)
            }
            _ => None,
        };

        let sinks = gateway
            .as_ref()
            .map(|gateway| Arc::clone(&gateway.auditing.sinks));
        let registry = metrics::registry(Sources {
            gateway: gateway.as_ref().map(|bound| metrics::GatewaySources {
                gateway: bound.gateway.clone(),
                upstream: bound.upstream.clone(),
                listener: bound.listener.metrics(),
                unwritten: bound.access_log.as_ref().map(AccessLog::unwritten),
            }),
            sinks: sinks.clone(),
            collection: collection.clone(),
            storing: storing.clone(),
            reloads: Arc::clone(&watched.reloads),
        });
        let admin = Admin::new(
            registry,
            sinks.clone(),
            collection.clone(),
            storing.clone(),
            gateway.as_ref().map(|bound| bound.upstream.clone()),
            stop.clone(),
        );
        let mut serving = Self {
            tasks: TaskTracker::new(),
            stop,
            gateways: TaskTracker::new(),
            stop_receiving: CancellationToken::new(),
            receivers: TaskTracker::new(),
            stop_forwarding: CancellationToken::new(),
            forwards: TaskTracker::new(),
            stop_api: CancellationToken::new(),
            apis: TaskTracker::new(),
            own: None,
            last: CancellationToken::new(),
            auditing: None,
            collection: collection.clone(),
            storing,
            _data: data,
            gateway: None,
            collector: None,
            metrics: admin_listener.local_addr(),
            api: api_listener.as_ref().map(Listener::local_addr),
        };
        if let (Some(listener), Some((token, cluster))) = (api_listener, api) {
            let scans = serving.storing.clone().map(|storing| {
                api::Scans::new(storing, serving.apis.clone()).until(serving.stop_api.clone())
            });
            let token = Arc::new(token);
            let own = match &collection {
                Some(collection) => {
                    let intake = collection.intake().clone();
                    Some(Own::new(intake, cluster, Arc::clone(&token))?)
                }
                None => None,
            };
            serving.own = own.as_ref().map(Own::sink);
            let router = api::router(sinks, collection.clone(), scans, own, token);
            let stop = serving.stop_api.clone();
            let make = move |connection: &ConnectionInfo| {
                let address = RemoteAddr::from(connection.remote_addr);
                TowerToHyperService::new(router.clone().layer(Extension(address)))
            };
            serving.apis.spawn(listener.serve(make, stop, API_GRACE));
        }
        serving
            .tasks
            .spawn(admin.serve(admin_listener, serving.last.clone()));
        if let Some(bound) = gateway {
            serving.gateway = Some(bound.listener.local_addr());
            let stop = serving.stop.clone();
            let (gateway, listener, access_log) = (bound.gateway, bound.listener, bound.access_log);
            let workers = bound.workers;
            serving.gateways.spawn(async move {
                gateway.serve(listener, stop, grace).await;
                workers.end().await;
                if let Some(log) = access_log {
                    // A panic was reported by itself.
                    drop(tokio::task::spawn_blocking(move || log.close()).await);
                }
            });
            serving.auditing = Some(bound.auditing);
        }
        if let Some(receiving) = receiving {
            serving.collector = Some(receiving.listener.local_addr());
            let stop = serving.stop_receiving.clone();
            watched.certificates.push(receiving.tls);
            watched.access = Some(receiving.access);
            serving
                .receivers
                .spawn(receiving.receiver.serve(receiving.listener, stop, grace));
        }
        if let Some(forward) = collection.as_ref().and_then(Collection::forward) {
            let stop = serving.stop_forwarding.clone();
            serving.forwards.spawn(async move { forward.run(stop).await });
        }
        if let Some(collection) = &serving.collection {
            completeness::spawn(collection, &serving.tasks, &serving.stop);
        }
        serving.tasks.spawn(watched.run(serving.last.clone()));
        Ok(serving)
    }

    /// Takes no more requests of clients, lets those in flight end, then writes and delivers what is queued.
    /// `now` cuts short.
    pub(crate) async fn stop_gateway(&mut self, now: &CancellationToken) {
        self.stop.cancel();
        self.gateways.close();
        tokio::select! {
            () = self.gateways.wait() => {}
            () = now.cancelled() => {}
        }
        if let Some(auditing) = self.auditing.take() {
            // Cut short, what is still under way ends with the runtime, and is counted and reported as lost.
            tokio::select! {
                () = auditing.shutdown() => {}
                () = now.cancelled() => {}
            }
        }
    }

    /// Ends everything, the journal after those who write into it and the store after the journal. `now` cuts short.
    pub(crate) async fn stop(mut self, now: CancellationToken) {
        self.stop_gateway(&now).await;
        self.stop_receiving.cancel();
        self.receivers.close();
        tokio::select! {
            () = self.receivers.wait() => {}
            () = now.cancelled() => {}
        }
        // What is not sent yet stays in the journal.
        self.stop_forwarding.cancel();
        self.forwards.close();
        self.forwards.wait().await;
        self.stop_api.cancel();
        self.apis.close();
        self.apis.wait().await;
        if let Some(own) = self.own.take() {
            // As below, a panic was reported by itself.
            drop(tokio::task::spawn_blocking(move || own.shutdown()).await);
        }
        if let Some(collection) = self.collection.take() {
            // A panic of the threads that end here was reported by themselves.
            drop(tokio::task::spawn_blocking(move || collection.close()).await);
        }
        if let Some(storing) = self.storing.take() {
            let ended = storing.clone();
            let mut ended = tokio::task::spawn_blocking(move || ended.end());
            tokio::select! {
                ended = &mut ended => drop(ended),
                () = now.cancelled() => {
                    storing.hurry();
                    drop(ended.await);
                }
            }
        }
        self.last.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

struct BoundGateway {
    gateway: Gateway,
    upstream: Upstream,
    listener: Listener,
    auditing: Auditing,
    access_log: Option<AccessLog>,
    workers: Workers,
}

impl BoundGateway {
    async fn bind(plan: GatewayPlan, watched: &mut Watched) -> Result<Self, Failure> {
        let GatewayPlan {
            cluster,
            identifying,
            connecting,
            answers,
            auditing,
            listen,
            tls,
            access_log,
            front,
        } = plan;
        let upstream = Upstream::with_options(&cluster, false, &connecting).map_err(Failure::usage)?;
        let gateway = Gateway::builder(
            upstream.clone(),
            auditing.policy.clone(),
            Arc::clone(&auditing.sink),
        )
        .demand(auditing.demand.clone())
        .requests_in_flight(front.requests_in_flight);
        let gateway = match front.body_idle_limit {
            Some(limit) => gateway.body_idle_limit(limit),
            None => gateway,
        };
        let gateway = match &access_log {
            Some(log) => gateway.access_log(log.sender()),
            None => gateway,
        };
        watched
            .connections
            .push(WatchedConnections::new(upstream.clone()));
        let gateway = identifying.apply(gateway, watched);
        let gateway = answers.apply(gateway).build().map_err(Failure::unreachable)?;
        let workers = Workers::start(connecting::threads(), take_lane)
            .context("cannot start threads for the gateway")
            .map_err(Failure::unreachable)?;
        let listener = listen
            .listener(|address| {
                let mut config = ListenConfig::https(address, tls.clone());
                config.workers = Some(workers.clone());
                // INVARIANT G-4: requests reach the cluster from tasks of its connections' own, behind the turn.
                config.turn = Some(|advance| kaudit_sink::in_turn(advance));
                config.proxies = front.proxies;
                config.unbounded = front.unbounded;
                config.limits = front.limits;
                config
            })
            .await?;
        watched.policies.extend(
            auditing
                .policy_file
                .iter()
                .map(|file| WatchedPolicy::new(file.clone(), auditing.policy.clone())),
        );
        watched.certificates.push(tls);
        watched.sinks = Some(Arc::clone(&auditing.sinks));
        Ok(Self {
            gateway,
            upstream,
            listener,
            auditing,
            access_log,
            workers,
        })
    }
}

/// An address to listen on.
pub(crate) fn address(text: &str) -> Result<SocketAddr, Failure> {
    text.parse().map_err(|_| {
        Failure::usage(anyhow!(
            "`{text}` is not an address: write for example `0.0.0.0:6443`"
        ))
    })
}
