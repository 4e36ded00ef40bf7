//! An EventList from a request's body into the journal.

use std::time::Duration;

use http::StatusCode;
use kaudit_event::{Event, Text};
use kaudit_journal::Reject;

use super::body::BodyReader;
use super::split::{Item, SplitError, Splitter};
use super::{ReceiverOptions, Refused};
use crate::arrival::{Arrival, NotAnEvent};
use crate::clock;
use crate::intake::{Beside, Intake, NotKept, Taken};
use crate::parcel::{About, Parcel};
use crate::quarantine::Piece;
use crate::source::Source;

/// A parcel of so many bytes goes into the journal.
const PARCEL_BYTES: usize = 512 << 10;

/// So much of a body that is no list is put into quarantine.
const MAX_REST_BYTES: usize = 1 << 20;

/// What was no event, until it is put away.
struct Stray {
    bytes: Vec<u8>,
    reason: String,
}

/// Reads a list to its end and waits until its events are durable.
pub(super) async fn receive(
    intake: &Intake,
    source: &Source,
    mut body: BodyReader,
    options: &ReceiverOptions,
) -> Result<(), Refused> {
    let mut receiving = Receiving {
        intake,
        source,
        patience: options.patience,
        parcel: Parcel::new(source.clone()),
        strays: Vec::new(),
        taken: Vec::new(),
    };
    let mut splitter = Splitter::new(options.max_event_bytes);
    let fault = loop {
        let piece = match body.piece().await {
            Ok(Some(piece)) => piece,
            Ok(None) => break splitter.finish().err(),
            Err(refused) => {
                // What came before is kept: the sender brings it again and it is known then.
                receiving.finish().await?;
                return Err(refused);
            }
        };
        body.hold(splitter.held() + piece.len() + receiving.held())
            .await?;
        splitter.push(&piece);
        drop(piece);
        match receiving.items(&mut splitter).await {
            Ok(()) => {}
            Err(Fault::List(error)) => break Some(error),
            Err(Fault::Kept(error)) => return Err(error.into()),
        }
    };
    if let Some(error) = fault {
        let mut rest = splitter.rest().to_vec();
        while rest.len() < MAX_REST_BYTES
            && let Ok(Some(piece)) = body.piece().await
        {
            rest.extend_from_slice(&piece);
        }
        rest.truncate(MAX_REST_BYTES);
        let reason = error.to_string();
        receiving.strays.push(Stray {
            bytes: rest,
            reason: reason.clone(),
        });
        receiving.finish().await?;
        return Err(Refused::never(StatusCode::BAD_REQUEST, "no_event_list", reason));
    }
    receiving.finish().await?;
    Ok(())
}

enum Fault {
    List(SplitError),
    Kept(NotKept),
}

struct Receiving<'a> {
    intake: &'a Intake,
    source: &'a Source,
    patience: Duration,
    parcel: Parcel,
    strays: Vec<Stray>,
    taken: Vec<Taken>,
}

impl Receiving<'_> {
    fn held(&self) -> usize {
        self.parcel.bytes() + self.strays.iter().map(|stray| stray.bytes.len()).sum::<usize>()
    }

    /// Takes the items that are whole.
    async fn items(&mut self, splitter: &mut Splitter) -> Result<(), Fault> {
        while let Some(item) = splitter.next().map_err(Fault::List)? {
            self.item(item);
            if self.held() >= PARCEL_BYTES {
                self.flush().await.map_err(Fault::Kept)?;
            }
        }
        Ok(())
    }

    fn item(&mut self, item: Item<'_>) {
        let cluster = self.source.origin().cluster.as_str();
        let keys = self.intake.keys();
        let (text, outcome) = match item {
            Item::Scanned(line) => (
                &b""[..],
                self.push(&Arrival::of_scanned_item(line, cluster, keys)),
            ),
            Item::Text(text) => match Arrival::of_item(text, cluster, keys) {
                Ok(arrival) => (text, self.push(&arrival)),
                Err(error) => (text, Err(error.to_string())),
            },
            Item::Oversized { rest, bytes, hash } => {
                let kept = annotated(rest, bytes, hash).map_err(|error| error.to_string());
                let pushed = kept.and_then(|line| {
                    let arrival =
                        Arrival::of_line(&line, cluster, keys).map_err(|error| error.to_string())?;
                    self.source.counting().oversized += 1;
                    self.push(&arrival)
                });
                (rest, pushed)
            }
        };
        if let Err(reason) = outcome {
            self.strays.push(Stray {
                bytes: text.to_vec(),
                reason,
            });
        }
    }

    fn push(&mut self, arrival: &Arrival<'_>) -> Result<(), String> {
        let about = About {
            received_micros: clock::now_micros(),
            ..About::default()
        };
        self.parcel
            .push(arrival, about)
            .map_err(|error| error.to_string())
    }

    /// Hands over what was gathered; waits while the journal's queue is full.
    async fn flush(&mut self) -> Result<(), NotKept> {
        if !self.strays.is_empty() {
            let (intake, source) = (self.intake.clone(), self.source.clone());
            let strays = std::mem::take(&mut self.strays);
            let put = tokio::task::spawn_blocking(move || {
                let pieces: Vec<Piece<'_>> = strays
                    .iter()
                    .map(|stray| Piece {
                        bytes: &stray.bytes,
                        reason: stray.reason.clone(),
                        place: None,
                    })
                    .collect();
                intake.put_away(&source, &pieces, clock::now_micros())
            });
            put.await
                .map_err(|error| NotKept::Quarantine(std::sync::Arc::new(std::io::Error::other(error))))??;
        }
        if self.parcel.is_empty() {
            return Ok(());
        }
        let taken = take_when_there_is_room(self.intake, &self.parcel, self.patience).await?;
        self.taken.push(taken);
        self.parcel.clear();
        Ok(())
    }

    /// Hands over the rest and waits until all is durable.
    async fn finish(&mut self) -> Result<(), NotKept> {
        self.flush().await?;
        for taken in std::mem::take(&mut self.taken) {
            taken.durable().await?;
        }
        Ok(())
    }
}

/// As [`Intake::take`]; waits for the journal's queue to have room again.
pub(super) async fn take_when_there_is_room(
    intake: &Intake,
    parcel: &Parcel,
    patience: Duration,
) -> Result<Taken, NotKept> {
    let until = tokio::time::Instant::now() + patience;
    loop {
        let durable = intake.journal().durable();
        match intake.take(parcel, Beside::default(), clock::now_micros()) {
            Err(NotKept::Rejected(Reject::QueueFull)) => {
                let progress = intake.journal().wait_durable(durable);
                if tokio::time::timeout_at(until, progress).await.is_err() {
                    return Err(Reject::QueueFull.into());
                }
            }
            outcome => return outcome,
        }
    }
}

/// The line of an event that lost its bodies, which says so.
fn annotated(rest: &[u8], bytes: u64, hash: blake3::Hash) -> Result<Vec<u8>, NotAnEvent> {
    let mut event = Event::from_item(rest)?;
    let text = format!(
        "the event had {bytes} bytes, more than are kept; BLAKE3 {}",
        hash.to_hex()
    );
    event
        .annotations
        .push((Text::from_static("kaudit.dev/bodies-omitted"), Text::from(text)));
    let mut line = Vec::new();
    event.write_json_line(&mut line)?;
    line.truncate(line.trim_ascii_end().len());
    Ok(line)
}
