//! Files that are imported, into the intake: the same whether the process at hand has the journal or is asked
//! by another one.
//!
//! All imported events of an apiserver are one source, whatever their files are called: a file is named by its
//! events' tail positions.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::chunk::Chunk;
use crate::import::ImportIdentity;
use crate::intake::{Beside, Intake, NotKept, Taken};
use crate::parcel::Parcel;
use crate::source::{Name, Origin, Source, Way};
use crate::unpack;

/// Whole files that are remembered.
const IDENTITIES: usize = 1000;

/// What is remembered of each.
const IDENTITY_BYTES: usize = 16;

/// The journal's mark that holds them, oldest first.
const MARK: &[u8] = b"imports";

/// The path of the source that imported events have.
const PATH: &str = "import";

type Short = [u8; IDENTITY_BYTES];

/// Keeps what files hold. Its clones are the same.
#[derive(Clone, Debug)]
pub struct Importer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    intake: Intake,
    /// Files that were imported whole, oldest first.
    whole: Mutex<VecDeque<Short>>,
}

/// What became of a chunk, once [`Keeping::durable`] says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "three counts that are summed")]
pub struct Kept {
    /// Events that are new.
    pub events: u64,
    /// Events that were here already.
    pub duplicates: u64,
    /// Pieces that are no event and lie in quarantine.
    pub quarantined: u64,
}

/// A chunk that was taken in.
#[derive(Debug)]
#[must_use = "nothing is kept before it is durable"]
pub struct Keeping {
    taken: Taken,
    kept: Kept,
}

impl Keeping {
    /// Waits until all of it is durable.
    ///
    /// # Errors
    ///
    /// [`NotKept::Failed`]; the chunk is to be brought again.
    pub async fn durable(self) -> Result<Kept, NotKept> {
        self.taken.durable().await?;
        Ok(self.kept)
    }
}

impl Importer {
    /// An importer that hands events to `intake` and knows the newest 1000 files that were imported whole.
    #[must_use]
    pub fn new(intake: Intake) -> Self {
        let mark = intake.journal().mark(MARK).unwrap_or_default();
        let whole = mark.as_chunks::<IDENTITY_BYTES>().0.iter().copied().collect();
        Self(Arc::new(Inner {
            intake,
            whole: Mutex::new(whole),
        }))
    }

    /// The source of what is imported for `instance` of `cluster`.
    ///
    /// # Errors
    ///
    /// [`NotKept::TooManySources`].
    pub fn source(&self, cluster: Name, instance: Name) -> Result<Source, NotKept> {
        self.0.intake.source(&Origin {
            cluster,
            instance,
            transport: Way::File,
            path: PATH.to_owned(),
        })
    }

    /// Whether a file with this text was imported whole for `source`, as far back as is remembered.
    #[must_use]
    pub fn knows(&self, source: &Source, identity: &ImportIdentity) -> bool {
        self.whole().contains(&short(source, identity))
    }

    /// Takes a chunk in. Blocks on the disk where something goes into quarantine.
    ///
    /// # Errors
    ///
    /// [`NotKept`]; the chunk is to be brought again, and its events that were kept all the same are then here
    /// already.
    pub fn keep(&self, source: &Source, chunk: &Chunk, now_micros: i64) -> Result<Keeping, NotKept> {
        let intake = &self.0.intake;
        let mut parcel = Parcel::new(source.clone());
        let pieces = unpack::into_parcel(chunk, intake, &mut parcel, now_micros);
        // In this order: a chunk that the journal does not take comes again, and would be in quarantine twice.
        let taken = intake.take(&parcel, Beside::default(), now_micros)?;
        intake.put_away(source, &pieces, now_micros)?;
        let kept = Kept {
            events: taken.events,
            duplicates: taken.duplicates,
            quarantined: u64::try_from(pieces.len()).unwrap_or(u64::MAX),
        };
        Ok(Keeping { taken, kept })
    }

    /// Remembers that a file was imported whole; for when all its chunks are durable. What was kept is the
    /// chunks', of which this says nothing.
    ///
    /// # Errors
    ///
    /// [`NotKept`]; the file is then not remembered.
    pub fn finish(
        &self,
        source: &Source,
        identity: &ImportIdentity,
        now_micros: i64,
    ) -> Result<Keeping, NotKept> {
        let short = short(source, identity);
        // Across the append, so that the newest mark knows all files. Should the batch fail, a file is
        // remembered until the process ends, or by the next mark. It is whole, so that does no harm.
        let mut whole = self.whole();
        whole.retain(|known| *known != short);
        whole.push_back(short);
        while whole.len() > IDENTITIES {
            whole.pop_front();
        }
        let mark: Vec<u8> = whole.iter().flatten().copied().collect();
        let nothing = Parcel::new(source.clone());
        let taken = self
            .0
            .intake
            .take(&nothing, Beside::marks(&[(MARK, &mark)]), now_micros)?;
        Ok(Keeping {
            taken,
            kept: Kept::default(),
        })
    }

