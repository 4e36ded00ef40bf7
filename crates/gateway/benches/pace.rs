//! Clients of `bench/gateway` that ask at times of their own, as people and controllers do: how long answers take.
//!
//! Twenty connections each ask at random times (a Poisson process each, so all together are one). Delays are measured from
//! when a question was due, also if the connection was still busy then. Tools that ask at a fixed pace fall into step: then
//! twenty questions come within one millisecond and nothing in the next nineteen.
//!
//! Usage: `pace CA ADDRESS PATH HEADER RATE SECONDS`. Prints delays in microseconds as JSON.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for measuring")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const CONNECTIONS: u32 = 20;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` passes `--bench`; then there is nobody to ask.
    let [authority, address, path, header, rate, seconds] = args.as_slice() else {
        return;
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let address: SocketAddr = address.parse().unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n");
    let pause = Duration::from_secs(1) * CONNECTIONS / rate.parse().unwrap();
    let lasts = Duration::from_secs(seconds.parse().unwrap());
    let clients: Vec<_> = (1..=CONNECTIONS)
        .map(|number| {
            let (config, request) = (Arc::clone(&config), request.clone());
            thread::spawn(move || Client::connect(&config, address).ask(&request, pause, lasts, number))
        })
        .collect();
    let mut delays: Vec<Duration> = clients
        .into_iter()
        .flat_map(|client| client.join().unwrap())
        .collect();
    delays.sort_unstable();
    let at = |per_mille: usize| {
        let delay = delays.get(delays.len() * per_mille / 1000);
        delay.unwrap().as_micros()
    };
    println!(
        r#"{{"answers": {}, "p50": {}, "p90": {}, "p99": {}, "p999": {}}}"#,
        delays.len(),
        at(500),
        at(900),
        at(990),
        at(999),
    );
}

struct Client(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Client {
    fn connect(config: &Arc<ClientConfig>, address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
        Self(BufReader::with_capacity(64 << 10, StreamOwned::new(tls, tcp)))
    }

    /// Asks for as long as it lasts; the delays of the answers.
    fn ask(mut self, request: &str, pause: Duration, lasts: Duration, number: u32) -> Vec<Duration> {
        // Makes the connection.
        self.exchange(request);
        let mut random = Random(u64::from(number));
        let begun = Instant::now();
        let mut due = begun;
        let mut delays = Vec::new();
        loop {
            due += pause.mul_f64(random.exponential());
            if due - begun >= lasts {
                return delays;
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
            self.exchange(request);
            delays.push(due.elapsed());
        }
    }

    fn exchange(&mut self, request: &str) {
        let stream = self.0.get_mut();
        stream.write_all(request.as_bytes()).unwrap();
        stream.flush().unwrap();
        let (mut length, mut line) = (0, String::new());
        self.0.read_line(&mut line).unwrap();
        assert!(line.contains(" 200 "), "{line}");
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().unwrap();
            }
        }
        self.0.read_exact(&mut vec![0; length]).unwrap();
    }
}

/// Xorshift: the same numbers in each run.
struct Random(u64);

impl Random {
    /// The pause of a Poisson process whose mean is 1.
    fn exponential(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        #[expect(clippy::cast_precision_loss, reason = "a random number between 0 and 1")]
        let uniform = ((self.0 >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -uniform.ln()
    }
}
