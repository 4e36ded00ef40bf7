//! A reconciler's state as a few bytes, to be kept with the events that it has counted.
//!
//! A version, then whole numbers of variable length, lists behind their length. It has to be durable together
//! with the events that it counts; a mark of the journal is.

use std::collections::BTreeMap;

use super::arrivals::Arrivals;
use super::clock::Clock;
use super::points::{Point, Points, Window};
use super::{Bounds, Last, MAX_PLUGINS, OpenGap, Reconciler, UnixMicros};

/// The state is never larger: a journal's mark holds as much.
pub const MAX_STATE_BYTES: usize = 16 << 10;

const VERSION: u8 = 2;
/// Lists are shorter; what claims more is damaged.
const MAX_ITEMS: u64 = 4096;

/// Why bytes are no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another version of kaudit wrote it.
    #[error("the state has version {0}, this is version {VERSION}")]
    Version(u8),
    /// It ends early, or says what cannot be.
    #[error("the state is damaged")]
    Damaged,
}

pub(super) fn write(reconciler: &Reconciler) -> Vec<u8> {
    let mut out = Out(vec![VERSION]);
    let arrivals = &reconciler.arrivals;
    out.option(arrivals.floor, Out::signed);
    out.unsigned(arrivals.earlier);
    out.length(arrivals.buckets.len());
    let mut previous = 0;
    for (bucket, count) in &arrivals.buckets {
        out.signed(bucket - previous);
        out.unsigned(*count);
        previous = *bucket;
    }
    out.length(reconciler.points.all.len());
    for point in &reconciler.points.all {
        out.unsigned(point.epoch);
        out.signed(point.at.0);
        out.unsigned(point.total);
        out.signed(point.wide.lo);
        // The rest is near it.
        for place in [point.wide.hi, point.near.lo, point.near.hi] {
            out.signed(place - point.wide.lo);
        }
        out.unsigned(point.wide.below_lo);
        for below in [point.wide.below_hi, point.near.below_lo, point.near.below_hi] {
            out.unsigned(below - point.wide.below_lo);
        }
        let flags = [point.is_settled, point.is_least_seen, point.is_most_seen];
        out.unsigned(flags.iter().fold(0, |all, flag| all << 1 | u64::from(*flag)));
    }
    out.option(reconciler.last.as_ref(), |out, last| {
        for value in [last.epoch, last.events, last.rejected] {
            out.unsigned(value);
        }
        out.option(last.started, |out, at| out.signed(at.0));
        out.signed(last.latest.0);
        out.length(last.errors.len());
        for (plugin, value) in &last.errors {
            out.length(plugin.len());
            out.0.extend(plugin.as_bytes());
            out.unsigned(*value);
        }
    });
    out.signed(reconciler.held.0);
    out.option(reconciler.gap, |out, gap| {
        out.unsigned(gap.at_least);
        for at in [gap.after, gap.before, gap.since] {
            out.signed(at.0);
        }
    });
    for value in [
        reconciler.excess,
        reconciler.past_excess,
        reconciler.lost,
        reconciler.unusable_scrapes,
        reconciler.restarts,
    ] {
        out.unsigned(value);
    }
    out.option(reconciler.complete_through, |out, at| out.signed(at.0));
    out.0
}

pub(super) fn read(bytes: &[u8], bounds: Bounds) -> Result<Reconciler, StateError> {
    let (version, rest) = bytes.split_first().ok_or(StateError::Damaged)?;
    if *version != VERSION {
        return Err(StateError::Version(*version));
    }
    let mut input = In(rest);
    let mut arrivals = Arrivals {
        floor: input.option(In::signed)?,
        earlier: input.unsigned()?,
        buckets: BTreeMap::new(),
    };
    let mut previous = 0_i64;
    for _ in 0..input.length()? {
        previous = previous.checked_add(input.signed()?).ok_or(StateError::Damaged)?;
        arrivals.buckets.insert(previous, input.unsigned()?);
    }
    let mut points = Points::default();
    for _ in 0..input.length()? {
        points.all.push(point(&mut input)?);
    }
    let last = input.option(|input| {
        let mut last = Last {
            epoch: input.unsigned()?,
            events: input.unsigned()?,
            rejected: input.unsigned()?,
            started: input.option(In::signed)?.map(UnixMicros),
            latest: UnixMicros(input.signed()?),
            errors: BTreeMap::new(),
        };
        for _ in 0..input.length()?.min(MAX_PLUGINS as u64) {
            let plugin = input.text()?;
            last.errors.insert(plugin, input.unsigned()?);
        }
        Ok(last)
    })?;
    let held = UnixMicros(input.signed()?);
    let gap = input.option(|input| {
        Ok(OpenGap {
            at_least: input.unsigned()?,
            after: UnixMicros(input.signed()?),
            before: UnixMicros(input.signed()?),
            since: UnixMicros(input.signed()?),
        })
    })?;
    let reconciler = Reconciler {
        bounds,
        arrivals,
        points,
        clock: Clock::default(),
        last,
        held,
        gap,
        excess: input.unsigned()?,
        past_excess: input.unsigned()?,
        lost: input.unsigned()?,
        unusable_scrapes: input.unsigned()?,
        restarts: input.unsigned()?,
        complete_through: input.option(In::signed)?.map(UnixMicros),
    };
    if input.0.is_empty() {
        Ok(reconciler)
    } else {
        Err(StateError::Damaged)
    }
}

