//! Every event arrives at least once, or the counters say how many did not and why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kaudit_backend::webhook::{FailureClass, WebhookConfig};
use kaudit_backend::{BatchConfig, Buffered, Truncate, TruncateConfig, Webhook, WhenFull};
use kaudit_event::event_list_items;
use kaudit_sink::{Counters, Emission, Reason, Reservation, Sink, conformance};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::https::{Behaviour, Server};

fn config(attempts: u32) -> WebhookConfig {
    WebhookConfig {
        initial_backoff: Duration::from_millis(1),
        attempts,
        timeout: Duration::from_millis(400),
        jitter: || 0.5,
        ..WebhookConfig::default()
    }
}

struct Stack {
    sink: Arc<dyn Sink>,
    webhook: Arc<Webhook>,
    counters: Arc<Counters>,
}

/// `truncate<buffered<webhook>>`.
fn stack(server: &Server, folder: &std::path::Path, config: WebhookConfig, buffer_size: usize) -> Stack {
    let counters = Arc::new(Counters::default());
    let cluster = server.cluster(folder);
    let webhook = Webhook::new(&cluster, config, Arc::clone(&counters), Handle::current()).unwrap();
    let webhook = Arc::new(webhook);
    let batch = BatchConfig {
        buffer_size,
        max_batch_size: 10,
        max_batch_wait: Duration::from_millis(2),
        throttle: None,
        max_in_flight: 4,
        when_full: WhenFull::DropNewest,
    };
    let plugin: Arc<dyn Sink> = Arc::<Webhook>::clone(&webhook);
    let buffered = Arc::new(Buffered::new(plugin, batch, Arc::clone(&counters)));
    let limits = TruncateConfig {
        max_event_size: 100_000,
        max_batch_size: 1_000_000,
    };
    let sink = Arc::new(Truncate::new(buffered, limits, Arc::clone(&counters)));
    assert_eq!(sink.name(), "truncate<buffered<webhook>>");
    Stack {
        sink,
        webhook,
        counters,
    }
}

fn submit(sink: &dyn Sink, events: usize) {
    for number in 0..events {
        let event = conformance::event(0, number);
        assert!(
            sink.submit(&Emission::new(&event), &mut Reservation::none())
                .is_accepted()
        );
    }
}

async fn shut_down(sink: Arc<dyn Sink>) {
    tokio::task::spawn_blocking(move || sink.shutdown())
        .await
        .unwrap();
}

/// How often each event arrived; equal ones have equal bytes.
fn arrived(server: &Server) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    let mut bytes: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for body in server.bodies() {
        for item in event_list_items(&body) {
            let item = item.unwrap();
            let value: serde_json::Value = serde_json::from_slice(item).unwrap();
            let id = value["auditID"].as_str().unwrap().to_owned();
            assert_eq!(bytes.entry(id.clone()).or_insert_with(|| item.to_vec()), item);
            *seen.entry(id).or_default() += 1;
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_every_misbehaviour_each_event_is_delivered_at_least_once() {
    let tasks = TaskTracker::new();
    let round = [
        Behaviour::Refuse(429),
        Behaviour::RetryAtOnce,
        Behaviour::Refuse(500),
        Behaviour::Take,
        Behaviour::Refuse(503),
        Behaviour::Refuse(413),
        Behaviour::Reset,
        Behaviour::HalfReply,
        Behaviour::Take,
        Behaviour::SlowDrip,
        Behaviour::Down,
        Behaviour::Down,
        Behaviour::Down,
        Behaviour::Down,
    ];
    let behaviours = round.into_iter().cycle().take(4 * round.len());
    let server = Server::start(&tasks, behaviours, Behaviour::Take).await;
    let folder = tempfile::tempdir().unwrap();
    let Stack {
        sink,
        webhook,
        counters,
    } = stack(&server, folder.path(), config(30), 10_000);
    submit(sink.as_ref(), 500);
    shut_down(sink).await;

    let arrived = arrived(&server);
    assert_eq!(arrived.len(), 500, "each event arrived");
    let repeated: usize = arrived.values().map(|count| count - 1).sum();
    assert!(repeated > 0, "what was kept without a whole answer came again");
    assert_eq!(counters.snapshot().total_lost(), 0);
    let metrics = webhook.metrics();
    assert_eq!(metrics.delivered_events, 500);
    assert_eq!(metrics.pending_batches, 0);
    let classes: Vec<FailureClass> = metrics.failures.iter().map(|(class, _)| *class).collect();
    for class in [
        FailureClass::Timeout,
        FailureClass::Broken,
        FailureClass::TooManyRequests,
        FailureClass::Client,
        FailureClass::Server,
    ] {
        assert!(
            classes.contains(&class),
            "{class:?} is counted: {:?}",
            metrics.failures
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_nothing_costs_all_events_and_each_is_counted() {
    let tasks = TaskTracker::new();
    let server = Server::start(&tasks, [], Behaviour::Refuse(413)).await;
    let folder = tempfile::tempdir().unwrap();
    let Stack { sink, counters, .. } = stack(&server, folder.path(), config(3), 10_000);
    submit(sink.as_ref(), 95);
    shut_down(sink).await;
    assert!(arrived(&server).is_empty());
    assert_eq!(counters.snapshot().lost, [("webhook", Reason::Delivery, 95)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_queue_and_a_server_that_is_down_for_a_while_lose_exactly_what_is_counted() {
    let tasks = TaskTracker::new();
    let down = std::iter::repeat_n(Behaviour::Down, 12);
    let server = Server::start(&tasks, down, Behaviour::Take).await;
    let folder = tempfile::tempdir().unwrap();
    let Stack { sink, counters, .. } = stack(&server, folder.path(), config(8), 20);
    submit(sink.as_ref(), 400);
    shut_down(sink).await;
    let arrived = arrived(&server);
    assert!(arrived.values().all(|count| *count == 1));
    let lost = counters.snapshot();
    assert!(
        lost.lost
            .iter()
            .any(|(plugin, reason, _)| (*plugin, *reason) == ("buffered", Reason::QueueFull)),
        "{lost:?}"
    );
    assert_eq!(arrived.len() as u64 + lost.total_lost(), 400, "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bare_webhook_passes_the_conformance_suite() {
    let tasks = TaskTracker::new();
    let server = Arc::new(Server::start(&tasks, [], Behaviour::Take).await);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let seen = Arc::new(std::sync::Mutex::new(0));
        conformance::check(|| {
            let folder = tempfile::tempdir().unwrap();
            let counters = Arc::new(Counters::default());
            let cluster = server.cluster(folder.path());
            let webhook = Webhook::new(&cluster, config(3), Arc::clone(&counters), runtime.clone()).unwrap();
            let (server, seen) = (Arc::clone(&server), Arc::clone(&seen));
            conformance::Subject {
                sink: Arc::new(webhook),
                counters,
                kept: Box::new(move || {
                    // Certificates are read from the folder as long as there are connections.
                    let _keep = &folder;
                    let bodies = server.bodies();
                    let mut seen = seen.lock().unwrap();
                    let new = bodies[*seen..].iter().flat_map(|body| {
                        event_list_items(body)
                            .map(|item| {
                                let value: serde_json::Value = serde_json::from_slice(item.unwrap()).unwrap();
                                value["auditID"].as_str().unwrap().to_owned()
                            })
                            .collect::<Vec<_>>()
                    });
                    let ids = new.collect();
                    *seen = bodies.len();
                    ids
                }),
            }
        });
    })
    .await
    .unwrap();
}
