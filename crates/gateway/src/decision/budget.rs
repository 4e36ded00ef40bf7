//! How many questions may be asked for one user.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::cache::Key;

/// Users are told apart by so many places; two at one place share what one may ask.
const PLACES: usize = 1024;

/// What was not asked in so many seconds is lost.
const SECONDS: u32 = 10;

/// A bucket for each user, in a fixed number of places.
#[derive(Debug)]
pub(super) struct Budget {
    per_second: f64,
    places: Mutex<Vec<Option<Place>>>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    left: f64,
    since: Instant,
}

impl Budget {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second: f64::from(per_second),
            places: Mutex::new(vec![None; PLACES]),
        }
    }

    /// Whether one more question may be asked for this user now.
    pub(super) fn take(&self, user: &Key) -> bool {
        let now = Instant::now();
        let most = self.per_second * f64::from(SECONDS);
        let [first, second, ..] = *user;
        let place = usize::from(u16::from_le_bytes([first, second])) % PLACES;
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = places.get_mut(place) else {
            return false;
        };
        let Place { left, since } = place.unwrap_or(Place {
            left: most,
            since: now,
        });
        let left = (left + now.duration_since(since).as_secs_f64() * self.per_second).min(most);
        let is_enough = left >= 1.0;
        *place = Some(Place {
            left: if is_enough { left - 1.0 } else { left },
            since: now,
        });
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_user_gets_what_it_did_not_ask_for_ten_seconds_and_no_more() {
        let budget = Budget::new(2);
        let (ann, bob) = ([0; 32], [1; 32]);
        let taken = |user: &Key| (0..100).filter(|_| budget.take(user)).count();
        assert_eq!(taken(&ann), 20);
        assert_eq!(taken(&bob), 20);
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(taken(&ann), 3);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(taken(&ann), 20);
    }
}
