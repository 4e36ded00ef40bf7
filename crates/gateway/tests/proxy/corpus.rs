//! T3, T4, T5, T13, T17, T19: bytes that clients send, and the bytes that then reach the cluster.
//!
//! The cases are in `tests/corpus`. Each is a block of lines:
//!
//! ```text
//! ## what the case is about
//! > what the client sends, in one write
//! < what reaches the upstream: a whole request; further ones stand behind a line `--`
//! = the codes that the client gets, in turn
//! ! the user's name: the events' stages, with their codes
//! ```
//!
//! A line that is sent ends with CR LF, unless it ends with a backslash. `\r`, `\n`, `\t`, `\\` and `\xNN`
//! stand for bytes. No `<` means that nothing reaches the upstream, no `!` that there is no event. A line
//! `~` says that the body breaks off: then a part of a request may reach the upstream, and no whole one.
//!
//! Header lines of a forwarded request are compared in sorted order, as theirs has no meaning between
//! different names. `UPSTREAM` is the upstream's address and `UUID` an Audit-ID that the gateway made.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kaudit_dial::{Cluster, Trust, Upstream};
use kaudit_gateway::{Asked, DecisionReviews, Gateway};
use kaudit_listen::{ListenConfig, Listener};
use kaudit_policy::Policy;
use kaudit_sink::Sink;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fixture::{Events, SSR};

/// No step of a case takes as long.
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub(crate) struct Case {
    file: &'static str,
    name: String,
    sent: Vec<u8>,
    outcome: Outcome,
    breaks_off: bool,
}

impl Case {
    /// Bytes behind which the gateway closes the connection.
    pub(crate) fn of(name: &str, sent: Vec<u8>) -> Self {
        Self {
            name: name.to_owned(),
            sent,
            ..Self::default()
        }
    }
}

/// What a case comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) forwarded: Vec<Vec<u8>>,
    pub(crate) codes: Vec<u16>,
    pub(crate) events: Vec<String>,
}

const FILES: [(&str, &str); 5] = [
    ("framing.txt", include_str!("../corpus/framing.txt")),
    ("bodies.txt", include_str!("../corpus/bodies.txt")),
    ("targets.txt", include_str!("../corpus/targets.txt")),
    ("headers.txt", include_str!("../corpus/headers.txt")),
    ("upgrades.txt", include_str!("../corpus/upgrades.txt")),
];

async fn hold(file: &str) {
    let cases: Vec<Case> = FILES
        .into_iter()
        .filter(|(name, _)| *name == file)
        .flat_map(|(name, text)| parse(name, text))
        .collect();
    assert!(!cases.is_empty());
    let mut wrong = String::new();
    for case in cases {
        let (outcome, parts, _) = play(&case).await;
        let is_as_said = outcome == case.outcome && (case.breaks_off || parts.is_empty());
        if !is_as_said {
            writeln!(wrong, "{}: it is\n{}", case.file, show(&case, &outcome, &parts)).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test]
async fn t19_framing_is_read_in_one_way_or_refused() {
    hold("framing.txt").await;
}

#[tokio::test]
async fn t19_a_body_ends_in_one_place_or_is_refused() {
    hold("bodies.txt").await;
}

#[tokio::test]
async fn t13_t17_targets_are_forwarded_byte_for_byte_or_refused() {
    hold("targets.txt").await;
}

#[tokio::test]
async fn t03_t04_t05_headers_cannot_make_another_of_the_client() {
    hold("headers.txt").await;
}

#[tokio::test]
async fn t22_t24_what_comes_behind_an_upgrade_is_a_session_or_a_request_of_its_own() {
    hold("upgrades.txt").await;
}

#[test]
fn t19_the_corpus_names_each_case_once() {
    let cases: Vec<Case> = FILES
        .into_iter()
        .flat_map(|(name, text)| parse(name, text))
        .collect();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len());
    assert!(cases.len() >= 60, "{}", cases.len());
    for case in &cases {
        let (requests, pairs) = (case.outcome.forwarded.len(), case.outcome.events.len());
        let is_unheard = requests == 0 || case.breaks_off;
        assert!(is_unheard || requests == pairs, "{}", case.name);
    }
}

fn parse(file: &'static str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        let (mark, rest) = line.split_at_checked(2).unwrap_or((line, ""));
        if mark == "##" {
            cases.push(Case {
                file,
                name: rest.trim().to_owned(),
                ..Case::default()
            });
            continue;
        }
        let Some(case) = cases.last_mut() else { continue };
        let Outcome {
            forwarded,
            codes,
            events,
        } = &mut case.outcome;
        match mark.trim_end() {
            ">" => case.sent.extend(unescaped(rest)),
            "<" => {
                if forwarded.is_empty() {
                    forwarded.push(Vec::new());
                }
                forwarded.last_mut().unwrap().extend(unescaped(rest));
            }
            "--" => forwarded.push(Vec::new()),
            "=" => codes.extend(rest.split_whitespace().map(|code| code.parse::<u16>().unwrap())),
            "!" => events.push(rest.to_owned()),
            "~" => case.breaks_off = true,
            "" | "#" => {}
            _ => panic!("{file}: {line}"),
        }
    }
    for request in cases.iter_mut().flat_map(|case| &mut case.outcome.forwarded) {
        *request = sorted(request);
    }
    cases
}

