//! The connections to one server: which one a request goes over, when another is opened, when one is closed.
//!
//! An HTTP/1.1 connection belongs to one request for its time. Of an HTTP/2 connection a request takes one
//! stream; streams are counted, so that none ever waits for another to end: before the server's limit is
//! reached there is another connection.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use super::SendError;
use super::health::{Health, Seen};
use super::http2::{self, Link, Slot};
use super::lane;
use super::outgoing::Outgoing;
use crate::causes::with_causes;
use crate::connect::{Begin, ConnectError, Connector, Stream};

/// Idle HTTP/1.1 connections that are kept.
const MAX_IDLE: usize = 256;

/// An idle HTTP/1.1 connection is not trusted for longer: the server may be closing it.
const MAX_IDLE_TIME: Duration = Duration::from_secs(50);

/// HTTP/2 connections at once; with all their streams taken, requests are refused.
const MAX_LINKS: usize = 512;

/// Connections to one server.
#[derive(Debug)]
pub(crate) struct Pool {
    connector: Connector,
    /// The first is of all threads that have none of their own.
    lanes: Box<[Mutex<State>]>,
    tasks: TaskTracker,
    counters: Counters,
    health: Arc<Health>,
    /// Requests under way, their answers' bodies with them, and sessions.
    busy: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) reused: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) full: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Idle>,
    links: Vec<Arc<Link>>,
    speaks: Speaks,
    opening: Option<Opening>,
    generation: Generation,
    is_closed: bool,
}

/// Connections of an older one show a certificate that is not to be shown any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Generation(u64);

/// What the server agreed to when it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Speaks {
    #[default]
    Unknown,
    Http1,
    Http2,
}

/// A connection that several requests wait for; what came of it.
type Opening = watch::Receiver<Option<Result<(), Arc<ConnectError>>>>;

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Outgoing>,
    since: Instant,
}

/// What a request goes over.
#[derive(Debug)]
pub(crate) enum Taken {
    Http1 {
        sender: SendRequest<Outgoing>,
        is_reused: bool,
        lease: Lease,
    },
    Http2 {
        slot: Slot,
        /// It has room for the stream.
        sender: h2::client::SendRequest<Bytes>,
    },
}

/// A request's part in the load of a server over HTTP/1.1, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Arc<Pool>,
    /// The connection's.
    generation: Generation,
    _load: Load,
}

impl Lease {
    fn of(pool: &Arc<Pool>, generation: Generation) -> Self {
        Self {
            pool: Arc::clone(pool),
            generation,
            _load: pool.add_load(),
        }
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) fn give_back(self, sender: SendRequest<Outgoing>) {
        self.pool.give_back(sender, self.generation);
    }
}

/// One request's or session's part in the load of a server, until it is dropped.
#[derive(Debug)]
pub struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What there is for a request.
enum Found {
    Slot(Slot),
    Idle(SendRequest<Outgoing>, Lease),
    Soon(Opening),
    Nothing,
    Full,
}

/// The connections of one server now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Connections {
    pub(crate) idle: u64,
    pub(crate) links: u64,
    pub(crate) streams: u64,
}

impl Pool {
    pub(crate) fn new(connector: Connector, health: Arc<Health>, tasks: TaskTracker, lanes: usize) -> Self {
        Self {
            connector,
            lanes: (0..=lanes).map(|_| Mutex::default()).collect(),
            tasks,
            counters: Counters::default(),
            health,
            busy: Arc::default(),
        }
    }

    pub(crate) const fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Requests and sessions under way.
    pub(crate) fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    pub(crate) fn add_load(&self) -> Load {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Load(Arc::clone(&self.busy))
    }

    pub(crate) const fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn connections(&self) -> Connections {
        let mut load = Connections::default();
        for state in self.states() {
            load.idle += state.idle.len() as u64;
            load.links += state.links.len() as u64;
            load.streams += state.links.iter().map(|link| link.streams() as u64).sum::<u64>();
        }
        load
    }

    /// Lets every connection end with what is under way on it.
    pub(crate) fn close(&self) {
        for mut state in self.states() {
            state.is_closed = true;
        }
        self.forget_all();
    }

    /// The same, and others may be opened.
    pub(crate) fn forget_all(&self) {
        for mut state in self.states() {
            state.idle.clear();
            state.links.clear();
        }
    }

    /// Lets connections that there are or are being made end likewise: they show what is not to be shown any more.
    pub(crate) fn renew(&self) {
        for mut state in self.states() {
            state.generation.0 += 1;
        }
        self.forget_all();
    }

