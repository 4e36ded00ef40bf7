//! How auditIDs are used: a client chooses its own, so one ID on two requests is worth a signal.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use crate::arrival::RequestFacts;
use crate::dedup::Taken;

/// A server that hands a request on does so within this time.
const FORWARDED_WITHIN_MICROS: i64 = 5_000_000;

/// Requests of one ID that are remembered besides the first; further ones replace the last.
const FURTHER_REQUESTS: usize = 3;

const GENERATIONS: usize = 2;

/// What an event says about the use of its auditID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// As it should be.
    Proper,
    /// Another copy of an event that is here: the same stage of the same request with other content, as when
    /// one of two transports cuts bodies.
    OtherCopy,
    /// Another request has the same ID, and neither handed it to the other.
    Reused,
}

/// The newest auditIDs and what they stood on.
#[derive(Debug)]
pub(crate) struct AuditIds {
    /// Newest first.
    generations: VecDeque<Generation>,
    per_generation: usize,
}

/// IDs are hashes already.
type Generation = HashMap<u64, Known, BuildHasherDefault<Taken>>;

#[derive(Debug)]
struct Known {
    first: Request,
    /// Nearly always none.
    further: Vec<Request>,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    facts: RequestFacts,
    /// Who recorded it.
    origin: u32,
    /// Hashes of the stages seen.
    stages: [u64; 4],
}

impl Request {
    const fn new(facts: RequestFacts, origin: u32) -> Self {
        Self {
            facts,
            origin,
            stages: [facts.stage, 0, 0, 0],
        }
    }

    /// One more of its events.
    fn stage(&mut self, stage: u64) -> Use {
        if self.stages.contains(&stage) {
            return Use::OtherCopy;
        }
        match self.stages.iter_mut().find(|seen| **seen == 0) {
            Some(free) => {
                *free = stage;
                Use::Proper
            }
            // A request has four stages at most.
            None => Use::Reused,
        }
    }
}

impl AuditIds {
    /// Remembers at most `ids`, at least two; the older half is forgotten at once.
    pub(crate) fn new(ids: usize) -> Self {
        Self {
            generations: VecDeque::from([Generation::default()]),
            per_generation: (ids / GENERATIONS).max(1),
        }
    }

    /// Takes an event that is no duplicate; `origin` tells the server that recorded it from others.
    pub(crate) fn observe(&mut self, facts: RequestFacts, origin: u32) -> Use {
        let known = self
            .generations
            .iter_mut()
            .find_map(|generation| generation.get_mut(&facts.audit_id));
        match known {
            Some(known) => known.observe(facts, origin),
            None => {
                self.remember(facts, origin);
                Use::Proper
            }
        }
    }

    fn remember(&mut self, facts: RequestFacts, origin: u32) {
        if self
            .generations
            .front()
            .is_none_or(|newest| newest.len() >= self.per_generation)
        {
            // Its memory serves again.
            let mut oldest = if self.generations.len() < GENERATIONS {
                Generation::default()
            } else {
                self.generations.pop_back().unwrap_or_default()
            };
            oldest.clear();
            self.generations.push_front(oldest);
        }
        if let Some(newest) = self.generations.front_mut() {
            let first = Request::new(facts, origin);
            let further = Vec::new();
            newest.insert(facts.audit_id, Known { first, further });
        }
    }
}

impl Known {
    fn observe(&mut self, facts: RequestFacts, origin: u32) -> Use {
        let requests = || std::iter::once(&self.first).chain(&self.further);
        let handed_on = requests().any(|request| {
            request.origin != origin
                && request.facts.forwarded == facts.forwarded
                && request.facts.received_micros.abs_diff(facts.received_micros)
                    <= FORWARDED_WITHIN_MICROS.unsigned_abs()
        });
        let mut requests = std::iter::once(&mut self.first).chain(&mut self.further);
        if let Some(request) = requests.find(|request| request.facts.request == facts.request) {
            return request.stage(facts.stage);
        }
        if self.further.len() >= FURTHER_REQUESTS {
            self.further.pop();
        }
        self.further.push(Request::new(facts, origin));
        if handed_on { Use::Proper } else { Use::Reused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(request: u64, forwarded: u64, stage: u64, received_micros: i64) -> RequestFacts {
        RequestFacts {
            audit_id: 7,
            request,
            forwarded,
            stage,
            received_micros,
        }
    }

    #[test]
    fn stages_copies_and_forwarded_requests_are_told_from_reuse() {
        let mut ids = AuditIds::new(100);
        assert_eq!(ids.observe(facts(1, 1, 1, 0), 0), Use::Proper);
        assert_eq!(ids.observe(facts(1, 1, 2, 0), 0), Use::Proper);
        assert_eq!(ids.observe(facts(1, 1, 2, 0), 1), Use::OtherCopy);
        // The server behind it records the same call a moment later.
        assert_eq!(ids.observe(facts(2, 1, 3, 2_000), 1), Use::Proper);
        assert_eq!(ids.observe(facts(2, 1, 4, 2_000), 1), Use::Proper);

        // The same server, another call, or much later.
        let mut ids = AuditIds::new(100);
        ids.observe(facts(1, 1, 1, 0), 0);
        assert_eq!(ids.observe(facts(2, 1, 1, 1), 0), Use::Reused);
        assert_eq!(ids.observe(facts(3, 9, 1, 1), 1), Use::Reused);
        assert_eq!(ids.observe(facts(4, 1, 1, 60_000_000), 2), Use::Reused);
    }

    #[test]
    fn the_bound_holds() {
        let mut ids = AuditIds::new(8);
        for id in 0..100 {
            let facts = RequestFacts {
                audit_id: id,
                ..facts(id, 1, 1, 0)
            };
            assert_eq!(ids.observe(facts, 0), Use::Proper);
            assert!(ids.generations.iter().map(HashMap::len).sum::<usize>() <= 8);
        }
    }
}
