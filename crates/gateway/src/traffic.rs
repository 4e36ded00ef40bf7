//! What passes: how many requests, how they ended, what they carried, and what the gateway added to their time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Request, Uri, Version, header};
use kaudit_tower::AuditContext;
use tokio::sync::mpsc::WeakSender;
use tokio::time::Instant;

use crate::access::Access;
use crate::identity::system_clock;
use crate::metrics::count;

/// The verbs that are told apart: those of resources, then methods on other paths.
const VERBS: [&str; 14] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "proxy",
    "post",
    "put",
    "head",
    "options",
    "connect",
];
/// Verbs that are none of these, and requests that were refused before their verb was known.
const OTHER: usize = VERBS.len();
const UNKNOWN: usize = OTHER + 1;
const ALL_VERBS: usize = UNKNOWN + 1;

const CODES: std::ops::Range<u16> = 100..600;
/// Where requests are counted whose client left before it was answered.
const UNANSWERED: usize = 0;
const ALL_CODES: usize = 501;

/// Upper bounds of what the gateway adds to the time of a request.
const ADDED: [Duration; 12] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(10),
];

/// Counters of all requests.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// By verb and, within a verb, by code.
    ended: Box<[AtomicU64]>,
    open: AtomicU64,
    from_clients: AtomicU64,
    to_clients: AtomicU64,
    added: [AtomicU64; ADDED.len() + 1],
    added_nanos: AtomicU64,
    log: Option<WeakSender<Access>>,
    unlogged: AtomicU64,
}

/// What the counters of [`Gateway`](crate::Gateway) held at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TrafficSnapshot {
    /// Requests that ended, by verb and code; code 0 stands for clients that left before the answer. Verbs that are
    /// none of Kubernetes are `other`, requests that were refused before they had one `unknown`.
    pub ended: Vec<(&'static str, u16, u64)>,
    /// Requests that did not end yet, watches and sessions included.
    pub open: u64,
    /// Bytes of bodies and sessions from clients.
    pub from_clients: u64,
    /// Bytes of bodies and sessions to clients.
    pub to_clients: u64,
    /// What the gateway added to the time until the answer's head, of requests that the cluster answered: upper bounds
    /// in seconds (the last is infinite), and how many are in each bucket alone.
    pub added: Vec<(f64, u64)>,
    /// The sum of that, in seconds.
    pub added_seconds: f64,
    /// Requests that the access log lacks, because whoever writes it was behind.
    pub unlogged: u64,
}

impl Traffic {
    pub(crate) fn new(log: Option<WeakSender<Access>>) -> Self {
        let zero = AtomicU64::default;
        Self {
            ended: (0..ALL_VERBS * ALL_CODES).map(|_| zero()).collect(),
            open: zero(),
            from_clients: zero(),
            to_clients: zero(),
            added: std::array::from_fn(|_| zero()),
            added_nanos: zero(),
            log,
            unlogged: zero(),
        }
    }

    /// A request begins.
    pub(crate) fn begin<B>(self: &Arc<Self>, peer: SocketAddr, request: &Request<B>) -> Passing {
        count(&self.open);
        let noted = self.log.is_some().then(|| {
            Box::new(Noted {
                received: system_clock(),
                client: peer,
                method: request.method().clone(),
                uri: request.uri().clone(),
                version: request.version(),
                user_agent: request.headers().get(header::USER_AGENT).cloned(),
            })
        });
        Passing {
            traffic: Arc::clone(self),
            began: Instant::now(),
            audit: OnceLock::new(),
            code: AtomicU16::new(0),
            answered_nanos: AtomicU64::new(0),
            upstream_nanos: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            noted,
        }
    }

    pub(crate) fn snapshot(&self) -> TrafficSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let verbs = VERBS.iter().copied().chain(["other", "unknown"]);
        let ended = verbs
            .zip(self.ended.chunks(ALL_CODES))
            .flat_map(|(verb, counters)| {
                let codes = std::iter::once(0).chain(CODES);
                codes
                    .zip(counters)
                    .map(move |(code, counter)| (verb, code, read(counter)))
                    .filter(|(_, _, requests)| *requests > 0)
            });
        let bounds = ADDED.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        TrafficSnapshot {
            ended: ended.collect(),
            open: read(&self.open),
            from_clients: read(&self.from_clients),
            to_clients: read(&self.to_clients),
            added: bounds.zip(self.added.iter().map(read)).collect(),
            added_seconds: Duration::from_nanos(read(&self.added_nanos)).as_secs_f64(),
            unlogged: read(&self.unlogged),
        }
    }

    fn end(&self, verb: usize, code: usize) {
        if let Some(counter) = self.ended.get(verb * ALL_CODES + code) {
            count(counter);
        }
    }

    fn add(&self, added: Duration) {
        let bucket = ADDED.partition_point(|bound| *bound < added);
        if let Some(counter) = self.added.get(bucket) {
            count(counter);
        }
        self.added_nanos.fetch_add(nanos(added), Ordering::Relaxed);
    }
}

/// One request from its arrival until its last byte. Dropping it is the end.
#[derive(Debug)]
pub(crate) struct Passing {
    traffic: Arc<Traffic>,
    began: Instant,
    audit: OnceLock<AuditContext>,
    code: AtomicU16,
    /// From the beginning until the answer's head; 0 before it.
    answered_nanos: AtomicU64,
    /// Of that, what the cluster took; 0 where it was not asked.
    upstream_nanos: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    noted: Option<Box<Noted>>,
}

