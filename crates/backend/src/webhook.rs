//! The webhook backend: batches are posted as EventLists, with upstream's retries.
//!
//! Source: k8s.io/apiserver plugin/pkg/audit/webhook/webhook.go and pkg/util/webhook/webhook.go.
//!
//! Deliveries are tasks of a runtime that is given. `submit` and `submit_batch` only encode and begin
//! one, and answer [`Outcome::Pending`]. So behind a buffer several batches are under way; bare, in mode
//! `blocking-strict`, the request chain waits for the receipt of RequestReceived, retries and all, before
//! the request goes on, and in mode `blocking` for its end, whatever it is. Later stages of such a request
//! are delivered too, but the response does not wait for them, as upstream's would. What bounds them is
//! the reservation: each event under way takes one of [`WebhookConfig::max_pending_events`] places, and a
//! request that finds too few waits for them when it arrives.

mod answer;
mod body;
mod failure;
mod media_type;
mod path;
mod post;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kaudit_dial::{Client, Cluster, CredentialError, KubeconfigError};
use kaudit_sink::{
    Counters, Emission, Outcome, Reason, Receipt, Refusal, Refusals, Reservation, Reserve, Sink,
};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::task::TaskTracker;
use tracing::warn;

use body::EventListBody;
use failure::Failure;

pub use failure::FailureClass;
pub use path::PathError;

const PLUGIN: &str = "webhook";

/// Failed attempts closer together than this are counted, not logged.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// How events are delivered.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "filled by field")]
pub struct WebhookConfig {
    /// The wait after the first failed attempt; each further one is half as long again.
    pub initial_backoff: Duration,
    /// Attempts in all, at least one.
    pub attempts: u32,
    /// Time of one attempt with all that the server asks to repeat.
    pub timeout: Duration,
    /// Events that may be under way outside of batches; see the module.
    pub max_pending_events: u32,
    /// A number from 0 up to 1, new each time: how much of a fifth is added to a wait.
    pub jitter: fn() -> f64,
}

impl Default for WebhookConfig {
    /// Upstream's values.
    fn default() -> Self {
        Self {
            initial_backoff: Duration::from_secs(10),
            attempts: 5,
            timeout: Duration::from_secs(30),
            max_pending_events: 3000,
            jitter: random,
        }
    }
}

fn random() -> f64 {
    // Without randomness the waits are a little more alike.
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

/// Why there is no webhook.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// The configuration file is not there. The text is upstream's.
    #[error("stat {}: no such file or directory", .0.display())]
    Missing(PathBuf),
    /// The configuration file cannot be used.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// The credentials in it cannot be used.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The server's path cannot be sent.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// Why one attempt did not deliver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct AttemptFailed {
    /// The class.
    pub class: FailureClass,
    /// The error's text, upstream's where upstream has one.
    pub message: String,
}

/// Which attempt failed.
#[derive(Clone, Copy)]
enum Attempt {
    /// One of those of a delivery.
    Of { number: u32, attempts: u32 },
    /// One whose caller may try again for as long as it likes.
    OfCaller,
}

/// What the webhook did so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebhookMetrics {
    /// Batches that were taken by the server.
    pub delivered_batches: u64,
    /// Events in them.
    pub delivered_events: u64,
    /// Batches under way now.
    pub pending_batches: u64,
    /// Attempts that failed, by class; those that never happened are left out.
    pub failures: Vec<(FailureClass, u64)>,
}

/// Posts events to a server.
pub struct Webhook(Arc<Shared>);

struct Shared {
    client: Client,
    /// Path and query.
    target: String,
    config: WebhookConfig,
    counters: Arc<Counters>,
    runtime: Handle,
    tasks: TaskTracker,
    room: Arc<Semaphore>,
    is_closed: AtomicBool,
    delivered_batches: AtomicU64,
    delivered_events: AtomicU64,
    failures: [AtomicU64; FailureClass::ALL.len()],
    logged: Mutex<Logged>,
}

#[derive(Default)]
struct Logged {
    last: Option<Instant>,
    suppressed: u64,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("server", &self.0.client.server())
            .finish_non_exhaustive()
    }
}

