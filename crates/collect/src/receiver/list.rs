//! An EventList from a request's body into the journal.

use http::StatusCode;
use kaudit_event::{Event, Text};

use super::body::BodyReader;
use super::gathered::Gathered;
use super::{ReceiverOptions, Refused};
use crate::arrival::{Arrival, NotAnEvent};
use crate::clock;
use crate::intake::{Intake, NotKept};
use crate::lists::{Item, SplitError, Splitter};
use crate::parcel::About;
use crate::source::Source;

/// So much of a body that is no list is put into quarantine.
const MAX_REST_BYTES: usize = 1 << 20;

/// Reads a list to its end and waits until its events are durable.
pub(super) async fn receive(
    intake: &Intake,
    source: &Source,
    mut body: BodyReader<'_>,
    options: &ReceiverOptions,
) -> Result<(), Refused> {
    let mut receiving = Receiving {
        intake,
        source,
        gathered: Gathered::new(intake, source.clone(), options.patience),
    };
    let mut splitter = Splitter::new(options.max_event_bytes);
    let fault = loop {
        let piece = match body.piece().await {
            Ok(Some(piece)) => piece,
            Ok(None) => break splitter.finish().err(),
            Err(refused) => {
                // What came before is kept: the sender brings it again and it is known then.
                receiving.gathered.finish().await?;
                return Err(refused);
            }
        };
        body.hold(splitter.held() + piece.len() + receiving.gathered.held())
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
        receiving.gathered.stray(rest, reason.clone());
        receiving.gathered.finish().await?;
        return Err(Refused::never(StatusCode::BAD_REQUEST, "no_event_list", reason));
    }
    receiving.gathered.finish().await?;
    Ok(())
}

enum Fault {
    List(SplitError),
    Kept(NotKept),
}

struct Receiving<'a> {
    intake: &'a Intake,
    source: &'a Source,
    gathered: Gathered<'a>,
}

impl Receiving<'_> {
    /// Takes the items that are whole.
    async fn items(&mut self, splitter: &mut Splitter) -> Result<(), Fault> {
        while let Some(item) = splitter.next_item().map_err(Fault::List)? {
            self.item(item);
            self.gathered.flush_if_large().await.map_err(Fault::Kept)?;
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
            self.gathered.stray(text.to_vec(), reason);
        }
    }

    fn push(&mut self, arrival: &Arrival<'_>) -> Result<(), String> {
        let about = About {
            received_micros: clock::now_micros(),
            ..About::default()
        };
        self.gathered.push(arrival, about)
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