    /// The connections that the calling thread uses.
    fn state(&self) -> MutexGuard<'_, State> {
        let lane = lane::current(self.lanes.len() - 1);
        #[expect(clippy::indexing_slicing, reason = "there is one more than are counted")]
        locked(&self.lanes[lane])
    }

    fn states(&self) -> impl Iterator<Item = MutexGuard<'_, State>> {
        self.lanes.iter().map(locked)
    }

    /// A connection, or a stream of one, for a request.
    pub(crate) async fn take(self: &Arc<Self>) -> Result<Taken, SendError> {
        loop {
            let found = self.find();
            match found {
                Found::Slot(slot) => {
                    // A connection that is going away says so here, before anything is sent.
                    if let Some(sender) = slot.link().ready().await {
                        return Ok(Taken::Http2 { slot, sender });
                    }
                    self.forget(slot.link());
                }
                Found::Idle(sender, lease) => {
                    return Ok(Taken::Http1 {
                        sender,
                        is_reused: true,
                        lease,
                    });
                }
                Found::Soon(mut opening) => match opening.wait_for(Option::is_some).await.as_deref() {
                    Ok(Some(Err(error))) => {
                        return Err(SendError::Connect(ConnectError::Shared(Arc::clone(error))));
                    }
                    Ok(_) => {}
                    Err(_) => return Err(SendError::Connect(ConnectError::Closing)),
                },
                // One for this request alone.
                Found::Nothing => match self.open().await? {
                    (Fresh::Http1(sender), generation) => {
                        return Ok(Taken::Http1 {
                            sender,
                            is_reused: false,
                            lease: Lease::of(self, generation),
                        });
                    }
                    (Fresh::Http2(link), generation) => self.add(link, generation),
                },
                Found::Full => {
                    self.counters.full.fetch_add(1, Ordering::Relaxed);
                    return Err(SendError::Full);
                }
            }
        }
    }

    fn find(self: &Arc<Self>) -> Found {
        let mut state = self.state();
        if let Some(slot) = state.least(Link::comfort) {
            return Found::Slot(slot);
        }
        if let Some(sender) = state.idle_http1() {
            return Found::Idle(sender, Lease::of(self, state.generation));
        }
        if state.speaks == Speaks::Http1 {
            return Found::Nothing;
        }
        if state.links.len() >= MAX_LINKS {
            return match state.least(|_| usize::MAX) {
                Some(slot) => Found::Slot(slot),
                None => Found::Full,
            };
        }
        let opening = self.opening(&mut state);
        // What is above the comfort of the connections that there are bridges the time.
        match state.least(|_| usize::MAX) {
            Some(slot) => Found::Slot(slot),
            None => Found::Soon(opening),
        }
    }

    /// The connection that is being opened, which is begun if there is none.
    fn opening(self: &Arc<Self>, state: &mut State) -> Opening {
        // Its sender is gone only if its task was.
        if let Some(opening) = state
            .opening
            .as_ref()
            .filter(|opening| opening.has_changed().is_ok())
        {
            return opening.clone();
        }
        let (tell, opening) = watch::channel(None);
        state.opening = Some(opening.clone());
        let pool = Arc::clone(self);
        // A task of its own: who asked first may leave, the others still wait.
        self.tasks.spawn(async move {
            let outcome = match pool.open().await {
                Ok((Fresh::Http1(sender), generation)) => {
                    pool.state().speaks = Speaks::Http1;
                    pool.give_back(sender, generation);
                    Ok(())
                }
                Ok((Fresh::Http2(link), generation)) => {
                    pool.add(link, generation);
                    Ok(())
                }
                Err(error) => Err(Arc::new(error)),
            };
            pool.state().opening = None;
            tell.send_replace(Some(outcome));
        });
        opening
    }

    fn add(&self, link: Arc<Link>, generation: Generation) {
        let mut state = self.state();
        state.speaks = Speaks::Http2;
        if !state.is_closed && generation == state.generation {
            state.links.push(link);
        }
    }

    async fn open(self: &Arc<Self>) -> Result<(Fresh, Generation), ConnectError> {
        self.counters.opened.fetch_add(1, Ordering::Relaxed);
        // Before the certificate is looked at, so that none is taken for newer than it is.
        let generation = self.state().generation;
        let opened = self.connector.connect(Beginning(Arc::clone(self))).await;
        Ok((self.opened(opened)?, generation))
    }

    /// Tells the server's health what came of a connection.
    fn opened<T>(&self, opened: Result<T, ConnectError>) -> Result<T, ConnectError> {
        self.health.see(match &opened {
            Ok(_) => Seen::Connected,
            Err(error) => Seen::NotConnected(with_causes(error)),
        });
        opened
    }

    /// A connection for one request, which may become a tunnel.
    pub(crate) async fn dedicated(self: &Arc<Self>) -> Result<SendRequest<Outgoing>, ConnectError> {
        self.counters.opened.fetch_add(1, Ordering::Relaxed);
        let opened = self
            .connector
            .connect_dedicated(Beginning(Arc::clone(self)))
            .await;
        match self.opened(opened)? {
            Fresh::Http1(sender) => Ok(sender),
            Fresh::Http2(_) => Err(ConnectError::Closing),
        }
    }

    /// Keeps an HTTP/1.1 connection whose answer was read to its end.
    fn give_back(&self, sender: SendRequest<Outgoing>, generation: Generation) {
        if sender.is_closed() {
            return;
        }
        let mut state = self.state();
        if state.idle.len() < MAX_IDLE && !state.is_closed && generation == state.generation {
            let since = Instant::now();
            state.idle.push(Idle { sender, since });
        }
    }

    /// Takes a connection out; what is under way on it goes on.
    pub(crate) fn forget(&self, link: &Arc<Link>) {
        for mut state in self.states() {
            state.links.retain(|kept| !Arc::ptr_eq(kept, link));
        }
    }

    /// The same for one that broke.
    pub(crate) fn lose(&self, link: &Arc<Link>) {
        self.forget(link);
        if link.lose() {
            self.health.see(Seen::Broke);
        }
    }

    /// Takes a connection out if the others have room for twice the streams that there are.
    fn retire_if_spare(&self, link: &Weak<Link>) {
        let mut state = self.state();
        let streams: usize = state.links.iter().map(|link| link.streams()).sum();
        let is_this = |kept: &Arc<Link>| std::ptr::eq(Arc::as_ptr(kept), link.as_ptr());
        let room: usize = state
            .links
            .iter()
            .filter(|kept| !is_this(kept))
            .map(|kept| kept.comfort())
            .sum();
        if room > 0 && streams * 2 <= room && state.links.iter().any(is_this) {
            debug!(server = %self.connector.server, "an HTTP/2 connection is not needed any more");
            state.links.retain(|kept| !is_this(kept));
        }
    }
}

