//! Numbers that nobody plans with: to spread requests and to keep gateways from acting in step.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers that look random, and are the same for the same beginning.
#[derive(Debug)]
pub(crate) struct Dice(AtomicU64);

impl Dice {
    pub(crate) const fn of(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Another beginning for each process and each call.
    pub(crate) fn new() -> Self {
        // The standard library's hashers begin with a random key: enough where no secret depends on it.
        Self::of(RandomState::new().hash_one(0_u8))
    }

    /// The next number.
    ///
    /// Source: SplitMix64, Steele, Lea and Flood 2014.
    pub(crate) fn roll(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
