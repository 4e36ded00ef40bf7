//! All events of a server's files, as they were received; answer after answer, and on where one broke off.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use super::remote::{Parameters, Remote};
use crate::exit::{Exit, Failure};

/// So often an answer may break off before another line came, with these pauses after it.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

/// Of what the events are exported.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExportedStore {
    /// The first record that was not sealed.
    pub(crate) sealed_to: u64,
    /// Events that are asked for and were in no file then.
    pub(crate) newer: u64,
    /// The newest version of its manifest, and that one's BLAKE3.
    pub(crate) store_version: u64,
    pub(crate) store_hash: String,
    /// Events that had gone by then.
    expired: u64,
}

/// Where an exported event came from.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Envelope {
    /// Its place among the others.
    at: String,
    pub(crate) seq: u64,
    pub(crate) cluster: String,
    pub(crate) source: String,
    pub(crate) instance: String,
    pub(crate) received_micros: i64,
    pub(crate) policy_rule: Option<u32>,
}

#[derive(Debug)]
enum Line {
    Begin(ExportedStore),
    Event(Envelope, Bytes),
    End(End),
}

#[derive(Debug, Deserialize)]
struct End {
    next: Option<String>,
    error: Option<String>,
}

/// How one answer ended.
enum Ended {
    /// With the last event.
    Whole,
    /// There is more.
    Early,
}

/// How far an export has come.
#[derive(Debug, Default)]
struct Progress {
    store: Option<ExportedStore>,
    /// The last event that came.
    after: Option<String>,
    /// Whether something has come since it was asked last.
    is_moving: bool,
}

impl Remote {
    /// Hands over each event of the server's files that satisfies `parameters`, the oldest first, and says of which
    /// version of the store they are.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from handing over all of them, and those of `each`.
    pub(crate) fn export(
        &self,
        parameters: &Parameters,
        mut each: impl FnMut(&Envelope, &[u8]) -> Result<(), Failure>,
    ) -> Result<ExportedStore, Failure> {
        let mut progress = Progress::default();
        let mut pauses = PAUSES.iter();
        loop {
            progress.is_moving = false;
            match self.export_answer(parameters, &mut progress, &mut each) {
                Ok(Ended::Whole) => {
                    return progress
                        .store
                        .ok_or_else(|| self.lost(anyhow!("an answer has no beginning")));
                }
                Ok(Ended::Early) if progress.is_moving => pauses = PAUSES.iter(),
                Ok(Ended::Early) => return Err(self.lost(anyhow!("an answer ended without any event"))),
                Err(Broken::ForGood(failure)) => return Err(failure),
                Err(Broken::Off(failure)) => {
                    if progress.is_moving {
                        pauses = PAUSES.iter();
                    }
                    // Who was never answered is told so at once.
                    match pauses.next().filter(|_| progress.store.is_some()) {
                        Some(pause) => std::thread::sleep(*pause),
                        None => return Err(failure),
                    }
                }
            }
        }
    }

    fn export_answer(
        &self,
        parameters: &Parameters,
        progress: &mut Progress,
        each: &mut impl FnMut(&Envelope, &[u8]) -> Result<(), Failure>,
    ) -> Result<Ended, Broken> {
        let mut parameters = parameters.clone();
        if let Some(store) = &progress.store {
            parameters = parameters.with("sealedTo", &store.sealed_to.to_string());
        }
        if let Some(after) = &progress.after {
            parameters = parameters.with("cursor", after);
        }
        let mut ended = Err(Broken::Off(
            self.lost(anyhow!("the answer ended before it was whole")),
        ));
        let read = self.lines("/api/v1/export", &parameters, |line| {
            let step = Line::read(&line).map_err(|error| Broken::Off(self.lost(error)));
            let step = step.and_then(|line| self.take(line, progress, each));
            match step {
                Ok(None) => ControlFlow::Continue(()),
                Ok(Some(end)) => {
                    ended = Ok(end);
                    ControlFlow::Break(())
                }
                Err(broken) => {
                    ended = Err(broken);
                    ControlFlow::Break(())
                }
            }
        });
        match read {
            Err(failure) if failure.exit == Exit::Unreachable => Err(Broken::Off(failure)),
            Err(failure) => Err(Broken::ForGood(failure)),
            Ok(()) => ended,
        }
    }

