//! How watches end when the gateway stops: one after another, each behind a whole event.
//!
//! Clients whose watch ends begin another one, elsewhere; spread over time they do not come all at once.
//!
//! Source: k8s.io/apiserver pkg/endpoints/filters/watch_termination.go and pkg/server/genericapiserver.go,
//! where ends are paced over the grace period in the same way.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Watches end within this time, and within half of what there is.
const LONGEST: Duration = Duration::from_secs(15);

/// The watches that are open.
#[derive(Debug, Default)]
pub(crate) struct Watches(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By when they came. What is dropped here ends.
    open: BTreeMap<u64, oneshot::Sender<()>>,
    is_over: bool,
}

/// When the `index`th of `count` watches ends, counted from the stop: evenly spread, the first at once.
fn ends_after(index: u32, count: u32, grace: Duration) -> Duration {
    (grace / 2).min(LONGEST).saturating_mul(index) / count.max(1)
}

impl Watches {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A watch begins. Where the gateway stops already it ends at once.
    pub(crate) fn begin(self: &Arc<Self>) -> Turn {
        let (sender, end) = oneshot::channel();
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        if !state.is_over {
            state.open.insert(id, sender);
        }
        drop(state);
        Turn {
            id,
            end,
            watches: Arc::clone(self),
        }
    }

    /// Ends all watches in the order in which they began, within a part of `grace`, which began at `stopped`.
    pub(crate) async fn end(&self, stopped: Instant, grace: Duration) {
        let open = {
            let mut state = self.state();
            state.is_over = true;
            std::mem::take(&mut state.open)
        };
        let count = u32::try_from(open.len()).unwrap_or(u32::MAX);
        for (index, mut watch) in (0_u32..).zip(open.into_values()) {
            // One that is over by itself is not waited for.
            tokio::select! {
                () = tokio::time::sleep_until(stopped + ends_after(index, count, grace)) => {}
                () = watch.closed() => {}
            }
        }
    }
}

/// When a watch ends.
#[derive(Debug)]
pub(crate) struct Turn {
    id: u64,
    end: oneshot::Receiver<()>,
    watches: Arc<Watches>,
}

impl Turn {
    /// Ready when it is this watch's turn to end, and not to be asked after that.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.end).poll(cx).map(drop)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.watches.state().open.remove(&self.id);
    }
}

/// Where in a watch's bytes an event ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Events {
    /// JSON: each event is a line.
    Lines { is_within: bool },
    /// Protobuf: each event has its length before it, in four bytes.
    Lengths { header: u8, left: u32 },
    /// Compressed, or in a form that does not show it: as the cluster flushed them.
    Flushes,
}

impl Events {
    /// As the answer's head says.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let begins = |name, with: &[u8]| {
            headers
                .get(name)
                .is_some_and(|value: &http::HeaderValue| value.as_bytes().starts_with(with))
        };
        if headers.contains_key(header::CONTENT_ENCODING) {
            Self::Flushes
        } else if begins(header::CONTENT_TYPE, b"application/json") {
            Self::Lines { is_within: false }
        } else if begins(header::CONTENT_TYPE, b"application/vnd.kubernetes.protobuf") {
            Self::Lengths { header: 0, left: 0 }
        } else {
            Self::Flushes
        }
    }

    /// Whether the bytes so far end with an event.
    pub(crate) const fn is_between(self) -> bool {
        match self {
            Self::Lines { is_within } => !is_within,
            Self::Lengths { header, left } => header == 0 && left == 0,
            Self::Flushes => true,
        }
    }

    /// Takes note of more bytes; gives how many of them end with an event that ends in them.
    pub(crate) fn pass(&mut self, data: &[u8]) -> Option<usize> {
        match self {
            Self::Lines { is_within } => {
                *is_within = data.last().map_or(*is_within, |last| *last != b'\n');
                data.iter().rposition(|byte| *byte == b'\n').map(|last| last + 1)
            }
            Self::Lengths { header, left } => {
                let mut end = None;
                let mut rest = data;
                while let Some((byte, behind)) = rest.split_first() {
                    if *header < 4 {
                        *left = *left << 8 | u32::from(*byte);
                        *header += 1;
                        rest = behind;
                    } else {
                        let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                        *left -= u32::try_from(taken).unwrap_or(*left);
                        rest = rest.get(taken..).unwrap_or_default();
                    }
                    if *header == 4 && *left == 0 {
                        *header = 0;
                        end = Some(data.len() - rest.len());
                    }
                }
                end
            }
            Self::Flushes => Some(data.len()),
        }
    }
}

/// A watch's bytes on their way, up to the event behind which it ends.
#[derive(Debug)]
pub(crate) struct Ending {
    turn: Turn,
    events: Events,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// It ends behind the event that is under way.
    Last,
    Over,
}

impl Ending {
    pub(crate) const fn new(turn: Turn, events: Events) -> Self {
        Self {
            turn,
            events,
            phase: Phase::Open,
        }
    }

