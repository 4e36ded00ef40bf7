//! How far the API server's clock is ahead of the collector's.
//!
//! An answer's `Date` is a whole second, so one answer tells the offset only within a second. Many answers tell it
//! as well as an answer takes time: each says "at least so much" or "at most so much", and [`Clock::next`] chooses
//! moments at which the answer decides most. Half of them halve the range. The others ask whether the offset
//! is still within it, at either end: a clock that was set shows there.

use std::time::Duration;

use super::UnixMicros;

const SECOND: i64 = 1_000_000;

/// Two clocks that are disciplined drift apart by no more, in parts of a million.
const DRIFT_PPM: i64 = 200;

/// Beyond what an answer took, its header is written at most so long before it is read.
const JITTER: i64 = 2_000;

/// The offset, the API server's clock minus the collector's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    least: i64,
    most: i64,
    /// The collector's time at which it was known.
    at: i64,
}

/// What an answer tells about the answers before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The offset is as it was thought to be, as far as was seen at either end of the range.
    Same { least: bool, most: bool },
    /// Nothing: one of the clocks was set, or this is the first answer.
    Set,
}

/// Which offset the next answer decides about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Aim {
    #[default]
    Middle,
    Most,
    MiddleAgain,
    Least,
}

/// The offset, as well as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    range: Option<Range>,
    aim: Aim,
    /// How long the last answer took.
    took: i64,
}

impl Clock {
    /// An answer was asked for and came at these moments of the collector's clock, and has this `Date`. Answers what it
    /// tells, and within which moments of the API server's clock it was made.
    pub(super) fn answered(
        &mut self,
        asked: UnixMicros,
        answered: UnixMicros,
        date: UnixMicros,
    ) -> (Told, UnixMicros, UnixMicros) {
        let (asked, answered) = (asked.0.min(answered.0), asked.0.max(answered.0));
        let own = Range {
            least: date.0.saturating_sub(answered),
            most: date.0.saturating_add(SECOND).saturating_sub(asked),
            at: answered,
        };
        self.took = answered - asked;
        let slack = self.slack();
        let (told, range) = match self.range.map(|range| range.by(answered)) {
            None => (Told::Set, own),
            Some(before) => {
                let range = Range {
                    least: before.least.max(own.least),
                    most: before.most.min(own.most),
                    at: answered,
                };
                let told = Told::Same {
                    least: own.least >= range.least - slack,
                    most: own.most <= range.most + slack,
                };
                if range.least > range.most {
                    (Told::Set, own)
                } else {
                    (told, range)
                }
            }
        };
        self.range = Some(range);
        self.aim = match self.aim {
            Aim::Middle => Aim::Most,
            Aim::Most => Aim::MiddleAgain,
            Aim::MiddleAgain => Aim::Least,
            Aim::Least => Aim::Middle,
        };
        let earliest = asked.saturating_add(range.least).saturating_sub(slack);
        let latest = answered.saturating_add(range.most).saturating_add(slack);
        (told, UnixMicros(earliest), UnixMicros(latest))
    }

    /// How exactly the ends of the range are looked at.
    fn slack(&self) -> i64 {
        2 * (self.took + JITTER)
    }

    /// How long to wait from this moment of the collector's clock until an answer tells most; less than a second.
    pub(super) fn next(&self, now: UnixMicros) -> Duration {
        let Some(range) = self.range.map(|range| range.by(now.0)) else {
            return Duration::ZERO;
        };
        let beyond = self.took + JITTER;
        let offset = match self.aim {
            Aim::Middle | Aim::MiddleAgain => range.least + (range.most - range.least) / 2,
            Aim::Most => range.most.saturating_add(beyond),
            Aim::Least => range.least.saturating_sub(beyond),
        };
        // The header is written as its second begins, if the offset is this one.
        let header = now.0.saturating_add(self.took).saturating_add(offset);
        let wait = SECOND - 1 - (header - 1).rem_euclid(SECOND);
        Duration::from_micros(wait.unsigned_abs())
    }
}

