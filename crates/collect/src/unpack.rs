//! Chunks of files into parcels: lines that are events, and what goes into quarantine.

use crate::arrival::{Arrival, NotAnEvent};
use crate::chunk::{Chunk, Form};
use crate::intake::Intake;
use crate::lines;
use crate::parcel::{About, Parcel};
use crate::quarantine::Piece;

/// Adds the events of `chunk` to `parcel`; answers with what is none.
pub(crate) fn into_parcel<'c>(
    chunk: &'c Chunk,
    intake: &Intake,
    parcel: &mut Parcel,
    now_micros: i64,
) -> Vec<Piece<'c>> {
    let cluster = parcel.source().origin().cluster.clone();
    let file = chunk.file.to_string();
    let mut pieces: Vec<Piece<'c>> = Vec::new();
    let mut strays: Vec<(&'c [u8], u64, String)> = Vec::new();
    for (text, line) in chunk.texts().zip(&chunk.lines) {
        let about = About {
            received_micros: now_micros,
            tail: Some((&file, line.end_offset)),
            ..About::default()
        };
        let arrival = |text: &'c [u8]| match chunk.form {
            Form::Lines => Arrival::of_line(text, cluster.as_str(), intake.keys()),
            Form::Items => Arrival::of_item(text, cluster.as_str(), intake.keys()),
        };
        let mut push = |arrival: Result<Arrival<'_>, NotAnEvent>| -> Result<(), String> {
            let arrival = arrival.map_err(|error| error.to_string())?;
            parcel.push(&arrival, about).map_err(|error| error.to_string())
        };
        let Err(reason) = push(arrival(text)) else {
            continue;
        };
        let start = line.end_offset.saturating_sub(length(text) + 1);
        let parts = lines::resync(text);
        if matches!(parts.as_slice(), [lines::Piece::Object(_)]) {
            strays.push((text, start, reason));
            continue;
        }
        for part in parts {
            let (range, outcome) = match part {
                lines::Piece::Object(range) => {
                    let object = text.get(range.clone()).unwrap_or_default();
                    (range, push(arrival(object)))
                }
                lines::Piece::Torn(range, torn) => (range, Err(torn.to_string())),
                // Nothing was written there.
                lines::Piece::Hole(_) => continue,
            };
            if let Err(reason) = outcome {
                let offset = start + u64::try_from(range.start).unwrap_or_default();
                strays.push((text.get(range).unwrap_or_default(), offset, reason));
            }
        }
    }
    pieces.extend(strays.into_iter().map(|(bytes, offset, reason)| Piece {
        bytes,
        reason,
        place: Some((file.clone(), offset)),
    }));
    pieces.extend(chunk.torn.iter().map(|torn| Piece {
        bytes: &torn.bytes,
        reason: torn.reason.to_string(),
        place: Some((file.clone(), torn.offset)),
    }));
    pieces.extend(chunk.oversized.iter().map(|line| Piece {
        bytes: &line.head,
        reason: format!(
            "a line of {} bytes, more than an event may have; these are its first, its BLAKE3 is {}",
            line.length,
            blake3::Hash::from_bytes(line.hash).to_hex()
        ),
        place: Some((file.clone(), line.offset)),
    }));
    pieces
}

fn length(text: &[u8]) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}