/// What only the access log wants to know.
#[derive(Debug)]
struct Noted {
    received: SystemTime,
    client: SocketAddr,
    method: Method,
    uri: Uri,
    version: Version,
    user_agent: Option<HeaderValue>,
}

impl Passing {
    /// When the request came.
    pub(crate) const fn began(&self) -> Instant {
        self.began
    }

    /// Says which record is the request's; only the first counts.
    pub(crate) fn is(&self, audit: &AuditContext) {
        self.audit.get_or_init(|| audit.clone());
    }

    /// The cluster took so long for the answer's head.
    pub(crate) fn asked_upstream(&self, took: Duration) {
        self.upstream_nanos.store(nanos(took).max(1), Ordering::Relaxed);
    }

    /// The answer's head goes to the client.
    pub(crate) fn answered(&self, code: u16) {
        self.code.store(code, Ordering::Relaxed);
        let took = self.began.elapsed();
        self.answered_nanos.store(nanos(took), Ordering::Relaxed);
        if let Some(upstream) = self.upstream() {
            self.traffic.add(took.saturating_sub(upstream));
        }
    }

    pub(crate) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    fn upstream(&self) -> Option<Duration> {
        match self.upstream_nanos.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    fn verb(&self) -> usize {
        let Some(audit) = self.audit.get() else {
            return UNKNOWN;
        };
        let verb = audit.request_info().verb();
        VERBS
            .iter()
            .position(|known| known.as_bytes() == verb)
            .unwrap_or(OTHER)
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let traffic = &self.traffic;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let code = self.code.load(Ordering::Relaxed);
        let at = if CODES.contains(&code) {
            usize::from(code - CODES.start) + 1
        } else {
            UNANSWERED
        };
        traffic.end(self.verb(), at);
        traffic.open.fetch_sub(1, Ordering::Relaxed);
        let (received, sent) = (read(&self.received), read(&self.sent));
        traffic.from_clients.fetch_add(received, Ordering::Relaxed);
        traffic.to_clients.fetch_add(sent, Ordering::Relaxed);
        let Some(noted) = self.noted.take() else { return };
        let audit = self.audit.get();
        let access = Access {
            received: noted.received,
            audit_id: audit.map(|audit| audit.audit_id().clone()),
            user: audit.and_then(|audit| audit.user().cloned()),
            client: noted.client,
            method: noted.method,
            uri: noted.uri,
            version: noted.version,
            code: (at != UNANSWERED).then_some(code),
            bytes_in: received,
            bytes_out: sent,
            duration: self.began.elapsed(),
            upstream: self.upstream(),
            user_agent: noted.user_agent,
        };
        let is_kept = traffic
            .log
            .as_ref()
            .and_then(WeakSender::upgrade)
            .is_some_and(|log| log.try_send(access).is_ok());
        if !is_kept {
            count(&traffic.unlogged);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn request() -> Request<()> {
        Request::get("/api/v1/pods?limit=5")
            .header("user-agent", "kubectl")
            .body(())
            .unwrap()
    }

    fn peer() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 7], 4711))
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_cluster_takes_is_not_the_gateways() {
        let traffic = Arc::new(Traffic::new(None));
        let passing = traffic.begin(peer(), &request());
        tokio::time::advance(Duration::from_millis(30)).await;
        passing.asked_upstream(Duration::from_millis(28));
        passing.answered(200);
        assert_eq!(traffic.snapshot().open, 1);
        passing.sent(10);
        drop(passing);
        let snapshot = traffic.snapshot();
        assert_eq!((snapshot.open, snapshot.to_clients), (0, 10));
        assert_eq!(snapshot.ended, [("unknown", 200, 1)]);
        let buckets: Vec<_> = snapshot
            .added
            .iter()
            .filter(|(_, requests)| *requests > 0)
            .collect();
        assert_eq!(buckets, [&(0.0025, 1)]);
        assert!((snapshot.added_seconds - 0.002).abs() < 1e-9);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_of_the_gateway_itself_add_nothing() {
        let traffic = Arc::new(Traffic::new(None));
        let passing = traffic.begin(peer(), &request());
        passing.answered(401);
        drop(passing);
        assert!(
            traffic
                .snapshot()
                .added
                .iter()
                .all(|(_, requests)| *requests == 0)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_left_unanswered_has_code_0() {
        let traffic = Arc::new(Traffic::new(None));
        drop(traffic.begin(peer(), &request()));
        assert_eq!(traffic.snapshot().ended, [("unknown", 0, 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_is_behind_or_gone_lacks_requests_and_that_is_counted() {
        let (log, mut lines) = mpsc::channel(1);
        let traffic = Arc::new(Traffic::new(Some(log.downgrade())));
        drop(traffic.begin(peer(), &request()));
        drop(traffic.begin(peer(), &request()));
        assert_eq!(traffic.snapshot().unlogged, 1);
        assert_eq!(lines.recv().await.unwrap().client, peer());
        drop(log);
        drop(traffic.begin(peer(), &request()));
        assert_eq!(traffic.snapshot().unlogged, 2);
    }
}