    fn whole(&self) -> MutexGuard<'_, VecDeque<Short>> {
        self.0.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same text is another import for another apiserver.
fn short(source: &Source, identity: &ImportIdentity) -> Short {
    let origin = source.origin();
    let mut hasher = blake3::Hasher::new();
    // Names have no slash.
    hasher.update(format!("{}/{}/{}/", origin.cluster, origin.instance, identity.length).as_bytes());
    hasher.update(&identity.hash);
    let mut short = Short::default();
    short.copy_from_slice(
        hasher
            .finalize()
            .as_bytes()
            .first_chunk::<IDENTITY_BYTES>()
            .unwrap_or(&[0; IDENTITY_BYTES]),
    );
    short
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kaudit_journal::{Journal, MARK_VALUE_BYTES, Options};

    use super::*;
    use crate::arrival::Keys;
    use crate::chunk::{Line, Torn, TornReason};
    use crate::intake::IntakeOptions;
    use crate::quarantine::Quarantine;

    fn importer(folder: &std::path::Path) -> Importer {
        let (journal, _) = Journal::open(&folder.join("journal"), Options::default()).unwrap();
        let quarantine = Quarantine::open(&folder.join("quarantine"), 1 << 20).unwrap();
        let options = IntakeOptions::default();
        Importer::new(Intake::new(journal, Keys::new([3; 32]), quarantine, options).unwrap())
    }

    fn identity(number: u64) -> ImportIdentity {
        ImportIdentity {
            hash: *blake3::hash(&number.to_le_bytes()).as_bytes(),
            length: number,
        }
    }

    fn wait(keeping: Keeping) -> Kept {
        keeping.taken.wait().unwrap();
        keeping.kept
    }

    #[test]
    fn the_newest_whole_files_are_remembered_beyond_a_restart() {
        const { assert!(IDENTITIES * IDENTITY_BYTES <= MARK_VALUE_BYTES) };
        let folder = tempfile::tempdir().unwrap();
        let names = || ("c".parse().unwrap(), "i".parse().unwrap());
        {
            let importer = importer(folder.path());
            let (cluster, instance) = names();
            let source = importer.source(cluster, instance).unwrap();
            let count = u64::try_from(IDENTITIES).unwrap() + 2;
            let finished: Vec<_> = (0..count)
                .map(|number| importer.finish(&source, &identity(number), 1).unwrap())
                .collect();
            for keeping in finished {
                assert_eq!(wait(keeping), Kept::default());
            }
            importer.0.intake.journal().close();
        }
        let importer = importer(folder.path());
        let (cluster, instance) = names();
        let source = importer.source(cluster.clone(), instance).unwrap();
        let other = importer.source(cluster, "j".parse().unwrap()).unwrap();
        for (number, is_known) in [(0, false), (1, false), (2, true), (1001, true), (1002, false)] {
            assert_eq!(importer.knows(&source, &identity(number)), is_known, "{number}");
            assert!(!importer.knows(&other, &identity(number)));
        }
    }

    #[test]
    fn a_chunk_that_comes_again_is_here_already() {
        let folder = tempfile::tempdir().unwrap();
        let importer = importer(folder.path());
        let source = importer
            .source("c".parse().unwrap(), "i".parse().unwrap())
            .unwrap();
        let line = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","stage":"Panic"}"#;
        let chunk = Chunk {
            buffer: Bytes::from(line),
            lines: vec![Line {
                start: 0,
                end: line.len(),
                end_offset: 200,
            }],
            torn: vec![Torn {
                bytes: Bytes::from_static(b"x"),
                offset: 0,
                reason: TornReason::NotObject,
            }],
            ..Chunk::default()
        };
        for (events, duplicates) in [(1, 0), (0, 1)] {
            let kept = wait(importer.keep(&source, &chunk, 1).unwrap());
            assert_eq!(
                kept,
                Kept {
                    events,
                    duplicates,
                    quarantined: 1
                }
            );
        }
    }
}
