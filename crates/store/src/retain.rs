//! How long events are kept.

use arrow_buffer::BooleanBuffer;
use kaudit_query::Filter;

use crate::calendar::MICROS_PER_DAY;
use crate::compact::Files;
use crate::error::StoreError;
use crate::part::WrittenPart;
use crate::scan::units::{Unit, select, units_of};
use crate::store::folder_of;
use crate::{Completeness, Part, Scan, Snapshot, Store};

/// What goes when.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Retention {
    /// Events go when they are older than so many microseconds.
    pub max_age: Option<i64>,
    /// The oldest files go, classes or not, until all files together have no more bytes. What is held stays.
    pub max_bytes: Option<u64>,
    /// Events that are kept longer.
    pub classes: Vec<Class>,
    /// Events that are kept until the hold is lifted.
    pub holds: Vec<LegalHold>,
}

/// Events that are kept longer than others.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a name, which events, and how long")]
pub struct Class {
    /// What it is called in the manifest; without a comma.
    pub name: String,
    /// Which events, for example `verb: delete`.
    pub filter: Filter,
    /// They go when they are older than so many microseconds.
    pub max_age: i64,
}

/// Events that must not go.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a name and which events")]
pub struct LegalHold {
    /// What it is called in the manifest; without a comma.
    pub name: String,
    /// Which events.
    pub filter: Filter,
}

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retained {
    /// Files that are gone.
    pub removed: Vec<Part>,
    /// Files with what is kept of them.
    pub added: Vec<Part>,
    /// Events that are gone.
    pub expired_rows: u64,
    /// Whether it was over before all files were looked at. Those that are left are as they were.
    pub is_ended_early: bool,
}

/// A file that [`Store::retain`] would let go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expiring {
    /// The file.
    pub part: Part,
    /// Why: `age` or `size`, as in [`Counts::expired`](crate::Counts::expired).
    pub reason: &'static str,
    /// Events of it that a class or a hold keeps, in a file of their own.
    pub kept_rows: u64,
}

impl Expiring {
    /// About how many bytes are free when it is gone.
    fn freed_bytes(&self) -> u64 {
        let kept =
            u128::from(self.part.bytes) * u128::from(self.kept_rows) / u128::from(self.part.rows.max(1));
        self.part
            .bytes
            .saturating_sub(u64::try_from(kept).unwrap_or(u64::MAX))
    }
}

impl Snapshot {
    /// What [`Store::retain`] would let go at `now`, microseconds since 1970 in UTC. What a limit of the size
    /// takes is an estimate where something of a file is kept: how large the kept rows are is known only
    /// when they are written.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when a file cannot be read; files are read only where a class or a hold may keep rows.
    pub fn expiring(&self, retention: &Retention, now: i64) -> Result<Vec<Expiring>, StoreError> {
        let (expiring, _) = self.expiring_until(retention, now, &|| false)?;
        Ok(expiring)
    }

    /// The same until `is_over` says so, which is asked before each file and each row group that is read: then it is
    /// [`Completeness::Cancelled`], and others may go as well.
    ///
    /// # Errors
    ///
    /// As of [`expiring`](Self::expiring).
    pub fn expiring_until(
        &self,
        retention: &Retention,
        now: i64,
        is_over: &dyn Fn() -> bool,
    ) -> Result<(Vec<Expiring>, Completeness), StoreError> {
        let mut expiring: Vec<Expiring> = Vec::new();
        let mut bytes: u64 = self.manifest.parts.iter().map(|part| part.bytes).sum();
        let mut parts = self.manifest.parts.clone();
        if let Some(max_age) = retention.max_age {
            let limit = now.saturating_sub(max_age);
            let rules = retention.rules(now, Why::Age);
            let has_expired = |part: &Part| part.max_ts < limit && !is_settled(part, &rules, retention, now);
            for part in parts.extract_if(.., |part| has_expired(part)) {
                let Some(file) = self.expiring_file(part, &rules, Why::Age, is_over)? else {
                    return Ok((expiring, Completeness::Cancelled));
                };
                bytes = bytes.saturating_sub(file.freed_bytes());
                expiring.push(file);
            }
        }
        if let Some(max_bytes) = retention.max_bytes {
            parts.sort_by_key(|part| part.max_ts);
            let rules = retention.rules(now, Why::Size);
            for part in parts {
                if bytes <= max_bytes {
                    break;
                }
                if is_held(&part, retention) {
                    continue;
                }
                let Some(file) = self.expiring_file(part, &rules, Why::Size, is_over)? else {
                    return Ok((expiring, Completeness::Cancelled));
                };
                bytes = bytes.saturating_sub(file.freed_bytes());
                expiring.push(file);
            }
        }
        Ok((expiring, Completeness::Whole))
    }