/// The bytes that a line stands for.
fn unescaped(line: &str) -> Vec<u8> {
    let (line, end): (&str, &[u8]) = match line.strip_suffix('\\') {
        Some(line) => (line, b""),
        None => (line, b"\r\n"),
    };
    let mut bytes = Vec::new();
    let mut rest = line.bytes();
    while let Some(byte) = rest.next() {
        let byte = match (byte, byte == b'\\') {
            (byte, false) => byte,
            (_, true) => match rest.next().unwrap() {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                quoted @ (b'\\' | b'"' | b'\'') => quoted,
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => panic!("\\{}", char::from(other)),
            },
        };
        bytes.push(byte);
    }
    bytes.extend_from_slice(end);
    bytes
}

/// A request with its header lines in order.
fn sorted(request: &[u8]) -> Vec<u8> {
    let Some(end) = position(request, b"\r\n\r\n") else {
        return request.to_vec();
    };
    let (head, rest) = request.split_at(end);
    let mut lines = lines(head);
    if let Some((_, headers)) = lines.split_first_mut() {
        headers.sort_by_key(|line| line.split(|byte| *byte == b':').next().map(<[u8]>::to_vec));
    }
    [&lines.join(&b"\r\n"[..]), rest].concat()
}

fn lines(mut head: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    while let Some(end) = position(head, b"\r\n") {
        lines.push(head[..end].to_vec());
        head = &head[end + 2..];
    }
    lines.push(head.to_vec());
    lines
}

fn position(bytes: &[u8], of: &[u8]) -> Option<usize> {
    bytes.windows(of.len()).position(|window| window == of)
}

/// A case as it would be written with this outcome.
fn show(case: &Case, outcome: &Outcome, parts: &[Vec<u8>]) -> String {
    let marked = |mark: &str, bytes: &[u8]| -> String {
        bytes
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| match line.strip_suffix(b"\r\n") {
                Some(line) => format!("{mark} {}\n", line.escape_ascii()),
                None => format!("{mark} {}\\\n", line.escape_ascii()),
            })
            .collect()
    };
    let forwarded: Vec<String> = outcome
        .forwarded
        .iter()
        .map(|request| marked("<", request))
        .collect();
    let parts: String = parts.iter().map(|part| marked("~", part)).collect();
    let codes: Vec<String> = outcome.codes.iter().map(u16::to_string).collect();
    let events: String = outcome
        .events
        .iter()
        .map(|events| format!("! {events}\n"))
        .collect();
    format!(
        "## {}\n{}{}{parts}= {}\n{events}",
        case.name,
        marked(">", &case.sent),
        forwarded.join("--\n"),
        codes.join(" "),
    )
}

