//! Events that satisfy a filter.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use bytes::Bytes;
use kaudit_event::{DecodedEvent, EventLine};
use kaudit_query::{Envelope, Row, micros};

/// An event in its block.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) line: &'a [u8],
    pub(crate) whence: &'a Arc<Whence>,
    /// In files the line's number among those of all inputs, from 1; in a store the number of the record.
    pub(crate) number: u64,
    /// The event, where it was decoded to tell.
    pub(super) decoded: Option<DecodedEvent>,
}

impl Found<'_> {
    /// The event; `None` for a line that is none after all.
    pub(crate) fn event(&mut self) -> Option<&DecodedEvent> {
        if self.decoded.is_none() {
            self.decoded = DecodedEvent::parse(Bytes::copy_from_slice(self.line)).ok();
        }
        self.decoded.as_ref()
    }

    /// Shows the event's row.
    pub(crate) fn with_row(mut self, look: impl FnOnce(&Row<'_>)) {
        let (whence, number) = (self.whence, self.number);
        if let Some(event) = self.event() {
            look(&row(event, whence, number));
        }
    }

    /// Takes the event out of the block.
    pub(crate) fn keep(mut self) -> Option<Hit> {
        self.event()?;
        let event = self.decoded?;
        Some(Hit {
            micros: event.view().stage_timestamp().map_or(0, micros),
            number: self.number,
            whence: Arc::clone(self.whence),
            event,
        })
    }
}

/// Where an event comes from, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Whence {
    pub(crate) cluster: Option<String>,
    /// Of files, the file.
    pub(crate) source: Option<String>,
    pub(crate) instance: Option<String>,
    pub(crate) seq: Option<u64>,
    pub(crate) received_micros: Option<i64>,
    pub(crate) policy_rule: Option<u32>,
}

impl Whence {
    /// Of a file.
    pub(super) fn file(name: String) -> Self {
        Self {
            source: Some(name),
            ..Self::default()
        }
    }
}

pub(super) fn row<'a>(event: &'a DecodedEvent, whence: &'a Whence, number: u64) -> Row<'a> {
    Row {
        event: event.view(),
        envelope: Envelope {
            cluster: whence.cluster.as_deref(),
            source: whence.source.as_deref(),
            instance: whence.instance.as_deref(),
            seq: Some(number),
            received_micros: whence.received_micros,
            policy_rule: whence.policy_rule,
            event_bytes: u64::try_from(event.text().len()).ok(),
        },
    }
}

/// An event that was kept.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    /// Its stageTimestamp, microseconds since 1970; 0 without one.
    pub(crate) micros: i64,
    pub(crate) number: u64,
    pub(crate) whence: Arc<Whence>,
    pub(crate) event: DecodedEvent,
}

impl Hit {
    pub(crate) fn row(&self) -> Row<'_> {
        row(&self.event, &self.whence, self.number)
    }
}

/// Which events come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Order {
    /// The newest
    #[default]
    Newest,
    /// The oldest
    Oldest,
}

/// The first events of an order, at most so many and of so many bytes.
#[derive(Debug)]
pub(crate) struct Newest {
    order: Order,
    most: usize,
    most_bytes: usize,
    bytes: usize,
    /// The one that goes first is on top.
    heap: BinaryHeap<Reverse<Ranked>>,
    /// Whether some went for their bytes, though there were not too many.
    is_short: bool,
}

#[derive(Debug)]
struct Ranked {
    rank: (i64, i64),
    hit: Hit,
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl Newest {
    pub(crate) fn new(order: Order, most: usize, most_bytes: usize) -> Self {
        Self {
            order,
            most,
            most_bytes,
            bytes: 0,
            heap: BinaryHeap::new(),
            is_short: false,
        }
    }

    fn rank(&self, micros: i64, number: u64) -> (i64, i64) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        match self.order {
            Order::Newest => (micros, number),
            Order::Oldest => (micros.saturating_neg(), -number),
        }
    }

    fn is_beyond(&self, rank: (i64, i64)) -> bool {
        self.heap.len() >= self.most && self.heap.peek().is_none_or(|last| rank < last.0.rank)
    }

    /// Takes an event out of its block, if it is among the first.
    pub(crate) fn add_found(&mut self, found: Found<'_>) {
        if self.heap.len() >= self.most
            && let Some(line) = EventLine::scan(found.line)
            && self.is_beyond(self.rank(micros(line.stage_timestamp()), found.number))
        {
            return;
        }
        if let Some(hit) = found.keep() {
            self.add(hit);
        }
    }

    fn add(&mut self, hit: Hit) {
        let rank = self.rank(hit.micros, hit.number);
        if self.is_beyond(rank) {
            return;
        }
        self.bytes += hit.event.text().len();
        self.heap.push(Reverse(Ranked { rank, hit }));
        while self.heap.len() > self.most || (self.bytes > self.most_bytes && self.heap.len() > 1) {
            self.is_short |= self.heap.len() <= self.most;
            if let Some(Reverse(gone)) = self.heap.pop() {
                self.bytes -= gone.hit.event.text().len();
            }
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.is_short |= other.is_short;
        for Reverse(ranked) in other.heap {
            self.add(ranked.hit);
        }
    }

    /// The first first. And whether memory did not hold all that were to be kept.
    pub(crate) fn finish(self) -> (Vec<Hit>, bool) {
        let mut ranked: Vec<Ranked> = self.heap.into_iter().map(|Reverse(ranked)| ranked).collect();
        ranked.sort_by(|one, two| two.cmp(one));
        (
            ranked.into_iter().map(|ranked| ranked.hit).collect(),
            self.is_short,
        )
    }
}
