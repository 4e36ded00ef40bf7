//! Events that came again after they were sealed.
//!
//! What is not sealed is compared when it comes, exactly. Of what is sealed the ids are gone, so an event that comes
//! again is found here, before it would be sealed once more: a file that may hold it has its cluster and its time among
//! its statistics, its row group has this very microsecond, the row has its auditID as well, and at last the stored event
//! itself is read and has the same content. Only then one of the two is dropped and counted. The auditID alone decides
//! nothing, since clients choose it; nobody but the apiserver chooses the time. Nothing is kept in memory for this, so
//! there is nothing to be built again at a start.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow_array::RecordBatch;
use kaudit_event::{Eid, Event, EventLine};

use crate::calendar::MICROS_PER_DAY;
use crate::error::StoreError;
use crate::rebuild::Rows;
use crate::scan::units::{Unit, units_of, where_holds};
use crate::schema::Col;
use crate::seal::Place;
use crate::{Part, Snapshot};

/// Only events that are younger are looked for in files: what comes again does so soon.
pub(crate) const WINDOW_MICROS: i64 = MICROS_PER_DAY;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    /// Rows of the tail, as places in what was looked at, whose event is there already.
    pub(crate) rows: HashSet<usize>,
    /// Files that could not be read. What is in them is kept twice.
    pub(crate) unread: usize,
}

/// What tells an event from all others: its id under a key that is forgotten.
type Print = Eid;

/// Rows of one cluster that are to be sealed.
pub(crate) struct Looking<'a> {
    key: [u8; 32],
    cluster: &'a str,
    rows: &'a [Place],
    batches: Vec<Rows<'a>>,
}

impl<'a> Looking<'a> {
    /// Looks at `rows` of `batches`, which are in the order of time and number.
    pub(crate) fn new(
        cluster: &'a str,
        batches: &[&'a RecordBatch],
        rows: &'a [Place],
    ) -> Result<Self, StoreError> {
        let mut key = [0; 32];
        // Without one, ids that collide could be looked for beforehand; that is as far away as for any other hash.
        getrandom::fill(&mut key).ok();
        let batches = batches.iter().map(|batch| Rows::of(batch));
        Ok(Self {
            key,
            cluster,
            rows,
            batches: batches.collect::<Result<_, _>>()?,
        })
    }

    /// The rows whose event stands before them or is in a file of `snapshot`, as far as they are of no earlier time than
    /// `since`.
    pub(crate) fn find(&self, snapshot: &Snapshot, since: i64) -> Repeats {
        let mut found = Repeats::default();
        self.find_among_themselves(&mut found);
        let young = self.rows.partition_point(|row| row.ts < since);
        let rows = self.rows.get(young..).unwrap_or_default();
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return found;
        };
        let (least, most) = (first.ts, last.ts);
        let may_hold =
            |part: &&Part| part.cluster == self.cluster && part.min_ts <= most && part.max_ts >= least;
        let mut candidates = Candidates::new(self, young, rows);
        for part in snapshot.manifest.parts.iter().filter(may_hold) {
            if candidates.find_in(snapshot, part, &mut found).is_err() {
                // Two copies are better than none.
                found.unread += 1;
            }
        }
        found
    }

    /// Of the same events that are to be sealed together the first stays.
    fn find_among_themselves(&self, found: &mut Repeats) {
        let mut at = 0;
        for run in self.rows.chunk_by(|one, other| one.ts == other.ts) {
            if run.len() > 1 {
                let mut ids: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
                for place in at..at + run.len() {
                    ids.entry(self.audit_id(place)).or_default().push(place);
                }
                for places in ids.into_values().filter(|places| places.len() > 1) {
                    let mut seen = HashSet::new();
                    found.rows.extend(places.into_iter().filter(|place| {
                        let print = self.print(*place);
                        print.is_some_and(|print| !seen.insert(print))
                    }));
                }
            }
            at += run.len();
        }
    }

    fn row(&self, place: usize) -> Option<(&Rows<'a>, usize)> {
        let row = self.rows.get(place)?;
        Some((self.batches.get(row.chunk)?, row.row))
    }

    fn audit_id(&self, place: usize) -> &'a str {
        let text = self
            .row(place)
            .and_then(|(rows, row)| rows.text(Col::AuditId, row));
        text.unwrap_or_default()
    }

    fn print(&self, place: usize) -> Option<Print> {
        let (rows, row) = self.row(place)?;
        let mut event = Vec::new();
        rows.write(row, &mut event);
        print(&self.key, self.cluster, &event)
    }
}