    /// Whether the watch is over before anything more is read.
    pub(crate) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        if self.phase == Phase::Open && self.turn.poll(cx).is_ready() {
            self.phase = if self.events.is_between() {
                Phase::Over
            } else {
                Phase::Last
            };
        }
        self.phase == Phase::Over
    }

    /// What of `data` is passed on: all, or in the end what belongs to the last event.
    pub(crate) fn pass(&mut self, mut data: Bytes) -> Bytes {
        let end = self.events.pass(&data);
        if self.phase == Phase::Last
            && let Some(end) = end
        {
            self.phase = Phase::Over;
            data.truncate(end);
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// When each of `count` watches ends, in milliseconds after the stop.
    async fn ends(count: u32, grace: Duration) -> Vec<u128> {
        let watches = Arc::new(Watches::default());
        let stopped = Instant::now();
        let mut open = JoinSet::new();
        for index in 0..count {
            let mut turn = watches.begin();
            open.spawn(async move {
                std::future::poll_fn(|cx| turn.poll(cx)).await;
                (index, stopped.elapsed().as_millis())
            });
        }
        watches.end(stopped, grace).await;
        let mut ends = open.join_all().await;
        ends.sort_unstable();
        ends.into_iter().map(|(_, end)| end).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn t39_watches_end_evenly_over_half_of_the_grace_and_at_most_15_seconds() {
        assert_eq!(ends(4, seconds(8)).await, [0, 1000, 2000, 3000]);
        assert_eq!(ends(3, seconds(60)).await, [0, 5000, 10_000]);
        assert_eq!(ends(1, seconds(60)).await, [0]);
        assert_eq!(ends(2, Duration::ZERO).await, [0, 0]);
        let many = ends(1000, seconds(60)).await;
        assert!(many.is_sorted() && many[999] == 14_985, "{many:?}");
        assert!(many.windows(2).all(|pair| pair[1] - pair[0] <= 16));
    }

    #[tokio::test(start_paused = true)]
    async fn t39_a_watch_that_is_over_is_not_waited_for_and_a_new_one_ends_at_once() {
        let watches = Arc::new(Watches::default());
        let (first, second) = (watches.begin(), watches.begin());
        drop(second);
        let third = watches.begin();
        assert_eq!(watches.state().open.len(), 2);
        let stopped = Instant::now();
        let ending = watches.end(stopped, seconds(20));
        tokio::pin!(ending);
        // The third's turn comes in five seconds, unless it is over before.
        assert!(tokio::time::timeout(seconds(1), &mut ending).await.is_err());
        drop((first, third));
        ending.await;
        assert_eq!(stopped.elapsed(), seconds(1));
        let mut late = watches.begin();
        std::future::poll_fn(|cx| late.poll(cx)).await;
        assert_eq!(stopped.elapsed(), seconds(1));
    }

    #[test]
    fn the_end_of_an_event_is_found_in_any_cut_of_the_bytes() {
        let lines = Events::Lines { is_within: false };
        let lengths = Events::Lengths { header: 0, left: 0 };
        let protobuf = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x01d";
        for (events, bytes, ends) in [
            (lines, &b"{\"a\":1}\n{}\n"[..], &[8, 11][..]),
            (lengths, protobuf, &[7, 11, 16]),
        ] {
            for step in 1..bytes.len() {
                let (mut events, mut passed) = (events, 0);
                for piece in bytes.chunks(step) {
                    let expected = ends
                        .iter()
                        .rfind(|end| (passed + 1..=passed + piece.len()).contains(*end))
                        .map(|end| end - passed);
                    assert_eq!(events.pass(piece), expected, "{step} {passed}");
                    passed += piece.len();
                    assert_eq!(events.is_between(), ends.contains(&passed), "{step} {passed}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_watch_ends_behind_the_event_that_is_under_way() {
        let watches = Arc::new(Watches::default());
        let mut watch = Ending::new(watches.begin(), Events::Lines { is_within: false });
        let over = async |watch: &mut Ending| std::future::poll_fn(|cx| Poll::Ready(watch.is_over(cx))).await;
        assert_eq!(watch.pass(Bytes::from_static(b"{}\n{\"a\"")), "{}\n{\"a\"");
        assert!(!over(&mut watch).await);
        watches.end(Instant::now(), Duration::ZERO).await;
        assert!(!over(&mut watch).await);
        assert_eq!(watch.pass(Bytes::from_static(b":")), ":");
        assert!(!over(&mut watch).await);
        assert_eq!(watch.pass(Bytes::from_static(b"1}\n{\"b\"")), "1}\n");
        assert!(over(&mut watch).await);
    }

    #[test]
    fn how_events_end_is_told_by_the_head() {
        let of = |lines: &[(&'static str, &'static str)]| {
            let headers = lines
                .iter()
                .map(|(name, value)| {
                    (
                        http::HeaderName::from_static(name),
                        http::HeaderValue::from_static(value),
                    )
                })
                .collect();
            Events::of(&headers)
        };
        let json = ("content-type", "application/json;stream=watch");
        let protobuf = ("content-type", "application/vnd.kubernetes.protobuf;stream=watch");
        assert_eq!(of(&[json]), Events::Lines { is_within: false });
        assert_eq!(of(&[protobuf]), Events::Lengths { header: 0, left: 0 });
        assert_eq!(of(&[json, ("content-encoding", "gzip")]), Events::Flushes);
        assert_eq!(of(&[("content-type", "application/cbor-seq")]), Events::Flushes);
        assert_eq!(of(&[]), Events::Flushes);
    }
}
