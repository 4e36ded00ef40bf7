//! The body of a POST: one EventList, of the lines that the events have already.

use bytes::Bytes;
use kaudit_sink::{Counters, Emission, Reason, Refusal, Refusals};

use super::PLUGIN;

const HEAD: &[u8] = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":"#;

/// A body and the events in it.
pub(super) struct EventListBody {
    pub(super) bytes: Bytes,
    pub(super) events: Vec<Emission<'static>>,
    /// What could not be put in.
    pub(super) refusals: Refusals,
}

impl EventListBody {
    /// Upstream loses all events of a batch with one that cannot be encoded; here that one goes without
    /// the body that is at fault, and counted.
    pub(super) fn of(batch: Vec<Emission<'_>>, counters: &Counters) -> Self {
        let size: usize = batch
            .iter()
            .map(|emission| emission.line().map_or(0, <[u8]>::len))
            .sum();
        let mut bytes = Vec::with_capacity(HEAD.len() + size + 4);
        bytes.extend_from_slice(HEAD);
        let before_items = bytes.len();
        let mut events = Vec::with_capacity(batch.len());
        let mut refusals = Refusals::new();
        for emission in batch {
            let separator = bytes.len();
            bytes.push(if separator == before_items { b'[' } else { b',' });
            match push_item(&emission, &mut bytes, counters) {
                Ok(()) => events.push(emission.into_kept()),
                Err(message) => {
                    bytes.truncate(separator);
                    let refusal = Refusal {
                        plugin: PLUGIN,
                        reason: Reason::Encode,
                        message,
                    };
                    counters.plugin_error(&refusal, [emission.event()]);
                    refusals.push(refusal);
                }
            }
        }
        if bytes.len() == before_items {
            bytes.extend_from_slice(b"null");
        } else {
            bytes.push(b']');
        }
        bytes.extend_from_slice(b"}\n");
        Self {
            bytes: Bytes::from(bytes),
            events,
            refusals,
        }
    }
}

fn push_item(emission: &Emission<'_>, bytes: &mut Vec<u8>, counters: &Counters) -> Result<(), String> {
    let Err(error) = emission.push_item(bytes) else {
        return Ok(());
    };
    let Some((event, _)) = emission.event().without_unprintable_bodies() else {
        return Err(error.to_string());
    };
    event.write_json_item(bytes).map_err(|error| error.to_string())?;
    counters.body_left_out();
    Ok(())
}
