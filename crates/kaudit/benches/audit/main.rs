//! kaudit's figures on the inputs of `bench/inputs.json`, named as the Go benchmarks in `bench/go` are.
//!
//! Each prints one line: name, nanoseconds, allocations. `--only NAME` runs those whose name begins with
//! NAME in any case (`evaluate`, `chain/None`); with `--runs N` each runs N times and is not timed, for
//! `valgrind --tool=callgrind`: the difference between two N is what so many runs cost. `--table RUST GO`
//! reads such lines and the output of `go test -bench`, and prints the medians side by side. `--receiver`
//! serves as the webhooks' receiver until its standard input ends.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the inputs are ours"
)]

mod backends;
mod chain;
mod report;

use std::hint::black_box;
use std::time::Instant;

use kaudit_event::{Event, UserInfo};
use kaudit_policy::{Attributes, Policy, RequestInfoResolver, RequestTarget};
use serde_json::Value;

/// How long one benchmark runs.
const MEASURE_NANOS: u128 = 300_000_000;

/// Which benchmarks run, and how.
struct Bench {
    /// What the names begin with, in lower case.
    only: String,
    /// So many runs without a measurement.
    runs: Option<u64>,
}

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (only, runs) = match arguments.as_slice() {
        ["--build-only"] => return,
        ["--receiver"] => return backends::receiver(),
        ["--table", rust, go] => {
            let read = |path: &str| std::fs::read_to_string(path).unwrap();
            print!("{}", report::table(&read(rust), &read(go)));
            return;
        }
        ["--only", only] => (*only, None),
        ["--only", only, "--runs", runs] => (*only, Some(runs.parse().unwrap())),
        _ => ("", None),
    };
    let bench = Bench {
        only: only.to_lowercase(),
        runs,
    };
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/inputs.json");
    let inputs: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    evaluate(&bench, &inputs["evaluate"]);
    encode(&bench, &inputs["log_backend"]);
    request_info(&bench, inputs["request_info"].as_array().unwrap());
    chain::run(&bench, &inputs["chain"]);
    if bench.runs.is_none() {
        backends::run(&bench, &inputs["log_backend"]);
    }
}

impl Bench {
    /// Whether the benchmark of this name runs.
    fn wants(&self, name: &str) -> bool {
        name.to_lowercase().starts_with(&self.only)
    }

    /// Runs `body` until the time is up and prints nanoseconds and allocations of one run.
    fn measure(&self, name: &str, mut body: impl FnMut()) {
        if !self.wants(name) {
            return;
        }
        if let Some(runs) = self.runs {
            (0..runs).for_each(|_| body());
            return;
        }
        // The first run fills what is filled once.
        body();
        let allocations = allocation_counter::measure(&mut body).count_total;
        let mut batch = 1_u64;
        let mut spent = 0;
        let mut runs = 0;
        while spent < MEASURE_NANOS {
            let start = Instant::now();
            for _ in 0..batch {
                body();
            }
            let took = start.elapsed().as_nanos();
            if took < 1_000_000 {
                batch *= 2;
                continue;
            }
            spent += took;
            runs += u128::from(batch);
        }
        println!("{name} {} {allocations}", spent / runs.max(1));
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn user(value: &Value) -> UserInfo {
    UserInfo {
        username: text(value, "name").to_owned().into(),
        uid: text(value, "uid").to_owned().into(),
        groups: value["groups"].as_array().map(|groups| {
            groups
                .iter()
                .map(|group| group.as_str().unwrap().to_owned().into())
                .collect()
        }),
        extra: Vec::new(),
    }
}

fn evaluate(bench: &Bench, inputs: &Value) {
    for policy in inputs["policies"].as_array().unwrap() {
        let (compiled, _) = Policy::parse(text(policy, "doc").as_bytes()).unwrap();
        for (name, attributes) in [
            ("last", &inputs["attrs_last"]),
            ("nomatch", &inputs["attrs_nomatch"]),
        ] {
            let user = user(&attributes["user"]);
            let bytes = |key| text(attributes, key).as_bytes();
            let attributes = Attributes {
                user: Some(&user),
                verb: bytes("verb"),
                is_resource_request: attributes["resourceRequest"].as_bool().unwrap_or_default(),
                api_group: bytes("apiGroup"),
                api_version: bytes("apiVersion"),
                resource: bytes("resource"),
                subresource: bytes("subresource"),
                namespace: bytes("namespace"),
                name: bytes("name"),
                path: bytes("path"),
            };
            bench.measure(&format!("Evaluate/{}/{name}", text(policy, "name")), || {
                black_box(compiled.evaluate(black_box(&attributes)));
            });
        }
    }
}

fn encode(bench: &Bench, inputs: &Value) {
    for (name, key) in [
        ("metadata", "metadata_line"),
        ("requestresponse", "requestresponse_line"),
    ] {
        let event = Event::decode(text(inputs, key).as_bytes()).expect("the line is an event");
        let mut line = Vec::with_capacity(32 << 10);
        bench.measure(&format!("Encode/{name}"), || {
            line.clear();
            black_box(&event)
                .write_json_line(&mut line)
                .expect("it was encoded before");
            black_box(&line);
        });
    }
}

fn request_info(bench: &Bench, inputs: &[Value]) {
    let resolver = RequestInfoResolver::default();
    for case in inputs {
        let method = text(case, "method").as_bytes();
        let target = RequestTarget::parse(method, text(case, "target").as_bytes()).unwrap();
        bench.measure(&format!("RequestInfo/{}", text(case, "name")), || {
            black_box(resolver.resolve(black_box(method), black_box(&target)).unwrap());
        });
    }
}
