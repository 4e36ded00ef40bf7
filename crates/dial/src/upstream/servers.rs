//! The servers of one cluster, and which of them a request goes to.

use std::sync::Arc;

use super::dice::Dice;
use super::health::Health;
use super::pool::Pool;
use crate::Server;

/// The API servers of one cluster and how each of them does. Cheap to clone: connections that are made with clones
/// of one share what they find out.
///
/// Of each server only host and port count; scheme, credential, Host header and base path are the cluster's.
#[derive(Clone, Debug)]
pub struct Servers(Arc<[Arc<Health>]>);

impl Servers {
    /// These servers, all of which are taken to be well.
    #[must_use]
    pub fn new(servers: impl IntoIterator<Item = Server>) -> Self {
        let health = |server| Arc::new(Health::new(server, Dice::new()));
        Self(servers.into_iter().map(health).collect())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Health>> {
        self.0.iter()
    }
}

/// One server as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerMetrics {
    /// `https://host:port`.
    pub server: String,
    /// Why it is given no requests; `None` if it is.
    pub aside: Option<String>,
    /// Requests that went there, attempts counted each.
    pub requests: u64,
    /// Connections that could not be made, by all who share the [`Servers`].
    pub connect_failures: u64,
    /// Connections that take requests now.
    pub connections: u64,
    /// Requests under way, until the last byte of their answers, and sessions.
    pub in_flight: u64,
}

/// What one request found out about the servers.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    /// Those that it does not reach. Allocates nothing while all goes well.
    pub(crate) failed: Vec<usize>,
    /// Where it was sent last and got no answer.
    pub(crate) last: Option<usize>,
    /// The only one that it is for.
    pub(crate) only: Option<usize>,
}

/// Who may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// A server that is aside may be tried with this request: it can be repeated.
    MayTry,
    /// Only if there is nobody else.
    Proven,
}

/// The server for a request, or `None` if it failed with all.
pub(crate) fn choose(pools: &[Arc<Pool>], dice: &Dice, choice: Choice, tried: &Tried) -> Option<usize> {
    let only = tried.only.or((pools.len() == 1).then_some(0));
    if only.is_some() {
        return only.filter(|_| tried.failed.is_empty());
    }
    let is_left = |at: &usize| !tried.failed.contains(at);
    let health = |at: &usize| pools.get(*at).map(|pool| pool.health());
    let is_in = |at: &usize| is_left(at) && health(at).is_some_and(|health| health.is_in());
    let all = 0..pools.len();
    if choice == Choice::MayTry {
        let is_due = |at: &usize| health(at).is_some_and(|health| !health.is_in() && health.may_try());
        if let Some(due) = all.clone().filter(is_left).find(is_due) {
            return Some(due);
        }
    }
    let busy = |at: usize| pools.get(at).map_or(usize::MAX, |pool| pool.busy());
    lesser_of_two(
        all.clone().filter(is_in).filter(|at| Some(*at) != tried.last),
        dice,
        busy,
    )
    .or_else(|| all.clone().find(is_in))
    // With nobody in, refusing would help nobody.
    .or_else(|| {
        lesser_of_two(
            all.clone().filter(is_left).filter(|at| Some(*at) != tried.last),
            dice,
            busy,
        )
    })
    .or_else(|| all.clone().find(is_left))
}

/// Of two that are picked by chance the one with less to do. Spreads nearly as well as looking for the least of
/// all, and does not send everything to a server that answers quickly because it fails.
///
/// Source: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001.
fn lesser_of_two(
    candidates: impl Iterator<Item = usize> + Clone,
    dice: &Dice,
    busy: impl Fn(usize) -> usize,
) -> Option<usize> {
    let count = u64::try_from(candidates.clone().count()).unwrap_or(u64::MAX);
    let nth = |n: u64| candidates.clone().nth(usize::try_from(n).unwrap_or_default());
    match count {
        0 => None,
        1 => nth(0),
        _ => {
            let roll = dice.roll();
            let first = (roll & 0xFFFF_FFFF) % count;
            let second = (first + 1 + (roll >> 32) % (count - 1)) % count;
            let (first, second) = (nth(first)?, nth(second)?);
            Some(if busy(second) < busy(first) { second } else { first })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_spread_over_all_and_away_from_who_is_busy() {
        let dice = Dice::of(3);
        let spread = |load: [usize; 4]| {
            let mut chosen = [0_u32; 4];
            for _ in 0..12_000 {
                chosen[lesser_of_two(0..4, &dice, |at| load[at]).unwrap()] += 1;
            }
            chosen
        };
        let even = spread([5; 4]);
        assert!(even.iter().all(|count| (2700..3300).contains(count)), "{even:?}");
        let busy = spread([5, 5, 5, 6]);
        assert_eq!(busy[3], 0, "{busy:?}");
        let idle = spread([5, 5, 5, 0]);
        assert!((5700..6300).contains(&idle[3]), "half, not all: {idle:?}");
    }

    #[test]
    fn of_few_there_is_one_and_of_none_none() {
        let dice = Dice::of(3);
        assert_eq!(lesser_of_two(0..0, &dice, |_| 0), None);
        assert_eq!(lesser_of_two(7..8, &dice, |_| 0), Some(7));
    }
}
