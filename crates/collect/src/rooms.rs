//! Room in a journal's queue for the events of requests under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kaudit_journal::{Journal, Reject, Room};
use kaudit_sink::{Reason, Refusal, Reservation, Reserve};

use crate::settler::SinkMode;

/// Room that is taken for each event of a request when it arrives. Nine of ten events at level Metadata are
/// smaller with their frame; a larger one needs as much more as is free when it comes.
pub(crate) const EVENT_BYTES: usize = 4096;

/// Gives room to requests, up to a bound of its own: others use the journal's queue, too.
#[derive(Debug)]
pub(crate) struct Rooms {
    pub(crate) plugin: &'static str,
    pub(crate) mode: SinkMode,
    /// Requests beyond it have no room reserved, and each of their events takes its chance when it comes.
    pub(crate) max_bytes: usize,
    pub(crate) patience: Duration,
    pub(crate) journal: Journal,
    pub(crate) taken: Arc<AtomicUsize>,
}

/// Room for the events of one request, one piece for each.
#[derive(Debug)]
struct RequestRooms {
    rooms: Vec<Room>,
    taken: Arc<AtomicUsize>,
}

impl RequestRooms {
    /// `None` when the journal's queue is full.
    fn new(journal: &Journal, taken: &Arc<AtomicUsize>, events: usize) -> Option<Self> {
        let mut rooms = Self {
            rooms: Vec::new(),
            taken: Arc::clone(taken),
        };
        for _ in 0..events {
            let room = journal.reserve(EVENT_BYTES)?;
            taken.fetch_add(EVENT_BYTES, Ordering::Relaxed);
            rooms.rooms.push(room);
        }
        Some(rooms)
    }
}

impl Drop for RequestRooms {
    fn drop(&mut self) {
        let left = EVENT_BYTES * self.rooms.len();
        self.taken.fetch_sub(left, Ordering::Relaxed);
    }
}

/// The room of one event, if some was reserved.
pub(crate) fn room_of(reservation: &mut Reservation) -> Option<Room> {
    let rooms = reservation.permit_mut::<RequestRooms>()?;
    let room = rooms.rooms.pop()?;
    rooms.taken.fetch_sub(EVENT_BYTES, Ordering::Relaxed);
    Some(room)
}

impl Rooms {
    /// In the modes in which requests wait, waits for room while the journal makes progress, for as long as
    /// the patience lasts; then `BlockingStrict` refuses.
    pub(crate) fn reserve(&self, events: u32) -> Reserve {
        let events = usize::try_from(events).unwrap_or(usize::MAX);
        let wanted = EVENT_BYTES.saturating_mul(events);
        if self.taken.load(Ordering::Relaxed).saturating_add(wanted) > self.max_bytes {
            return Reserve::Ready(Reservation::none());
        }
        if let Some(rooms) = RequestRooms::new(&self.journal, &self.taken, events) {
            return Reserve::Ready(Reservation::with(rooms));
        }
        let (plugin, mode, patience) = (self.plugin, self.mode, self.patience);
        if mode == SinkMode::Batch {
            return Reserve::Ready(Reservation::none());
        }
        let (journal, taken) = (self.journal.clone(), Arc::clone(&self.taken));
        Reserve::Wait(Box::pin(async move {
            let until = tokio::time::Instant::now() + patience;
            loop {
                let durable = journal.durable();
                if let Some(rooms) = RequestRooms::new(&journal, &taken, events) {
                    return Ok(Reservation::with(rooms));
                }
                let progress = tokio::time::timeout_at(until, journal.wait_durable(durable)).await;
                if progress.is_ok_and(|end| end > durable) {
                    continue;
                }
                return match mode {
                    SinkMode::BlockingStrict => Err(vec![Refusal {
                        plugin,
                        reason: Reason::QueueFull,
                        message: Reject::QueueFull.to_string(),
                    }]),
                    SinkMode::Batch | SinkMode::Blocking => Ok(Reservation::none()),
                };
            }
        }))
    }
}