impl Webhook {
    /// A webhook that posts to `cluster`; its deliveries are tasks of `runtime`, which has to outlive the
    /// shutdown. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`WebhookError`] when the server's path or the credentials cannot be used.
    pub fn new(
        cluster: &Cluster,
        config: WebhookConfig,
        counters: Arc<Counters>,
        runtime: Handle,
    ) -> Result<Self, WebhookError> {
        for warning in &cluster.warnings {
            warn!("audit webhook: {warning}");
        }
        let path = path::cleaned(&cluster.server.path)?;
        let target = format!("{path}?timeout={}s", config.timeout.as_secs());
        let room = usize::try_from(config.max_pending_events).unwrap_or(1);
        Ok(Self(Arc::new(Shared {
            client: Client::new(cluster)?,
            target,
            config,
            counters,
            runtime,
            tasks: TaskTracker::new(),
            room: Arc::new(Semaphore::new(room)),
            is_closed: AtomicBool::new(false),
            delivered_batches: AtomicU64::new(0),
            delivered_events: AtomicU64::new(0),
            failures: std::array::from_fn(|_| AtomicU64::new(0)),
            logged: Mutex::default(),
        })))
    }

    /// Where events are posted to.
    #[must_use]
    pub fn server(&self) -> &kaudit_dial::Server {
        self.0.client.server()
    }

    /// What was delivered and what failed so far.
    #[must_use]
    pub fn metrics(&self) -> WebhookMetrics {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WebhookMetrics {
            delivered_batches: count(&self.0.delivered_batches),
            delivered_events: count(&self.0.delivered_events),
            pending_batches: self.0.tasks.len() as u64,
            failures: FailureClass::ALL
                .into_iter()
                .zip(&self.0.failures)
                .map(|(class, counter)| (class, count(counter)))
                .filter(|(_, failures)| *failures > 0)
                .collect(),
        }
    }

    /// One attempt to deliver `batch`, for a caller that keeps the events and tries again itself: a failure is
    /// counted and logged as a failed attempt and loses nothing. What is kept is the caller's to count, too.
    ///
    /// # Errors
    ///
    /// [`AttemptFailed`].
    pub fn attempt(
        &self,
        batch: Vec<Emission<'static>>,
    ) -> impl Future<Output = Result<(), AttemptFailed>> + Send + use<> {
        let shared = Arc::clone(&self.0);
        let body = EventListBody::of(batch, &shared.counters);
        let (bytes, events) = (body.bytes, body.events.len());
        async move {
            let timeout = shared.config.timeout;
            match post::attempt(&shared.client, &shared.target, &bytes, timeout).await {
                Ok(()) => {
                    shared.delivered(events);
                    Ok(())
                }
                Err(failure) => {
                    shared.failed(&failure, Attempt::OfCaller, events);
                    Err(AttemptFailed {
                        class: failure.class,
                        message: failure.message,
                    })
                }
            }
        }
    }

    /// Begins the delivery of events that are in `batch`, which holds their place, if they need one.
    fn begin(&self, batch: Vec<Emission<'_>>, place: Option<OwnedSemaphorePermit>) -> Outcome {
        let body = EventListBody::of(batch, &self.0.counters);
        if body.events.is_empty() && !body.refusals.is_empty() {
            return Outcome::Refused(body.refusals);
        }
        let (done, end) = oneshot::channel();
        let delivery = Delivery {
            shared: Arc::clone(&self.0),
            body: body.bytes,
            events: body.events,
            is_over: false,
            place,
        };
        let delivering = async move {
            // Where nobody waits for the end any more, it was counted.
            done.send(delivery.run().await).ok();
        };
        self.0.tasks.spawn_on(delivering, &self.0.runtime);
        let receipt = Receipt::new(async move { end.await.unwrap_or_else(|_| Err(vec![stopped()])) });
        Outcome::Pending(receipt).and(Outcome::of(body.refusals))
    }

    fn refuse(&self, refusal: Refusal, batch: &[Emission<'_>]) -> Outcome {
        self.0
            .counters
            .plugin_error(&refusal, batch.iter().map(Emission::event));
        Outcome::Refused(vec![refusal])
    }
}

fn stopped() -> Refusal {
    Refusal {
        plugin: PLUGIN,
        reason: Reason::ShutDown,
        message: "audit backend shut down".to_owned(),
    }
}

/// A batch on its way. Whoever drops it before its end, as a runtime that stops does, loses its events,
/// and that is counted.
struct Delivery {
    shared: Arc<Shared>,
    body: Bytes,
    events: Vec<Emission<'static>>,
    is_over: bool,
    /// Given back with the rest.
    #[expect(dead_code, reason = "held for its drop")]
    place: Option<OwnedSemaphorePermit>,
}

impl Delivery {
    /// Up to all attempts, with a wait after each but the last.
    async fn run(mut self) -> Result<(), Refusals> {
        let shared = Arc::clone(&self.shared);
        let WebhookConfig {
            initial_backoff,
            attempts,
            timeout,
            jitter,
            ..
        } = shared.config;
        let mut wait = initial_backoff;
        let mut attempt = 1;
        loop {
            let failure = match post::attempt(&shared.client, &shared.target, &self.body, timeout).await {
                Ok(()) => {
                    self.is_over = true;
                    shared.delivered(self.events.len());
                    shared.counters.kept(self.events.len());
                    return Ok(());
                }
                Err(failure) => failure,
            };
            let number = Attempt::Of {
                number: attempt,
                attempts,
            };
            shared.failed(&failure, number, self.events.len());
            if attempt >= attempts {
                self.is_over = true;
                let refusal = Refusal {
                    plugin: PLUGIN,
                    reason: Reason::Delivery,
                    message: failure.message,
                };
                self.lost(&refusal);
                return Err(vec![refusal]);
            }
            attempt += 1;
            tokio::time::sleep(wait.mul_f64(1.0 + 0.2 * jitter().clamp(0.0, 1.0))).await;
            wait = wait.mul_f64(1.5);
        }
    }

