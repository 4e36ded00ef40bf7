//! What one event costs in processor time through whole backends, from the first to the end of the shutdown.

use std::io::{BufRead as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kaudit_backend::{
    BatchConfig, Buffered, LogOptions, Truncate, TruncateConfig, Webhook, WebhookConfig, WhenFull,
};
use kaudit_dial::{Cluster, Trust};
use kaudit_event::Event;
use kaudit_sink::{Counters, Emission, Reservation, Reserve, Sink};
use serde_json::Value;

use crate::{Bench, text};

/// Events that each backend is given; upstream's half gives as many.
const EVENTS: usize = 40_000;

/// Runs the backends; the webhook's receiver is a process of its own.
pub(crate) fn run(bench: &Bench, inputs: &Value) {
    let event = Event::decode(text(inputs, "metadata_line").as_bytes()).expect("the line is an event");
    let folder = std::env::temp_dir();
    let memory = std::path::Path::new("/dev/shm");
    for (name, folder, mode, batch) in [
        ("log-blocking", folder.as_path(), "blocking", 1),
        ("log-memory", memory, "blocking", 1),
        ("log-batch", memory, "batch", 400),
    ] {
        if !bench.wants(&format!("Backend/{name}")) {
            continue;
        }
        let path = folder.join(format!("kaudit-bench-{}.log", std::process::id()));
        let options = LogOptions {
            path: path.display().to_string(),
            max_size: 1000,
            mode: mode.to_owned(),
            batch_buffer_size: i64::try_from(EVENTS).unwrap(),
            batch_max_size: batch,
            batch_max_wait: Duration::from_secs(30),
            ..LogOptions::default()
        };
        let counters = Arc::new(Counters::default());
        spend(
            name,
            &event,
            options.build(&counters).unwrap().as_ref(),
            &counters,
        );
        std::fs::remove_file(&path).unwrap();
    }
    let large = Event::decode(text(inputs, "requestresponse_line").as_bytes()).expect("the line is an event");
    let webhooks: Vec<(&str, &Event)> = [
        ("truncate-buffered-webhook", &event),
        ("truncate-buffered-webhook-requestresponse", &large),
    ]
    .into_iter()
    .filter(|(name, _)| bench.wants(&format!("Backend/{name}")))
    .collect();
    if !webhooks.is_empty() {
        webhook(&webhooks);
    }
}

fn webhook(events: &[(&str, &Event)]) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let own = std::env::var_os("KAUDIT_BENCH_RECEIVER").and_then(|address| address.into_string().ok());
    let mut child = own.is_none().then(|| {
        Command::new(std::env::current_exe().unwrap())
            .arg("--receiver")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let address = own.unwrap_or_else(|| {
        let stdout = child.as_mut().unwrap().stdout.take().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(stdout).read_line(&mut line).unwrap();
        line.trim().to_owned()
    });
    let cluster = Cluster::new(address.parse().unwrap(), Trust::Public);
    for (name, event) in events {
        let counters = Arc::new(Counters::default());
        let webhook = Webhook::new(
            &cluster,
            WebhookConfig::default(),
            Arc::clone(&counters),
            runtime.handle().clone(),
        );
        let batch = BatchConfig {
            buffer_size: EVENTS,
            max_batch_size: 400,
            max_batch_wait: Duration::from_secs(30),
            throttle: None,
            max_in_flight: 256,
            when_full: WhenFull::DropNewest,
        };
        let truncate = TruncateConfig {
            max_event_size: 102_400,
            max_batch_size: 10_485_760,
        };
        let buffered = Buffered::new(Arc::new(webhook.unwrap()), batch, Arc::clone(&counters));
        let sink = Truncate::new(Arc::new(buffered), truncate, Arc::clone(&counters));
        spend(name, event, &sink, &counters);
    }
    if let Some(mut child) = child {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

/// Prints processor nanoseconds for each event.
fn spend(name: &str, event: &Event, sink: &dyn Sink, counters: &Counters) {
    let before = processor_nanos();
    for _ in 0..EVENTS {
        let mut reservation = match sink.reserve(1) {
            Reserve::Ready(reservation) => reservation,
            Reserve::Refused(_) | Reserve::Wait(_) => Reservation::none(),
        };
        drop(sink.submit(&Emission::new(event), &mut reservation));
    }
    sink.shutdown();
    let spent = (processor_nanos() - before) / EVENTS as u64;
    let lost = counters.snapshot().lost;
    assert!(lost.is_empty(), "events were dropped: {lost:?}");
    println!("Backend/{name} {spent} 0");
}

/// Processor time of this process.
fn processor_nanos() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap()
}

/// A receiver that takes everything; it prints its address and ends with its standard input.
pub(crate) fn receiver() {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt as _, Full};
    use hyper::body::Incoming;
    use hyper_util::rt::TokioIo;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("http://{}", listener.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        let (ended, end) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            std::io::stdin().lines().for_each(drop);
            ended.send(()).expect("the receiver waits for the end");
        });
        let serve = async {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = hyper::service::service_fn(|request: Request<Incoming>| async {
                    let body = request.into_body().collect().await;
                    drop(body);
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
                });
                connections.spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        };
        tokio::select! {
            () = serve => {}
            ended = end => ended.unwrap(),
        }
    });
}
