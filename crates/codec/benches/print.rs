//! A large list in protobuf as JSON: `cargo bench -p kaudit-codec`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints, and stops at the first surprise"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use kaudit_codec::protobuf::{Message, Value, to_json};

#[path = "../tests/bodies/vectors.rs"]
mod vectors;

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend_from_slice(bytes);
    out
}

/// The object in an envelope.
fn raw(body: &[u8]) -> Vec<u8> {
    let fields = Message::new(body.get(4..).unwrap()).fields();
    let mut raw = fields.filter_map(|field| match field {
        Ok((2, Value::Bytes(bytes))) => Some(bytes.to_vec()),
        _ => None,
    });
    raw.next().unwrap()
}

fn main() {
    let vectors = vectors::read();
    for shape in ["sparse", "mixed", "dense", "full"] {
        let is_pod = |vector: &&vectors::Vector| {
            vector.api_version == "v1" && vector.kind == "Pod" && vector.shape == shape
        };
        let vector = vectors.iter().find(is_pod).unwrap();
        assert_eq!(
            to_json(&vector.bytes(), usize::MAX).unwrap(),
            vector.json.as_bytes()
        );
        let pod = raw(&vector.bytes());
        let count = 4_000_000 / pod.len();
        let items = field(2, &pod).repeat(count);
        let type_meta = [field(1, b"v1"), field(2, b"PodList")].concat();
        let body = [b"k8s\0".to_vec(), field(1, &type_meta), field(2, &items)].concat();
        let json = to_json(&body, usize::MAX).unwrap().len();
        let mut best = Duration::MAX;
        for _ in 0..20 {
            let started = Instant::now();
            black_box(to_json(black_box(&body), usize::MAX).unwrap());
            best = best.min(started.elapsed());
        }
        let per_second = |bytes: usize| (bytes as f64 / best.as_secs_f64() / 1e6).round();
        println!(
            "{shape}: {count} pods of {} B, {} MB/s of protobuf, {} MB/s of JSON, {best:?} in all",
            pod.len(),
            per_second(body.len()),
            per_second(json)
        );
    }
}