/// One case through a gateway of its own: its outcome, requests that did not reach the upstream whole, and the
/// events.
pub(crate) async fn play(case: &Case) -> (Outcome, Vec<Vec<u8>>, Vec<Value>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = socket.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let mut accepting = JoinSet::new();
    let hears = Arc::clone(&heard);
    let closed = CancellationToken::new();
    let over = closed.clone();
    accepting.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = socket.accept() => {
                    connections.spawn(listen(accepted.unwrap().0, Arc::clone(&hears)));
                }
                () = over.cancelled() => break,
            }
        }
        while let Some(ended) = connections.join_next().await {
            ended.unwrap();
        }
    });

    let (policy, _) =
        Policy::parse(b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n").unwrap();
    let cluster = Cluster::new(format!("http://{upstream}").parse().unwrap(), Trust::Public);
    let events = Arc::new(Events::default());
    let mut decisions = DecisionReviews::default();
    decisions.asked = Asked::No;
    let sink = Arc::clone(&events) as Arc<dyn Sink>;
    let gateway = Gateway::builder(Upstream::new(&cluster, false).unwrap(), policy, sink)
        .decisions(decisions)
        .build()
        .unwrap();
    let listener = Listener::bind(ListenConfig::plain("127.0.0.1:0".parse().unwrap()))
        .await
        .unwrap();
    let (addr, stop) = (listener.local_addr(), CancellationToken::new());
    let mut serving = JoinSet::new();
    let (server, stopped) = (gateway.clone(), stop.clone());
    serving.spawn(async move { server.serve(listener, stopped, LIMIT).await });

    let exchanged = tokio::time::timeout(LIMIT, exchange(addr, case)).await;
    let codes = exchanged.unwrap_or_else(|_| panic!("{}: heard {:?}", case.name, heard.lock().unwrap()));
    // What is recorded after the gateway's end was never audited.
    stop.cancel();
    serving.join_next().await.unwrap().unwrap();
    closed.cancel();
    accepting.join_next().await.unwrap().unwrap();
    let metrics = gateway.audit_metrics();
    assert_eq!(metrics.received, metrics.finals, "G-2: {}", case.name);

    let mut forwarded = Vec::new();
    let mut parts = Vec::new();
    for heard in std::mem::take(&mut *heard.lock().unwrap()) {
        let is_whole = heard.is_whole;
        let request = normalised(&heard.bytes, &format!("host: {upstream}"));
        if is_whole { &mut forwarded } else { &mut parts }.push(request);
    }
    let events = events.so_far();
    let outcome = Outcome {
        forwarded,
        codes,
        events: told(&events),
    };
    (outcome, parts, events)
}

fn normalised(request: &[u8], host: &str) -> Vec<u8> {
    let Some(end) = position(request, b"\r\n\r\n") else {
        return request.to_vec();
    };
    let (head, rest) = request.split_at(end);
    let lines: Vec<Vec<u8>> = lines(head)
        .into_iter()
        .map(|line| match line.strip_prefix(b"audit-id: ") {
            Some(id) if id.len() == 36 => b"audit-id: UUID".to_vec(),
            _ if line == host.as_bytes() => b"host: UPSTREAM".to_vec(),
            _ => line,
        })
        .collect();
    sorted(&[&lines.join(&b"\r\n"[..]), rest].concat())
}

/// The events of each request on a line.
fn told(events: &[Value]) -> Vec<String> {
    let mut ids: Vec<&Value> = Vec::new();
    for event in events {
        if !ids.contains(&&event["auditID"]) {
            ids.push(&event["auditID"]);
        }
    }
    ids.into_iter()
        .map(|id| {
            let mut of = events.iter().filter(|event| event["auditID"] == *id).peekable();
            let user = of.peek().and_then(|event| event["user"]["username"].as_str());
            let stages: Vec<String> = of
                .clone()
                .map(|event| {
                    let stage = event["stage"].as_str().unwrap();
                    match event["responseStatus"]["code"].as_u64() {
                        Some(code) => format!("{stage} {code}"),
                        None => stage.to_owned(),
                    }
                })
                .collect();
            format!("{}: {}", user.unwrap_or("nobody"), stages.join(", "))
        })
        .collect()
}

