//! Another kaudit's records from a request's body into the journal.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use kaudit_event::record::Record;
use kaudit_journal::{Gap, Seq};

use super::body::BodyReader;
use super::gathered::{Counts, Gathered};
use super::{ReceiverOptions, Refused};
use crate::access::Sender;
use crate::arrival::Arrival;
use crate::forward::wire::{Frame, FrameReader, WireError};
use crate::intake::Intake;
use crate::parcel::About;
use crate::source::{Name, Origin, Source, Way};

/// Edges whose gaps are told apart.
const EDGES: usize = 4096;

/// Gaps that one request may tell of.
const GAPS: usize = 100_000;

/// Stands for the cluster of bytes that do not say which.
const UNKNOWN: &str = "unknown";

/// What is known of the edges that sent something.
#[derive(Debug, Default)]
pub(super) struct Edges(Mutex<BTreeMap<Name, Edge>>);

#[derive(Clone, Debug)]
struct Edge {
    /// Where its last records were from.
    source: Source,
    /// The end of the last gap that was counted: one that is told again is known.
    counted: Seq,
}

impl Edges {
    /// The source of the records that came last from an edge.
    pub(super) fn source(&self, edge: &Name) -> Option<Source> {
        let edges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        edges.get(edge).map(|edge| edge.source.clone())
    }

    /// Notes what came, and counts the gaps that are new: how many, and of how many records.
    fn came(&self, name: &Name, source: &Source, gaps: &[Gap]) -> (u64, u64) {
        let mut edges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = edges.get(name).map_or(Seq::default(), |edge| edge.counted);
        let (mut new, mut records) = (0, 0);
        for gap in gaps.iter().filter(|gap| gap.to > counted) {
            new += 1;
            records += gap.to.since(gap.from.max(counted));
        }
        let counted = gaps
            .iter()
            .map(|gap| gap.to)
            .max()
            .map_or(counted, |to| to.max(counted));
        if edges.len() < EDGES || edges.contains_key(name) {
            let source = source.clone();
            edges.insert(name.clone(), Edge { source, counted });
        }
        (new, records)
    }
}

/// Who sends, and what of it is let in.
pub(super) struct From<'a> {
    pub(super) edge: &'a Name,
    pub(super) sender: &'a Sender<'a>,
    pub(super) certificate_not_after: Option<i64>,
    pub(super) edges: &'a Edges,
}

impl std::convert::From<WireError> for Refused {
    fn from(error: WireError) -> Self {
        Self::never(StatusCode::BAD_REQUEST, "no_records", error.to_string())
    }
}

/// Reads records to the end and waits until they are durable. Answers with the body of the answer.
pub(super) async fn receive(
    intake: &Intake,
    from: &From<'_>,
    mut body: BodyReader<'_>,
    options: &ReceiverOptions,
) -> Result<String, Refused> {
    let mut receiving = Receiving {
        intake,
        from,
        patience: options.patience,
        gathered: None,
        is_of_records: false,
        gaps: Vec::new(),
    };
    let end = receiving.read(&mut body).await;
    // What came before a fault is kept: the edge brings it again and it is known then.
    let counts = match &mut receiving.gathered {
        Some(gathered) => gathered.finish().await?,
        None => Counts::default(),
    };
    end?;
    receiving.count_gaps()?;
    let Counts {
        accepted,
        duplicates,
        quarantined,
    } = counts;
    Ok(format!(
        "{{\"accepted\":{accepted},\"duplicates\":{duplicates},\"quarantined\":{quarantined}}}\n"
    ))
}

/// The source of what does not say where it is from.
fn unknown(intake: &Intake, edge: &Name) -> Result<Source, Refused> {
    let cluster = UNKNOWN.parse::<Name>();
    let cluster =
        cluster.map_err(|error| Refused::never(StatusCode::BAD_REQUEST, "name", error.to_string()))?;
    let origin = Origin {
        cluster,
        instance: edge.clone(),
        transport: Way::Forward,
        path: edge.as_str().to_owned(),
    };
    Ok(intake.source(&origin)?)
}

struct Receiving<'a> {
    intake: &'a Intake,
    from: &'a From<'a>,
    patience: Duration,
    gathered: Option<Gathered<'a>>,
    /// Whether the source at hand is that of a record.
    is_of_records: bool,
    gaps: Vec<Gap>,
}

