//! Whether one server is given requests: what is seen of it, and what follows.
//!
//! A server is put aside when it cannot be reached, breaks connections instead of answering, or says or shows by
//! its silence, twice in a row, that it is not ready. One that requests found wanting is tried again by one request at a
//! time, after waits that grow, and comes back with the first thing that proves the opposite of why it went. One that says
//! itself that it is not ready has to say twice that it is.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Duration, Instant};
use tracing::{info, warn};

use super::dice::Dice;
use crate::Server;
use crate::connect::SHORT_LIMIT;

/// The first wait before a request tries a server that was put aside; each that fails doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// No wait is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Connections that break one after the other with no answer in between: one may be an accident.
const MAX_BREAKS: u32 = 3;

/// Questions one after the other whose answers put a server aside: one may have been lost, or late for an accident's sake.
const FALL: u32 = 2;

/// The same that bring one back that such answers had put aside.
const RISE: u32 = 2;

/// What was seen of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A connection was made.
    Connected,
    /// None could be made.
    NotConnected(String),
    /// A request was answered, whatever the answer.
    Answered,
    /// A connection broke.
    Broke,
    /// It says that it is ready.
    Ready,
    /// It says that it is not, with this status.
    NotReady(u16),
    /// It was asked whether it is ready, and said nothing in time.
    Silent,
    /// It could not be asked; why was seen already.
    NotAsked,
}

/// Why a server is aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Unreachable(String),
    Breaks,
    NotReady(u16),
    Silent,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => f.write_str(error),
            Self::Breaks => f.write_str("its connections break before it answers"),
            Self::NotReady(code) => write!(f, "it answers {code} to /readyz"),
            Self::Silent => f.write_str("it does not answer /readyz"),
        }
    }
}

impl Why {
    /// Whether it was found by questions for readiness.
    const fn is_unready(&self) -> bool {
        matches!(self, Self::NotReady(_) | Self::Silent)
    }

    /// Whether what was seen proves the opposite; `ready` are the answers in a row that said so.
    fn is_over(&self, seen: &Seen, judge: Judge, ready: u32) -> bool {
        match seen {
            Seen::Ready => !self.is_unready() || ready >= RISE,
            // Not of one that says itself that it is not ready: that answers until it stops.
            Seen::Answered => !matches!(self, Self::NotReady(_)),
            // One that hangs may still take connections.
            Seen::Connected => matches!(self, Self::Unreachable(_)) && judge == Judge::Requests,
            _ => false,
        }
    }
}

/// Who finds out that a server does well again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judge {
    /// Requests, one at a time.
    Requests,
    /// Questions for its readiness, which found it wanting: no request has to wait in vain.
    Checks,
}

/// Whether a server is given requests.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    In {
        /// Connections that broke since the last answer.
        breaks: u32,
        /// Questions for readiness since the last good answer.
        unready: u32,
    },
    Aside {
        since: Instant,
        /// Then one request may try it.
        until: Instant,
        /// How often it failed again since.
        failures: u32,
        why: Why,
        judge: Judge,
        /// Good answers since the last bad one.
        ready: u32,
    },
}

impl Standing {
    /// In, and nothing was seen that is not well.
    const WELL: Self = Self::In {
        breaks: 0,
        unready: 0,
    };
}

/// What became of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Aside(Why),
    Back { after: Duration },
}

/// The state of one server. Knows neither clock nor network.
#[derive(Debug)]
struct State {
    standing: Standing,
    dice: Dice,
}

impl State {
    const fn new(dice: Dice) -> Self {
        Self {
            standing: Standing::WELL,
            dice,
        }
    }