/// The id of an event, however it is written; `None` for what is no event, which is the same as nothing else.
fn print(key: &[u8; 32], cluster: &str, event: &[u8]) -> Option<Print> {
    match EventLine::scan(event) {
        Some(line) => Some(line.eid(key, cluster)),
        None => Eid::of(key, cluster, &Event::from_item(event).ok()?).ok(),
    }
}

/// The rows that are looked for in files.
struct Candidates<'a, 'b> {
    looking: &'b Looking<'a>,
    /// Where they begin.
    first: usize,
    rows: &'b [Place],
    /// By time and auditID; made when a time was met.
    by_id: HashMap<(i64, &'a str), Alike>,
    /// By what they say; of those whose time and auditID were met.
    by_print: HashMap<Print, Vec<usize>>,
}

/// Rows of one time and one auditID.
#[derive(Debug, Default)]
struct Alike {
    places: Vec<usize>,
    is_printed: bool,
}

impl<'a, 'b> Candidates<'a, 'b> {
    fn new(looking: &'b Looking<'a>, first: usize, rows: &'b [Place]) -> Self {
        Self {
            looking,
            first,
            rows,
            by_id: HashMap::new(),
            by_print: HashMap::new(),
        }
    }

    fn find_in(&mut self, snapshot: &Snapshot, part: &Part, found: &mut Repeats) -> Result<(), StoreError> {
        for unit in units_of(snapshot, part)? {
            self.find_in_unit(&unit, found)?;
        }
        Ok(())
    }

    fn find_in_unit(&mut self, unit: &Unit, found: &mut Repeats) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (self.rows.first(), self.rows.last()) else {
            return Ok(());
        };
        let (least, most) = unit.times();
        if most < first.ts || least > last.ts {
            return Ok(());
        }
        let times = first.ts..=last.ts;
        let all = arrow_buffer::BooleanBuffer::new_set(unit.rows());
        let met = where_holds(unit, &all, &[Col::Ts], |batch, row| {
            batch.number(Col::Ts, row).is_some_and(|ts| {
                times.contains(&ts) && self.rows.binary_search_by_key(&ts, |row| row.ts).is_ok()
            })
        })?;
        if met.count_set_bits() == 0 {
            return Ok(());
        }
        self.sort_by_id();
        let mut places = HashSet::new();
        let met = where_holds(unit, &met, &[Col::Ts, Col::AuditId], |batch, row| {
            let id = batch.text(Col::AuditId, row).unwrap_or_default();
            let alike = batch
                .number(Col::Ts, row)
                .and_then(|ts| self.by_id.get(&(ts, id)));
            places.extend(alike.and_then(|alike| alike.places.first()));
            alike.is_some()
        })?;
        for place in places {
            self.print_alike(place);
        }
        let Looking { key, cluster, .. } = self.looking;
        let mut event = Vec::new();
        unit.read_all(&met, |batch| {
            let rows = Rows::of(batch)?;
            for row in 0..batch.num_rows() {
                event.clear();
                rows.write(row, &mut event);
                let print = print(key, cluster, &event);
                let places = print.and_then(|print| self.by_print.get(&print));
                found.rows.extend(places.into_iter().flatten());
            }
            Ok(())
        })
    }

    fn sort_by_id(&mut self) {
        if self.by_id.is_empty() {
            for (at, row) in self.rows.iter().enumerate() {
                let place = self.first + at;
                let key = (row.ts, self.looking.audit_id(place));
                self.by_id.entry(key).or_default().places.push(place);
            }
        }
    }

    /// Prepares all rows with the time and the auditID of `place` to be compared; once.
    fn print_alike(&mut self, place: usize) {
        let Some(ts) = self.looking.rows.get(place).map(|row| row.ts) else {
            return;
        };
        let Some(alike) = self.by_id.get_mut(&(ts, self.looking.audit_id(place))) else {
            return;
        };
        if std::mem::replace(&mut alike.is_printed, true) {
            return;
        }
        for place in &alike.places {
            if let Some(print) = self.looking.print(*place) {
                self.by_print.entry(print).or_default().push(*place);
            }
        }
    }
}

#[cfg(test)]
mod tests;