fn point(input: &mut In<'_>) -> Result<Point, StateError> {
    let epoch = input.unsigned()?;
    let at = UnixMicros(input.signed()?);
    let total = input.unsigned()?;
    let lo = input.signed()?;
    let mut place = || lo.checked_add(input.signed()?).ok_or(StateError::Damaged);
    let (hi, near_lo, near_hi) = (place()?, place()?, place()?);
    let below_lo = input.unsigned()?;
    let mut below = || below_lo.checked_add(input.unsigned()?).ok_or(StateError::Damaged);
    let (below_hi, below_near_lo, below_near_hi) = (below()?, below()?, below()?);
    let flags = input.unsigned()?;
    Ok(Point {
        epoch,
        at,
        total,
        wide: Window {
            lo,
            hi,
            below_lo,
            below_hi,
        },
        near: Window {
            lo: near_lo,
            hi: near_hi,
            below_lo: below_near_lo,
            below_hi: below_near_hi,
        },
        is_settled: flags & 4 != 0,
        is_least_seen: flags & 2 != 0,
        is_most_seen: flags & 1 != 0,
    })
}

struct Out(Vec<u8>);

impl Out {
    /// Seven bits a byte, the lowest first.
    fn unsigned(&mut self, mut value: u64) {
        while let Ok(low) = u8::try_from(value & 0x7f) {
            value >>= 7;
            if value == 0 {
                self.0.push(low);
                return;
            }
            self.0.push(low | 0x80);
        }
    }

    /// Small in either direction is short.
    fn signed(&mut self, value: i64) {
        self.unsigned((value << 1).cast_unsigned() ^ (value >> 63).cast_unsigned());
    }

    fn length(&mut self, length: usize) {
        self.unsigned(length as u64);
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.0.push(0),
            Some(value) => {
                self.0.push(1);
                write(self, value);
            }
        }
    }
}

struct In<'a>(&'a [u8]);

impl In<'_> {
    fn byte(&mut self) -> Result<u8, StateError> {
        let (first, rest) = self.0.split_first().ok_or(StateError::Damaged)?;
        self.0 = rest;
        Ok(*first)
    }

    fn unsigned(&mut self) -> Result<u64, StateError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(StateError::Damaged);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(StateError::Damaged)
    }

    fn signed(&mut self) -> Result<i64, StateError> {
        let value = self.unsigned()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn length(&mut self) -> Result<u64, StateError> {
        let length = self.unsigned()?;
        if length > MAX_ITEMS {
            return Err(StateError::Damaged);
        }
        Ok(length)
    }

    fn text(&mut self) -> Result<String, StateError> {
        let length = usize::try_from(self.length()?).map_err(|_| StateError::Damaged)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(StateError::Damaged)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| StateError::Damaged)
    }

    fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, StateError>,
    ) -> Result<Option<T>, StateError> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(StateError::Damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_back() {
        for value in [0, 1, -1, 63, -64, 64, i64::MAX, i64::MIN] {
            let mut out = Out(Vec::new());
            out.signed(value);
            out.unsigned(value.cast_unsigned());
            let mut input = In(&out.0);
            assert_eq!(input.signed(), Ok(value));
            assert_eq!(input.unsigned(), Ok(value.cast_unsigned()));
        }
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        let error = |bytes: &[u8]| read(bytes, Bounds::default()).err();
        assert_eq!(error(&[1, 0]), Some(StateError::Version(1)));
        assert_eq!(error(&[]), Some(StateError::Damaged));
        assert_eq!(error(&[VERSION, 0xff]), Some(StateError::Damaged));
    }
}