    /// What follows from what was seen.
    fn see(&mut self, now: Instant, seen: Seen) -> Option<Change> {
        match &mut self.standing {
            Standing::In { breaks, unready } => {
                let why = match seen {
                    Seen::Connected | Seen::NotAsked => return None,
                    Seen::Answered => {
                        *breaks = 0;
                        return None;
                    }
                    Seen::Ready => {
                        self.standing = Standing::WELL;
                        return None;
                    }
                    Seen::NotReady(_) | Seen::Silent if *unready + 1 < FALL => {
                        *unready += 1;
                        return None;
                    }
                    Seen::Broke => {
                        *breaks += 1;
                        if *breaks < MAX_BREAKS {
                            return None;
                        }
                        Why::Breaks
                    }
                    Seen::NotConnected(error) => Why::Unreachable(error),
                    Seen::NotReady(code) => Why::NotReady(code),
                    Seen::Silent => Why::Silent,
                };
                let judge = match why {
                    Why::NotReady(_) | Why::Silent => Judge::Checks,
                    Why::Unreachable(_) | Why::Breaks => Judge::Requests,
                };
                let until = now + self.wait(0);
                self.standing = Standing::Aside {
                    since: now,
                    until,
                    failures: 0,
                    why: why.clone(),
                    judge,
                    ready: 0,
                };
                Some(Change::Aside(why))
            }
            Standing::Aside {
                since,
                until,
                failures,
                why,
                judge,
                ready,
            } => {
                match seen {
                    Seen::Ready => *ready += 1,
                    Seen::NotReady(_) | Seen::Silent | Seen::NotAsked | Seen::NotConnected(_) => *ready = 0,
                    Seen::Connected | Seen::Answered | Seen::Broke => {}
                }
                if why.is_over(&seen, *judge, *ready) {
                    let after = now.saturating_duration_since(*since);
                    self.standing = Standing::WELL;
                    return Some(Change::Back { after });
                }
                if matches!(seen, Seen::NotReady(_) | Seen::Silent | Seen::NotAsked) {
                    *judge = Judge::Checks;
                }
                let newest = match seen {
                    // What it says itself outweighs what else is seen of it.
                    Seen::NotConnected(error) => Some(Why::Unreachable(error)),
                    Seen::NotReady(code) => Some(Why::NotReady(code)),
                    Seen::Silent => Some(Why::Silent),
                    Seen::Broke | Seen::NotAsked => None,
                    Seen::Connected | Seen::Answered | Seen::Ready => return None,
                };
                if let Some(newest) = newest {
                    *why = newest;
                }
                // Requests that began before it went fail one after the other: that is one failure.
                if now < *until {
                    return None;
                }
                *failures = failures.saturating_add(1);
                let failures = *failures;
                let next = now + self.wait(failures);
                if let Standing::Aside { until, .. } = &mut self.standing {
                    *until = next;
                }
                None
            }
        }
    }

    /// Whether the next answer to a question for readiness may decide.
    const fn is_undecided(&self) -> bool {
        match &self.standing {
            Standing::In { unready, .. } => *unready > 0,
            Standing::Aside { ready, .. } => *ready > 0,
        }
    }

    /// Whether a request may try a server that is aside; the next one may later.
    fn may_try(&mut self, now: Instant) -> bool {
        let Standing::Aside {
            until,
            failures,
            judge,
            ..
        } = &mut self.standing
        else {
            return true;
        };
        if now < *until || *judge == Judge::Checks {
            return false;
        }
        // One that finds no connection is over by then, so that there is never a second one beside it.
        *failures = failures.saturating_add(1);
        let failures = *failures;
        let next = now + self.wait(failures).max(SHORT_LIMIT);
        if let Standing::Aside { until, .. } = &mut self.standing {
            *until = next;
        }
        true
    }

    /// The wait after so many failures: between 80 and 120 hundredths of its length, lest all gateways try at once.
    fn wait(&self, failures: u32) -> Duration {
        let whole = FIRST_WAIT
            .saturating_mul(1_u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX))
            .min(LONGEST_WAIT);
        let hundredths = 80 + u32::try_from(self.dice.roll() % 41).unwrap_or_default();
        whole * hundredths / 100
    }
}

/// One server, and how it does; shared by all who send to it.
#[derive(Debug)]
pub(crate) struct Health {
    server: Server,
    state: Mutex<State>,
    /// Whether it is in, for who does not want the lock.
    is_in: AtomicBool,
    /// Whether an answer would change something.
    is_troubled: AtomicBool,
    connect_failures: AtomicU64,
    /// Tells whoever waits for an answer that none is to be expected.
    hung: Notify,
    /// Asks for a look at the server before its time.
    doubt: Notify,
}

impl Health {
    pub(crate) fn new(server: Server, dice: Dice) -> Self {
        Self {
            server,
            state: Mutex::new(State::new(dice)),
            is_in: AtomicBool::new(true),
            is_troubled: AtomicBool::new(false),
            connect_failures: AtomicU64::new(0),
            hung: Notify::new(),
            doubt: Notify::new(),
        }
    }

    pub(crate) const fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn is_in(&self) -> bool {
        self.is_in.load(Ordering::Acquire)
    }

    pub(crate) fn connect_failures(&self) -> u64 {
        self.connect_failures.load(Ordering::Relaxed)
    }