    /// Takes a line; how the answer ended, if it is the last.
    fn take(
        &self,
        line: Line,
        progress: &mut Progress,
        each: &mut impl FnMut(&Envelope, &[u8]) -> Result<(), Failure>,
    ) -> Result<Option<Ended>, Broken> {
        match line {
            Line::Begin(store) => {
                let first = progress.store.get_or_insert_with(|| store.clone());
                if store.expired != first.expired || store.sealed_to != first.sealed_to {
                    let told = "events went out of the store while it was exported, because their time was over or for \
                                want of room: some may be missing. Ask again, for newer ones with --since";
                    return Err(Broken::ForGood(Failure::unreachable(anyhow!(told))));
                }
            }
            Line::Event(envelope, event) => {
                each(&envelope, &event).map_err(Broken::ForGood)?;
                progress.after = Some(envelope.at);
                progress.is_moving = true;
            }
            Line::End(End {
                error: Some(error), ..
            }) => return Err(Broken::Off(self.lost(anyhow!(error)))),
            Line::End(End { next: None, .. }) => return Ok(Some(Ended::Whole)),
            Line::End(End { next: Some(next), .. }) => {
                progress.is_moving |= progress.after.as_ref() != Some(&next);
                progress.after = Some(next);
                return Ok(Some(Ended::Early));
            }
        }
        Ok(None)
    }
}

/// Why an answer is not whole.
enum Broken {
    /// Another one may be.
    Off(Failure),
    /// Nor would another be.
    ForGood(Failure),
}

/// Stand before the event, which is the last member. Neither can stand in a string, where its quotes would be escaped.
const EVENT: &[u8] = br#","event":"#;
const BASE64: &[u8] = br#","eventBase64":"#;

impl Line {
    fn read(line: &Bytes) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        enum Other {
            Begin(ExportedStore),
            End(End),
        }
        let found = [EVENT, BASE64]
            .into_iter()
            .filter_map(|mark| Some((memchr::memmem::find(line, mark)?, mark)))
            .min();
        let Some((at, mark)) = found else {
            let other: Other = serde_json::from_slice(line).context("a line of the answer is no event")?;
            return Ok(match other {
                Other::Begin(store) => Self::Begin(store),
                Other::End(end) => Self::End(end),
            });
        };
        let mut head = line.slice(..at).to_vec();
        head.push(b'}');
        let envelope = serde_json::from_slice(&head).context("an event's envelope cannot be read")?;
        let last = line.len().saturating_sub(1);
        let event = line.slice((at + mark.len()).min(last)..last);
        if mark == EVENT {
            return Ok(Self::Event(envelope, event));
        }
        let text: String = serde_json::from_slice(&event).context("an event cannot be read")?;
        let event = STANDARD.decode(text).context("an event cannot be read")?;
        Ok(Self::Event(envelope, event.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_taken_out_of_its_line_byte_by_byte() {
        let head = r#"{"at":"5-7","cluster":"a,\"event\":b","instance":"i","policyRule":null,"receivedMicros":-1,"seq":7,"source":"s""#;
        for (rest, expected) in [
            (
                &b",\"event\":{\"a\":\"\xff\",\"eventBase64\":1}}"[..],
                &b"{\"a\":\"\xff\",\"eventBase64\":1}"[..],
            ),
            (br#","eventBase64":"/wo="}"#, b"\xff\n"),
        ] {
            let line = Bytes::from([head.as_bytes(), rest].concat());
            let Line::Event(envelope, event) = Line::read(&line).unwrap() else {
                panic!("no event");
            };
            assert_eq!(event.as_ref(), expected);
            assert_eq!((envelope.at.as_str(), envelope.seq), ("5-7", 7));
            assert_eq!(envelope.cluster, "a,\"event\":b");
        }
    }
}
