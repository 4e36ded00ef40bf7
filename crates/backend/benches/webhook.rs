//! Processor time per event through `truncate<buffered<webhook>>`.
//!
//! `webhook receive` prints an address and takes EventLists there until it is ended, so that the time of
//! the receiver is not measured; without an argument the benchmark starts one itself. The Go benchmark
//! `BenchmarkWebhook` in `bench/go` does the same with upstream's backends against the receiver whose
//! address is in `KAUDIT_RECEIVER`. `bench/webhook` runs both.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::unwrap_used, reason = "the inputs are ours")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kaudit_backend::webhook::WebhookConfig;
use kaudit_backend::{BatchConfig, Buffered, Truncate, TruncateConfig, Webhook, WhenFull};
use kaudit_dial::{Cluster, Trust};
use kaudit_event::{DecodedEvent, Event};
use kaudit_sink::{Counters, Emission, Reservation, Sink};
use rustix::time::{ClockId, clock_gettime};

/// Events of one round; the queue holds them all.
const EVENTS: usize = 40_000;

const ROUNDS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    match arguments.first().map(String::as_str) {
        Some("receive") => receive(),
        Some("--build-only") => {}
        _ => measure_all(),
    }
}

fn receive() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    std::io::stdout().flush().unwrap();
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            scope.spawn(move || answer(stream.unwrap()));
        }
    });
}

/// Takes everything.
fn answer(stream: TcpStream) {
    let mut reader = BufReader::with_capacity(1 << 16, stream.try_clone().unwrap());
    let mut writer = stream;
    let mut body = Vec::new();
    let mut line = String::new();
    loop {
        let mut length = 0;
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or_default() == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        body.resize(length, 0);
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        writer
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            .unwrap();
    }
}

fn measure_all() {
    let mut receiver = Command::new(std::env::current_exe().unwrap())
        .arg("receive")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(receiver.stdout.as_mut().unwrap())
        .read_line(&mut address)
        .unwrap();
    let inputs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/inputs.json");
    let inputs: serde_json::Value = serde_json::from_slice(&std::fs::read(inputs).unwrap()).unwrap();
    for (name, key) in [
        ("metadata", "metadata_line"),
        ("requestresponse", "requestresponse_line"),
    ] {
        let line = inputs
            .get("log_backend")
            .and_then(|lines| lines.get(key))
            .and_then(serde_json::Value::as_str)
            .unwrap();
        let event = DecodedEvent::parse(line.as_bytes().to_vec().into())
            .unwrap()
            .to_event()
            .unwrap();
        let mut nanos: Vec<u128> = (0..ROUNDS).map(|_| measure(&event, address.trim())).collect();
        nanos.sort_unstable();
        println!("Webhook/{name} {} ns cpu/event", nanos.get(ROUNDS / 2).unwrap());
    }
    receiver.kill().unwrap();
    receiver.wait().unwrap();
}

fn processor_nanos() -> u128 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    u128::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u128::try_from(time.tv_nsec).unwrap()
}

/// Nanoseconds of this process per event, from the first to the end of the shutdown.
fn measure(event: &Event, address: &str) -> u128 {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let counters = Arc::new(Counters::default());
    let cluster = Cluster::new(format!("http://{address}").parse().unwrap(), Trust::Public);
    let webhook = Webhook::new(
        &cluster,
        WebhookConfig::default(),
        Arc::clone(&counters),
        runtime.handle().clone(),
    );
    let webhook = Arc::new(webhook.unwrap());
    let batch = BatchConfig {
        buffer_size: EVENTS,
        max_batch_size: 400,
        max_batch_wait: Duration::from_secs(30),
        throttle: None,
        max_in_flight: 256,
        when_full: WhenFull::DropNewest,
    };
    let plugin: Arc<dyn Sink> = Arc::<Webhook>::clone(&webhook);
    let buffered = Arc::new(Buffered::new(plugin, batch, Arc::clone(&counters)));
    let limits = TruncateConfig {
        max_event_size: 102_400,
        max_batch_size: 10_485_760,
    };
    let sink = Truncate::new(buffered, limits, Arc::clone(&counters));
    let before = processor_nanos();
    for _ in 0..EVENTS {
        // What a chain does: a reservation, then an emission of its event.
        let outcome = sink.submit(&Emission::new(event), &mut Reservation::none());
        assert!(outcome.is_accepted());
    }
    sink.shutdown();
    let nanos = processor_nanos() - before;
    assert_eq!(webhook.metrics().delivered_events, EVENTS as u64);
    nanos / EVENTS as u128
}