fn locked(lane: &Mutex<State>) -> MutexGuard<'_, State> {
    lane.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// A stream of the connection with the fewest, among those that have fewer than `most` says.
    fn least(&self, most: impl Fn(&Link) -> usize) -> Option<Slot> {
        let link = self
            .links
            .iter()
            .filter(|link| link.streams() < most(link))
            .min_by_key(|link| link.streams())?;
        link.take(most(link))
    }

    fn idle_http1(&mut self) -> Option<SendRequest<Outgoing>> {
        while let Some(Idle { sender, since }) = self.idle.pop() {
            if since.elapsed() < MAX_IDLE_TIME && !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }
}

/// A connection that nobody used yet.
enum Fresh {
    Http1(SendRequest<Outgoing>),
    Http2(Arc<Link>),
}

/// Begins HTTP on a stream and leaves what runs it to the pool's tasks.
struct Beginning(Arc<Pool>);

impl Begin for Beginning {
    type Output = Fresh;

    async fn http1<S: Stream>(self, stream: S) -> Result<Fresh, ConnectError> {
        let server = &self.0.connector.server;
        let (sender, connection) = http1::Builder::new()
            .max_headers(256)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ConnectError::Http {
                server: server.authority(),
                source,
            })?;
        let server = server.authority();
        self.0.tasks.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%error, %server, "upstream connection ended");
            }
        });
        Ok(Fresh::Http1(sender))
    }

    async fn http2<S: Stream>(self, stream: S) -> Result<Fresh, ConnectError> {
        let pool = self.0;
        let no_http2 = |source| ConnectError::Http2 {
            server: pool.connector.server.authority(),
            source,
        };
        let mut opened = http2::begin(stream).await.map_err(no_http2)?;
        opened.driver.settle().await.map_err(no_http2)?;
        let link = opened.driver.link(opened.sender, Arc::clone(&pool.busy));
        let (weak, weak_pool) = (Arc::downgrade(&link), Arc::downgrade(&pool));
        let server = pool.connector.server.authority();
        let driver = opened.driver;
        pool.tasks.spawn(async move {
            let on_tick = || {
                if let Some(pool) = weak_pool.upgrade() {
                    pool.retire_if_spare(&weak);
                }
            };
            let ended = driver.run(Weak::clone(&weak), on_tick).await;
            // Whoever gave it up himself learns nothing from its end.
            if let (Some(pool), Some(link)) = (weak_pool.upgrade(), weak.upgrade()) {
                match &ended {
                    Ok(()) => {
                        pool.forget(&link);
                        pool.health.doubt();
                    }
                    Err(_) => pool.lose(&link),
                }
            }
            match ended {
                Ok(()) => debug!(%server, "upstream connection ended"),
                Err(error) => info!(%error, %server, "upstream connection broke"),
            }
        });
        Ok(Fresh::Http2(link))
    }
}
