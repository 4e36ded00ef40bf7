//! How much is tried, and what is said of it.

use std::time::{Duration, Instant};

/// A number from the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var_os(name)?.to_str()?.parse().ok()
}

/// Whether this is `make torture`.
pub(crate) fn is_long() -> bool {
    std::env::var_os("KAUDIT_TORTURE").is_some()
}

/// So many in the short form, so many in the long one; the variable `name` has the last word.
pub(crate) fn count(name: &str, short: u64, long: u64) -> u64 {
    number(name).unwrap_or(if is_long() { long } else { short })
}

/// One row of the table that `make torture` prints.
pub(crate) fn report(test: &str, what: &str, figure: impl std::fmt::Display) {
    println!("torture | {test} | {what} | {figure}");
}

/// Numbers that are the same for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of `KAUDIT_TORTURE_SEED`, mixed with the test's name.
    pub(crate) fn of_test(name: &str) -> Self {
        let seed = number("KAUDIT_TORTURE_SEED").unwrap_or(1);
        println!("{name}: KAUDIT_TORTURE_SEED={seed}");
        Self(name.bytes().fold(seed, |mixed, byte| {
            mixed.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(byte))
        }))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Up to `bound`. Where the moment of a fault is what is random, waiting is the thing under test.
    pub(crate) fn pause(&mut self, bound: Duration) {
        let micros = self.below(u64::try_from(bound.as_micros()).unwrap() + 1);
        let until = Instant::now() + Duration::from_micros(micros);
        while let Some(rest) = until.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(rest);
        }
    }
}

/// Looks again and again until it is so.
pub(crate) fn until(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not so after {within:?}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