    /// `None` when it was over before.
    fn expiring_file(
        &self,
        part: Part,
        rules: &[Rule<'_>],
        why: Why,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Option<Expiring>, StoreError> {
        Ok(self.count_kept(&part, rules, is_over)?.map(|kept_rows| Expiring {
            kept_rows,
            reason: why.as_str(),
            part,
        }))
    }

    /// How many rows of a file rules keep.
    fn count_kept(
        &self,
        part: &Part,
        rules: &[Rule<'_>],
        is_over: &dyn Fn() -> bool,
    ) -> Result<Option<u64>, StoreError> {
        if is_over() {
            return Ok(None);
        }
        if rules.is_empty() {
            return Ok(Some(0));
        }
        let mut count = 0;
        for unit in units_of(self, part)? {
            if is_over() {
                return Ok(None);
            }
            count += kept_of(&unit, rules)?.count_set_bits();
        }
        Ok(Some(u64::try_from(count).unwrap_or(u64::MAX)))
    }
}

/// The rows of a unit that rules keep.
fn kept_of(unit: &Unit, rules: &[Rule<'_>]) -> Result<BooleanBuffer, StoreError> {
    let mut rows = BooleanBuffer::new_unset(unit.rows());
    for rule in rules {
        let scan = Scan::new(rule.filter.clone()).between(Some(rule.from), None);
        rows = &rows | &select(unit, &scan)?;
    }
    Ok(rows)
}

impl Store {
    /// Removes what need not be kept at `now`, microseconds since 1970 in UTC. Events go by whole files:
    /// when the newest of a file is too old. What is kept of such a file gets a file of its own.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; each file is done with as a whole or stays as it is.
    pub fn retain(&self, retention: &Retention, now: i64) -> Result<Retained, StoreError> {
        self.retain_until(retention, now, &|| false)
    }

    /// The same until `is_over` says so, which is asked before each file and before each row group of which something is
    /// kept. A file that was begun then stays as it was.
    ///
    /// # Errors
    ///
    /// As of [`retain`](Self::retain).
    pub fn retain_until(
        &self,
        retention: &Retention,
        now: i64,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Retained, StoreError> {
        let _upkeep = self.upkeep()?;
        self.settle_for_upkeep(now)?;
        self.sweep()?;
        let mut done = Retained::default();
        if let Some(max_age) = retention.max_age {
            let limit = now.saturating_sub(max_age);
            let parts = self.manifest().parts.clone();
            for part in parts.iter().filter(|part| part.max_ts < limit) {
                let rules = retention.rules(now, Why::Age);
                if !is_settled(part, &rules, retention, now)
                    && !self.expire(part, &rules, Why::Age, now, &mut done, is_over)?
                {
                    done.is_ended_early = true;
                    return Ok(done);
                }
            }
        }
        if let Some(max_bytes) = retention.max_bytes {
            let mut parts = self.manifest().parts.clone();
            parts.sort_by_key(|part| part.max_ts);
            let mut bytes: u64 = parts.iter().map(|part| part.bytes).sum();
            for part in &parts {
                if bytes <= max_bytes {
                    break;
                }
                if is_held(part, retention) {
                    continue;
                }
                let before = done.added.len();
                let rules = retention.rules(now, Why::Size);
                if !self.expire(part, &rules, Why::Size, now, &mut done, is_over)? {
                    done.is_ended_early = true;
                    return Ok(done);
                }
                let kept: u64 = done.added.iter().skip(before).map(|part| part.bytes).sum();
                if done
                    .removed
                    .last()
                    .is_some_and(|removed| removed.path == part.path)
                {
                    bytes = bytes.saturating_sub(part.bytes).saturating_add(kept);
                }
            }
        }
        Ok(done)
    }

    /// Lets a file go but for the rows that a rule keeps; false when it was over before that was done.
    fn expire(
        &self,
        part: &Part,
        rules: &[Rule<'_>],
        why: Why,
        now: i64,
        done: &mut Retained,
        is_over: &dyn Fn() -> bool,
    ) -> Result<bool, StoreError> {
        let Some(kept) = self.keep(part, rules, is_over)? else {
            return Ok(false);
        };
        let kept_rows: u64 = kept.iter().map(|written| written.part.rows).sum();
        let expired = part.rows.saturating_sub(kept_rows);
        let added: Vec<Part> = kept.iter().map(|written| written.part.clone()).collect();
        let old = std::slice::from_ref(part);
        self.replace(old, kept, now, |next| {
            *next.counts.expired.entry(why.as_str().to_owned()).or_default() += expired;
        })?;
        done.expired_rows += expired;
        done.removed.push(part.clone());
        done.added.extend(added);
        Ok(true)
    }

    /// Writes what rules keep of a file; `None` when it was over before.
    fn keep(
        &self,
        part: &Part,
        rules: &[Rule<'_>],
        is_over: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<WrittenPart>>, StoreError> {
        if is_over() {
            return Ok(None);
        }
        if rules.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let snapshot = self.snapshot();
        let folder = folder_of(&part.cluster, part.min_ts.div_euclid(MICROS_PER_DAY), None);
        let mut files = Files::new(self, snapshot.manifest.version, &part.cluster, folder);
        for unit in units_of(&snapshot, part)? {
            if is_over() {
                return Ok(None);
            }
            let rows = kept_of(&unit, rules)?;
            let mut batches = Vec::new();
            unit.read_all(&rows, |batch| {
                batches.push(batch.clone());
                Ok(())
            })?;
            if !batches.is_empty() {
                files.group(&arrow_select::concat::concat_batches(
                    &crate::schema::schema(),
                    &batches,
                )?)?;
            }
        }
        let mut written = files.finish()?;
        for written in &mut written {
            written.part.kept_by = Some(names(rules));
        }
        Ok(Some(written))
    }
}

/// Rows that are kept: those of the filter from a time on.
struct Rule<'a> {
    name: &'a str,
    filter: &'a Filter,
    from: i64,
}

/// Why a file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Age,
    Size,
}

impl Why {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Size => "size",
        }
    }
}

impl Retention {
    fn rules(&self, now: i64, why: Why) -> Vec<Rule<'_>> {
        let holds = self.holds.iter().map(|hold| Rule {
            name: &hold.name,
            filter: &hold.filter,
            from: i64::MIN,
        });
        let classes = self.classes.iter().filter(|_| why == Why::Age).map(|class| Rule {
            name: &class.name,
            filter: &class.filter,
            from: now.saturating_sub(class.max_age),
        });
        holds.chain(classes).collect()
    }
}

fn names(rules: &[Rule<'_>]) -> String {
    let names: Vec<&str> = rules.iter().map(|rule| rule.name).collect();
    names.join(",")
}

/// Whether the same rules have been applied to a file and would keep all of it again.
fn is_settled(part: &Part, rules: &[Rule<'_>], retention: &Retention, now: i64) -> bool {
    let shortest = retention.classes.iter().map(|class| class.max_age).min();
    let is_young = shortest.is_none_or(|age| part.min_ts >= now.saturating_sub(age));
    is_held(part, retention) || part.kept_by.as_deref() == Some(names(rules).as_str()) && is_young
}

/// Whether all rows of a file are there for holds that still stand.
fn is_held(part: &Part, retention: &Retention) -> bool {
    part.kept_by.as_deref().is_some_and(|kept_by| {
        kept_by
            .split(',')
            .all(|name| retention.holds.iter().any(|hold| hold.name == name))
    })
}