    /// Why the server is aside, if it is.
    pub(crate) fn why_aside(&self) -> Option<String> {
        match &self.state().standing {
            Standing::In { .. } => None,
            Standing::Aside { why, .. } => Some(why.to_string()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request may try the server although it is aside.
    pub(crate) fn may_try(&self) -> bool {
        self.state().may_try(Instant::now())
    }

    /// A request was answered: nearly always no news.
    pub(crate) fn answered(&self) {
        if self.is_troubled.load(Ordering::Acquire) {
            self.see(Seen::Answered);
        }
    }

    /// Takes notice, and tells of a change.
    pub(crate) fn see(&self, seen: Seen) {
        match seen {
            Seen::NotConnected(_) => {
                self.connect_failures.fetch_add(1, Ordering::Relaxed);
            }
            Seen::Broke => self.doubt.notify_one(),
            _ => {}
        }
        let is_silent = seen == Seen::Silent;
        let (change, is_in) = {
            let mut state = self.state();
            let change = state.see(Instant::now(), seen);
            let is_in = matches!(state.standing, Standing::In { .. });
            self.is_in.store(is_in, Ordering::Release);
            let is_troubled = state.standing != Standing::WELL;
            self.is_troubled.store(is_troubled, Ordering::Release);
            (change, is_in)
        };
        let server = &self.server;
        match change {
            Some(Change::Aside(why)) => warn!(%server, %why, "a server of the cluster takes no requests"),
            Some(Change::Back { after }) => {
                info!(%server, ?after, "a server of the cluster takes requests again");
            }
            None => {}
        }
        if is_silent && !is_in {
            self.hung.notify_waiters();
        }
    }

    /// The server ended a connection, as one does that is about to stop.
    pub(crate) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Whether it is soon to be known how the server does, if it is asked again.
    pub(crate) fn is_undecided(&self) -> bool {
        self.state().is_undecided()
    }

    /// Waits until there is a reason to look at the server.
    pub(crate) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// Waits until the server is found to be silent.
    pub(crate) async fn hung(&self) {
        self.hung.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State::new(Dice::of(7))
    }

    fn unreachable() -> Seen {
        Seen::NotConnected("refused".to_owned())
    }

    /// Everything that may be seen.
    fn all() -> [Seen; 8] {
        [
            Seen::Connected,
            unreachable(),
            Seen::Answered,
            Seen::Broke,
            Seen::Ready,
            Seen::NotReady(500),
            Seen::Silent,
            Seen::NotAsked,
        ]
    }

    fn is_in(state: &State) -> bool {
        matches!(state.standing, Standing::In { .. })
    }

    #[test]
    fn what_puts_a_server_aside_and_what_brings_it_back() {
        let back = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let table = [
            (vec![unreachable()], back(&["Connected", "Answered", "Ready"])),
            (vec![Seen::Broke; 3], back(&["Answered", "Ready"])),
            (vec![Seen::NotReady(500); 2], back(&["Ready, Ready"])),
            (vec![Seen::Silent; 2], back(&["Answered", "Ready, Ready"])),
            (
                vec![Seen::NotReady(500), Seen::Silent],
                back(&["Answered", "Ready, Ready"]),
            ),
        ];
        for (reasons, expected) in table {
            let mut found = Vec::new();
            for proof in all() {
                let now = Instant::now();
                let mut state = state();
                for reason in &reasons {
                    assert!(is_in(&state), "{reasons:?}");
                    state.see(now, reason.clone());
                }
                assert!(!is_in(&state), "{reasons:?}");
                state.see(now, proof.clone());
                if is_in(&state) {
                    found.push(format!("{proof:?}"));
                    continue;
                }
                state.see(now, proof.clone());
                if is_in(&state) {
                    found.push(format!("{proof:?}, {proof:?}"));
                }
            }
            assert_eq!(found, expected, "{reasons:?}");
        }
    }

    #[test]
    fn connections_that_break_between_answers_are_accidents() {
        let (now, mut state) = (Instant::now(), state());
        for _ in 0..20 {
            assert_eq!(state.see(now, Seen::Broke), None);
            assert_eq!(state.see(now, Seen::Broke), None);
            assert_eq!(state.see(now, Seen::Answered), None);
        }
        assert!(is_in(&state));
    }

    #[test]
    fn an_answer_that_is_bad_once_or_good_once_decides_nothing() {
        let (now, mut state) = (Instant::now(), state());
        for bad in [Seen::Silent, Seen::NotReady(500)].iter().cycle().take(20) {
            assert_eq!(state.see(now, bad.clone()), None);
            assert!(state.is_undecided());
            // What requests see meanwhile says nothing of readiness.
            assert_eq!(state.see(now, Seen::Answered), None);
            assert_eq!(state.see(now, Seen::Ready), None);
            assert!(!state.is_undecided());
        }
        state.see(now, Seen::Silent);
        assert!(state.see(now, Seen::NotReady(500)).is_some());
        for bad in [Seen::NotReady(500), Seen::NotAsked, unreachable()]
            .iter()
            .cycle()
            .take(20)
        {
            state.see(now, Seen::NotReady(500));
            assert_eq!(state.see(now, Seen::Ready), None);
            assert!(state.is_undecided());
            state.see(now, bad.clone());
            assert!(!is_in(&state) && !state.is_undecided());
        }
    }

    #[test]
    fn a_change_is_told_once() {
        let (now, mut state) = (Instant::now(), state());
        let why = Why::NotReady(500);
        assert_eq!(state.see(now, Seen::NotReady(500)), None);
        assert_eq!(state.see(now, Seen::NotReady(500)), Some(Change::Aside(why)));
        for seen in [unreachable(), Seen::Silent, Seen::NotReady(500), Seen::Broke] {
            assert_eq!(state.see(now + LONGEST_WAIT, seen), None);
        }
        let after = Duration::from_secs(40);
        assert_eq!(state.see(now + after, Seen::Ready), None);
        assert_eq!(state.see(now + after, Seen::Ready), Some(Change::Back { after }));
        assert_eq!(state.see(now + after, Seen::Ready), None);
    }

    #[test]
    fn tries_come_after_waits_that_grow_to_half_a_minute_and_start_anew() {
        let (mut now, mut state) = (Instant::now(), state());
        for _ in 0..2 {
            state.see(now, unreachable());
            let mut waits = Vec::new();
            for _ in 0..8 {
                let begin = now;
                while !state.may_try(now) {
                    now += Duration::from_millis(10);
                }
                waits.push((now - begin).as_secs_f64());
                // Another request may not, until this one has failed.
                assert!(!state.may_try(now));
                now += Duration::from_secs(4);
                assert_eq!(state.see(now, unreachable()), None);
            }
            assert!((0.8..=1.21).contains(&waits[0]), "{waits:?}");
            assert!(waits.windows(2).all(|pair| pair[1] >= pair[0] * 0.5), "{waits:?}");
            assert!(waits.iter().all(|wait| *wait <= 36.1), "{waits:?}");
            assert!((20.0..=36.1).contains(&waits[7]), "{waits:?}");
            assert!(state.see(now, Seen::Connected).is_some());
        }
    }

    #[test]
    fn what_a_check_found_only_a_check_tries_again() {
        for seen in [Seen::NotReady(500), Seen::Silent, Seen::NotAsked] {
            let (now, mut state) = (Instant::now(), state());
            state.see(now, unreachable());
            assert!(state.may_try(now + Duration::from_secs(2)));
            state.see(now, seen);
            // Nor does what requests find out since then change that, though it says better what is wrong.
            state.see(now, unreachable());
            assert!(!state.may_try(now + Duration::from_secs(3600)));
            assert_eq!(state.see(now, Seen::Connected), None);
            assert!(state.see(now, Seen::Ready).is_some());
            assert!(is_in(&state));
        }
    }

    /// Whatever happens in whatever order, what is promised of the state holds.
    #[test]
    fn any_history_keeps_the_promises() {
        let dice = Dice::of(11);
        for _ in 0..200 {
            let (mut now, mut state) = (Instant::now(), state());
            let mut last_try: Option<Instant> = None;
            let mut ready = 0;
            for _ in 0..300 {
                now += Duration::from_millis(dice.roll() % 3000);
                let was_in = is_in(&state);
                if dice.roll().is_multiple_of(4) {
                    let may = state.may_try(now);
                    assert!(may || !was_in, "who is in takes requests");
                    if may && !was_in {
                        let last = last_try.replace(now);
                        assert!(
                            last.is_none_or(|last| now - last >= SHORT_LIMIT),
                            "one try at a time"
                        );
                    }
                    continue;
                }
                let nth = usize::try_from(dice.roll() % 8).unwrap();
                let seen = all().into_iter().nth(nth).unwrap();
                let change = state.see(now, seen.clone());
                assert_eq!(
                    change.is_some(),
                    was_in != is_in(&state),
                    "a change is told, and nothing else"
                );
                ready = match seen {
                    Seen::Ready => ready + 1,
                    Seen::Connected | Seen::Answered | Seen::Broke => ready,
                    _ => 0,
                };
                assert!(ready < RISE || is_in(&state), "two successes are enough");
                if seen == Seen::Broke {
                    ready = 0;
                }
                if is_in(&state) {
                    last_try = None;
                }
                if let Standing::Aside { until, .. } = state.standing {
                    assert!(until <= now + LONGEST_WAIT * 12 / 10, "no wait is longer");
                }
            }
        }
    }
}