/// Sends a case's bytes and gives the codes of the answers.
async fn exchange(addr: std::net::SocketAddr, case: &Case) -> Vec<u16> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(&case.sent).await.unwrap();
    let is_head = case.sent.starts_with(b"HEAD ");
    let mut codes = Vec::new();
    let mut answers = Vec::new();
    let mut buffer = [0; 4096];
    let mut is_open = true;
    loop {
        while let Some((code, length)) = answer(&answers, is_head) {
            codes.push(code);
            answers.drain(..length);
        }
        // An end that comes too early would take an answer that is still on its way.
        if is_open && codes.len() >= case.outcome.codes.len() && !case.outcome.codes.is_empty() {
            is_open = false;
            // The gateway may have closed already.
            drop(stream.shutdown().await);
        }
        match stream.read(&mut buffer).await {
            Ok(read @ 1..) => answers.extend_from_slice(&buffer[..read]),
            // A connection that is reset has ended too: bytes of the client were not read.
            Ok(0) | Err(_) => break,
        }
    }
    codes
}

/// The code and the length of the answer that `bytes` begin with, if it is there whole.
fn answer(bytes: &[u8], is_head: bool) -> Option<(u16, usize)> {
    let head = position(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let code = text.split(' ').nth(1)?.parse().ok()?;
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
        .filter(|_| !is_head)
        .unwrap_or(0);
    (bytes.len() >= head + length).then_some((code, head + length))
}

/// A request as the upstream heard it.
#[derive(Debug)]
struct Heard {
    bytes: Vec<u8>,
    is_whole: bool,
}

/// The upstream's end of one connection: everything that comes is kept, but for the gateway's own reviews.
///
/// A request to a target with `answer=CODE` is answered with that code, others with 200.
async fn listen(mut stream: TcpStream, heard: Arc<Mutex<Vec<Heard>>>) {
    let mut unread = Vec::new();
    loop {
        let length = loop {
            if let Some(length) = request_length(&unread) {
                break length;
            }
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer).await {
                Ok(read @ 1..) => unread.extend_from_slice(&buffer[..read]),
                Ok(0) | Err(_) => {
                    if !unread.is_empty() {
                        let (bytes, is_whole) = (unread, false);
                        heard.lock().unwrap().push(Heard { bytes, is_whole });
                    }
                    return;
                }
            }
        };
        let request: Vec<u8> = unread.drain(..length).collect();
        let text = String::from_utf8_lossy(&request).into_owned();
        let target = text.split(' ').nth(1).unwrap_or_default();
        if target == SSR {
            let user = if text.contains("authorization: Bearer good\r\n") {
                json!({"username": "alice", "groups": ["system:authenticated"]})
            } else {
                json!({"username": "system:anonymous", "groups": ["system:unauthenticated"]})
            };
            let review = json!({"status": {"userInfo": user}}).to_string();
            let answer = format!(
                "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{review}",
                review.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            continue;
        }
        let code = target
            .split_once("answer=")
            .map_or("200", |(_, code)| code)
            .to_owned();
        let (bytes, is_whole) = (request, true);
        heard.lock().unwrap().push(Heard { bytes, is_whole });
        if code == "101" {
            let switched =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(switched.as_bytes()).await.unwrap();
            let mut session = unread;
            // A session that is cut was one too.
            drop(stream.read_to_end(&mut session).await);
            heard.lock().unwrap().last_mut().unwrap().bytes.extend(session);
            return;
        }
        let answer =
            format!("HTTP/1.1 {code} Told\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// The length of the request that `bytes` begin with, if it is there whole. The gateway's own framing is
/// plain: anything else never becomes a whole request.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let head = position(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let of = |name: &str| -> Vec<&str> {
        text.split("\r\n")
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .collect()
    };
    match (&of("content-length")[..], &of("transfer-encoding")[..]) {
        ([], []) => Some(head),
        ([length], []) => {
            let length: usize = length.parse().ok()?;
            (bytes.len() >= head + length).then_some(head + length)
        }
        ([], ["chunked"]) => {
            let mut at = head;
            loop {
                let line = position(&bytes[at..], b"\r\n")?;
                let size = std::str::from_utf8(&bytes[at..at + line]).ok()?;
                let size = usize::from_str_radix(size, 16).ok()?;
                at += line + 2;
                if size == 0 {
                    // Trailers, and the empty line behind them.
                    while position(&bytes[at..], b"\r\n")? > 0 {
                        at += position(&bytes[at..], b"\r\n")? + 2;
                    }
                    return Some(at + 2);
                }
                at += size + 2;
                if bytes.len() < at {
                    return None;
                }
            }
        }
        _ => None,
    }
}