    fn lost(&self, refusal: &Refusal) {
        self.shared
            .counters
            .plugin_error(refusal, self.events.iter().map(Emission::event));
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.is_over {
            self.lost(&stopped());
        }
    }
}

impl Shared {
    fn delivered(&self, events: usize) {
        self.delivered_batches.fetch_add(1, Ordering::Relaxed);
        self.delivered_events.fetch_add(events as u64, Ordering::Relaxed);
    }

    fn failed(&self, failure: &Failure, attempt: Attempt, events: usize) {
        self.counters.attempt_failed(failure.class.as_str());
        let at = FailureClass::ALL.iter().position(|class| *class == failure.class);
        if let Some(counter) = at.and_then(|at| self.failures.get(at)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            logged.suppressed += 1;
            return;
        }
        logged.last = Some(Instant::now());
        let suppressed = std::mem::take(&mut logged.suppressed);
        drop(logged);
        let (attempt, of) = match attempt {
            Attempt::Of { number, attempts } => (Some(number), Some(attempts)),
            Attempt::OfCaller => (None, None),
        };
        warn!(
            attempt,
            of,
            events,
            class = failure.class.as_str(),
            answer = failure.quoted,
            suppressed,
            "posting audit events to {} failed: {}",
            self.client.server(),
            failure.message
        );
    }
}

/// Places for the events of one request.
struct Places(OwnedSemaphorePermit);

fn no_room(events: u32) -> Refusals {
    vec![Refusal {
        plugin: PLUGIN,
        reason: Reason::QueueFull,
        message: format!("{events} events of one request are more than may be under way"),
    }]
}

impl Sink for Webhook {
    /// Waits until there are places. A request never waits for more than there are.
    fn reserve(&self, events: u32) -> Reserve {
        if events > self.0.config.max_pending_events {
            return Reserve::Refused(no_room(events));
        }
        let room = Arc::clone(&self.0.room);
        match Arc::clone(&room).try_acquire_many_owned(events) {
            Ok(permit) => Reserve::Ready(Reservation::with(Places(permit))),
            Err(_) => Reserve::Wait(Box::pin(async move {
                match room.acquire_many_owned(events).await {
                    Ok(permit) => Ok(Reservation::with(Places(permit))),
                    Err(_) => Err(vec![stopped()]),
                }
            })),
        }
    }

    fn submit(&self, emission: &Emission<'_>, reservation: &mut Reservation) -> Outcome {
        let batch = vec![emission.share()];
        if self.0.is_closed.load(Ordering::Acquire) {
            return self.refuse(stopped(), &batch);
        }
        let reserved = reservation
            .permit_mut::<Places>()
            .and_then(|places| places.0.split(1));
        let place = match reserved {
            Some(place) => place,
            None => match Arc::clone(&self.0.room).try_acquire_owned() {
                Ok(place) => place,
                Err(_) => {
                    let refusal = Refusal {
                        plugin: PLUGIN,
                        reason: Reason::QueueFull,
                        message: "too many events are under way".to_owned(),
                    };
                    return self.refuse(refusal, &batch);
                }
            },
        };
        self.begin(batch, Some(place))
    }

    fn submit_batch(&self, batch: Vec<Emission<'_>>) -> Outcome {
        if self.0.is_closed.load(Ordering::Acquire) {
            return self.refuse(stopped(), &batch);
        }
        self.begin(batch, None)
    }

    fn takes_lines(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        PLUGIN.to_owned()
    }

    /// Waits for all deliveries, with their retries.
    fn shutdown(&self) {
        self.0.is_closed.store(true, Ordering::Release);
        self.0.room.close();
        self.0.tasks.close();
        kaudit_sink::wait(self.0.tasks.wait());
        kaudit_sink::wait(self.0.client.close());
    }
}