impl Range {
    /// What is left of it at another moment.
    fn by(self, at: i64) -> Self {
        let passed = at.saturating_sub(self.at).max(0);
        let drift = passed / SECOND * DRIFT_PPM + DRIFT_PPM;
        Self {
            least: self.least.saturating_sub(drift),
            most: self.most.saturating_add(drift),
            at,
        }
    }
}

/// For tests: how wide the range is.
#[cfg(test)]
impl Clock {
    fn width(&self) -> Duration {
        let range = self.range.map_or(SECOND, |range| range.most - range.least);
        Duration::from_micros(range.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completeness::micros;

    /// Asks when it tells most, every half minute; answers the looks that it took until `is_done`.
    fn looks(
        clock: &mut Clock,
        from: i64,
        offset: i64,
        mut is_done: impl FnMut(&Clock, Told) -> bool,
    ) -> i64 {
        let took = 4_000;
        for look in 0..200 {
            let now = from + look * 30 * SECOND;
            let asked = now + micros(clock.next(UnixMicros(now)));
            let header = asked + took * 3 / 4;
            let date = (header + offset).div_euclid(SECOND) * SECOND;
            let (told, earliest, latest) =
                clock.answered(UnixMicros(asked), UnixMicros(asked + took), UnixMicros(date));
            if told != Told::Set {
                assert!(earliest.0 <= asked + offset, "look {look}");
                assert!(latest.0 >= asked + took + offset, "look {look}");
            }
            if is_done(clock, told) {
                return look + 1;
            }
        }
        panic!("{clock:?}");
    }

    #[test]
    fn an_offset_is_known_to_some_milliseconds_after_a_dozen_looks() {
        for offset in [0, 1, -1, 499_999, -7_123_456, 3_600_000_000 + 250_000] {
            let mut clock = Clock::default();
            let needed = looks(&mut clock, 1_000 * SECOND, offset, |clock, _| {
                clock.width() < Duration::from_millis(40)
            });
            assert!(needed <= 16, "{needed} looks for {offset}");
        }
    }

    #[test]
    fn a_clock_that_was_set_is_seen_within_four_looks() {
        for by in [150_000, -150_000, 400_000, -499_999, 10 * SECOND + 200_000] {
            let mut clock = Clock::default();
            let mut count = 0;
            looks(&mut clock, 1_000 * SECOND, 20_000, |_, _| {
                count += 1;
                count == 24
            });
            let mut range = clock.clone();
            let needed = {
                // The window is wrong until it is seen.
                let mut looks = 0;
                loop {
                    let now = (2_000 + looks * 30) * SECOND;
                    let asked = now + micros(range.next(UnixMicros(now)));
                    let date = (asked + 3_000 + 20_000 + by).div_euclid(SECOND) * SECOND;
                    let (told, ..) =
                        range.answered(UnixMicros(asked), UnixMicros(asked + 4_000), UnixMicros(date));
                    looks += 1;
                    if told == Told::Set {
                        break looks;
                    }
                    assert!(looks < 20, "{by}");
                }
            };
            assert!(needed <= 4, "{needed} looks for {by}");
        }
    }

    #[test]
    fn both_ends_are_looked_at_in_four_looks() {
        let mut clock = Clock::default();
        let mut count = 0;
        looks(&mut clock, 1_000 * SECOND, -77_000, |_, _| {
            count += 1;
            count == 30
        });
        let (mut least, mut most, mut more) = (false, false, 0);
        looks(&mut clock, 3_000 * SECOND, -77_000, |_, told| {
            if let Told::Same {
                least: at_least,
                most: at_most,
            } = told
            {
                least |= at_least;
                most |= at_most;
            }
            more += 1;
            more == 4
        });
        assert!(least && most);
    }
}