impl<'a> Receiving<'a> {
    async fn read(&mut self, body: &mut BodyReader<'_>) -> Result<(), Refused> {
        let mut frames = FrameReader::default();
        while let Some(piece) = body.piece().await? {
            let gathered = self.gathered.as_ref().map_or(0, Gathered::held);
            body.hold(frames.held() + piece.len() + gathered).await?;
            frames.push(&piece);
            drop(piece);
            while let Some(frame) = frames.next()? {
                match frame {
                    Frame::Record(bytes) => self.record(&bytes).await?,
                    Frame::Gap(gap) if self.gaps.len() < GAPS => self.gaps.push(gap),
                    Frame::Gap(_) => {
                        let text = format!("more than {GAPS} gaps in one request");
                        return Err(Refused::never(StatusCode::BAD_REQUEST, "no_records", text));
                    }
                }
                if let Some(gathered) = &mut self.gathered {
                    gathered.flush_if_large().await?;
                }
            }
        }
        Ok(frames.finish()?)
    }

    async fn record(&mut self, bytes: &Bytes) -> Result<(), Refused> {
        let record = match Record::read(bytes) {
            Ok(record) => record,
            Err(error) => return self.stray(bytes, error.to_string()).await,
        };
        let origin = self.gathered.as_ref().map(|gathered| gathered.source().origin());
        let is_same = self.is_of_records
            && origin.is_some_and(|origin| {
                origin.cluster.as_str() == record.cluster && origin.instance.as_str() == record.instance
            });
        if !is_same {
            let (cluster, instance) = match (record.cluster.parse::<Name>(), record.instance.parse::<Name>())
            {
                (Ok(cluster), Ok(instance)) => (cluster, instance),
                (Err(error), _) | (_, Err(error)) => return self.stray(bytes, error.to_string()).await,
            };
            self.may_bring(&cluster, &instance)?;
            let source = self.intake.source(&Origin {
                cluster,
                instance,
                transport: Way::Forward,
                path: self.from.edge.as_str().to_owned(),
            })?;
            source.shown(self.from.certificate_not_after);
            self.turn_to(source).await?;
            self.is_of_records = true;
        }
        let Some(gathered) = &mut self.gathered else {
            return Ok(());
        };
        let outcome = Arrival::of_line(&record.event, &record.cluster, self.intake.keys())
            .map_err(|error| error.to_string())
            .and_then(|arrival| {
                let about = About {
                    received_micros: record.received_micros,
                    tail: record.head().tail,
                    matched_rule: record.matched_rule,
                    forwarded: Some((&record.source, record.seq)),
                };
                gathered.push(&arrival, about)
            });
        if let Err(reason) = outcome {
            gathered.stray(record.event.to_vec(), reason);
        }
        Ok(())
    }

    fn may_bring(&self, cluster: &Name, instance: &Name) -> Result<(), Refused> {
        self.from.sender.may_bring(cluster, instance).map_err(|_| {
            let text = format!(
                "this certificate or token has no right to bring events of cluster `{cluster}`, instance `{instance}`"
            );
            Refused::never(StatusCode::FORBIDDEN, "forbidden", text)
        })
    }

    async fn turn_to(&mut self, source: Source) -> Result<(), Refused> {
        match &mut self.gathered {
            Some(gathered) => gathered.turn_to(source).await?,
            none => *none = Some(Gathered::new(self.intake, source, self.patience)),
        }
        Ok(())
    }

    /// Bytes that do not say whose they are.
    async fn stray(&mut self, bytes: &Bytes, reason: String) -> Result<(), Refused> {
        let source = unknown(self.intake, self.from.edge)?;
        self.turn_to(source).await?;
        self.is_of_records = false;
        if let Some(gathered) = &mut self.gathered {
            gathered.stray(bytes.to_vec(), reason);
        }
        Ok(())
    }

    /// Counts the gaps, now that everything is durable.
    fn count_gaps(&self) -> Result<(), Refused> {
        let gathered = self.gathered.as_ref().map(|gathered| gathered.source().clone());
        let source = match gathered.or_else(|| self.from.edges.source(self.from.edge)) {
            Some(source) => source,
            None if self.gaps.is_empty() => return Ok(()),
            None => unknown(self.intake, self.from.edge)?,
        };
        let (gaps, records) = self.from.edges.came(self.from.edge, &source, &self.gaps);
        if gaps > 0 {
            {
                let mut counts = source.counting();
                counts.gaps += gaps;
                counts.missing += records;
            }
            let origin = source.origin();
            tracing::error!(
                edge = %self.from.edge,
                cluster = %origin.cluster,
                instance = %origin.instance,
                gaps,
                records,
                first = self.gaps.first().map(|gap| gap.from.get()),
                reason = self.gaps.first().map(|gap| format!("{:?}", gap.reason)),
                "another kaudit cannot read records any more that it was to forward"
            );
        }
        Ok(())
    }
}
