//! Log files as they grow, over every rotation.

mod input;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use kaudit_collect::{Chunk, Poll, SourceState, Start, Tail, TailConfig};

use super::files::{is_archive, refuse_a_filter, unreadable};
use super::found::{Found, Whence};
use super::scan::{Fold, Question};
use crate::collection;
use crate::exit::Failure;

pub(crate) use input::follow_input;

/// Files that are not there yet are looked for again after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A rotation leaves the log's name to nobody for a moment; what lasts longer is told.
const TOLD_AFTER: Duration = Duration::from_secs(2);

/// Files that are followed.
#[derive(Debug)]
pub(crate) struct Following {
    files: Vec<Followed>,
    lines: u64,
    has_gaps: bool,
}

#[derive(Debug)]
struct Followed {
    path: PathBuf,
    whence: Arc<Whence>,
    tail: Tail,
    trouble: Option<Trouble>,
    has_strays: bool,
}

/// What hinders, and since when.
#[derive(Debug)]
struct Trouble {
    text: String,
    since: SystemTime,
    is_told: bool,
}

/// Whether a fold has enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    More,
    Nothing,
}

impl Following {
    /// Looks for the files: logs, directories, which stand for their `*.log`, and patterns. What `start` leaves out is
    /// never read.
    ///
    /// # Errors
    ///
    /// A path that cannot be meant, or a file that may not be read. One that is not there is waited for.
    pub(crate) fn open(paths: &[PathBuf], start: Start, now: SystemTime) -> Result<Self, Failure> {
        let files = paths.iter().map(|path| Followed::open(path, start, now));
        Ok(Self {
            files: files.collect::<Result<_, _>>()?,
            lines: 0,
            has_gaps: false,
        })
    }

    /// Shows `fold` what is new, until nothing is or the fold has enough. Files take turns, so that none waits for a
    /// busy one to be quiet. What a person should know besides goes to `tell`.
    pub(crate) fn read<F: Fold>(
        &mut self,
        question: &Question,
        fold: &mut F,
        now: impl Fn() -> SystemTime,
        tell: &mut dyn FnMut(std::fmt::Arguments<'_>),
    ) -> Wants {
        let mut is_quiet = false;
        while !is_quiet {
            is_quiet = true;
            for followed in &mut self.files {
                let now = now();
                let Poll::Chunk(chunk) = followed.tail.poll(now) else {
                    followed.look_for_trouble(now, tell);
                    continue;
                };
                is_quiet = false;
                self.has_gaps |= !chunk.gaps.is_empty();
                followed.show(&chunk, &mut self.lines, question, fold, tell);
                if !fold.end_of_block(self.lines) {
                    return Wants::Nothing;
                }
            }
        }
        Wants::More
    }

    /// Whether something was gone before it could be read.
    pub(crate) const fn has_gaps(&self) -> bool {
        self.has_gaps
    }
}

impl Followed {
    fn open(path: &Path, start: Start, now: SystemTime) -> Result<Self, Failure> {
        let text = path.to_string_lossy();
        refuse_a_filter(path)?;
        if is_archive(path) {
            return Err(Failure::usage(anyhow!(
                "{text}: a compressed file does not grow\n  help: `kaudit query --from {text}` reads it"
            )));
        }
        let config = TailConfig {
            start,
            stale_after: Duration::MAX,
            rescan_every: LOOK_AGAIN,
            ..TailConfig::new(text.as_ref())
        };
        let tail = Tail::open(config, None, now)
            .with_context(|| format!("{text}: cannot be followed"))
            .map_err(Failure::usage)?;
        let denied = tail
            .status()
            .sources
            .into_iter()
            .find_map(|source| match source.state {
                SourceState::PermissionDenied { path } => Some(path),
                _ => None,
            });
        if let Some(denied) = denied {
            return Err(unreadable(&denied, std::io::ErrorKind::PermissionDenied.into()));
        }
        let mut followed = Self {
            path: path.to_owned(),
            whence: Arc::new(Whence::default()),
            tail,
            trouble: None,
            has_strays: false,
        };
        // What is so from the beginning is told at once.
        followed.trouble = followed.trouble_now().map(|text| Trouble {
            text,
            since: now.checked_sub(TOLD_AFTER).unwrap_or(now),
            is_told: false,
        });
        Ok(followed)
    }

    fn show<F: Fold>(
        &mut self,
        chunk: &Chunk,
        lines: &mut u64,
        question: &Question,
        fold: &mut F,
        tell: &mut dyn FnMut(std::fmt::Arguments<'_>),
    ) {
        for gap in &chunk.gaps {
            tell(format_args!(
                "note: events are missing: {} at byte {}: {}",
                gap.file, gap.offset, gap.reason
            ));
        }
        if self.whence.source.as_deref() != Some(chunk.file.path.as_str()) {
            self.whence = Arc::new(Whence::file(chunk.file.path.clone()));
        }
        let mut strays = chunk.torn.len() + chunk.oversized.len();
        for line in chunk.texts() {
            *lines += 1;
            strays += usize::from(ask(question, line, &self.whence, *lines, fold) == Line::Stray);
        }
        if strays > 0 && !self.has_strays {
            self.has_strays = true;
            tell(format_args!(
                "note: {}: lines or pieces that are no audit events are left out",
                chunk.file.path
            ));
        }
    }

    fn trouble_now(&self) -> Option<String> {
        let status = self.tail.status();
        let there_is_none = || {
            let is_none = status.sources.is_empty();
            is_none.then(|| format!("there is no file at {} yet", self.path.display()))
        };
        status
            .problem
            .clone()
            .or_else(|| status.sources.iter().find_map(collection::file_problem))
            .or_else(there_is_none)
    }

    fn look_for_trouble(&mut self, now: SystemTime, tell: &mut dyn FnMut(std::fmt::Arguments<'_>)) {
        let Some(text) = self.trouble_now() else {
            self.trouble = None;
            return;
        };
        let mut trouble = match self.trouble.take() {
            Some(trouble) if trouble.text == text => trouble,
            _ => Trouble {
                text,
                since: now,
                is_told: false,
            },
        };
        if !trouble.is_told && now >= trouble.since + TOLD_AFTER {
            trouble.is_told = true;
            tell(format_args!("note: {}; waiting", trouble.text));
        }
        self.trouble = Some(trouble);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Event,
    /// It is no event.
    Stray,
}

/// Shows a line to `fold` if it is meant.
fn ask<F: Fold>(question: &Question, line: &[u8], whence: &Arc<Whence>, number: u64, fold: &mut F) -> Line {
    match question.ask(line, whence, number) {
        Some((true, decoded)) => fold.found(Found {
            line,
            whence,
            number,
            decoded,
        }),
        Some((false, _)) => {}
        None => return Line::Stray,
    }
    Line::Event
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use kaudit_query::Filter;

    use super::*;

    const BEGIN: SystemTime = SystemTime::UNIX_EPOCH;

    pub(super) fn line(id: &str) -> String {
        format!(
            "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\"auditID\":\"{id}\",\
             \"stage\":\"ResponseComplete\",\"requestURI\":\"/\",\"verb\":\"get\",\"user\":{{\"username\":\"alice\"}},\
             \"requestReceivedTimestamp\":\"2026-01-02T03:04:05.000000Z\",\
             \"stageTimestamp\":\"2026-01-02T03:04:05.000000Z\"}}\n"
        )
    }

    fn append(path: &Path, text: &str) {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    pub(super) fn all() -> Question {
        Question::new(Filter::everything())
    }

    /// Keeps auditIDs, so many at most.
    #[derive(Debug)]
    pub(super) struct Ids(pub(super) Vec<String>, usize);

    impl Ids {
        pub(super) fn new() -> Self {
            Self(Vec::new(), usize::MAX)
        }
    }

    impl Fold for Ids {
        fn found(&mut self, found: Found<'_>) {
            if self.0.len() < self.1 {
                let hit = found.keep().unwrap();
                self.0
                    .push(String::from_utf8(hit.event.view().audit_id().into_owned()).unwrap());
            }
        }

        fn end_of_block(&mut self, _: u64) -> bool {
            self.0.len() < self.1
        }
    }

    /// What is new `seconds` after the beginning, and what is told.
    fn read(following: &mut Following, seconds: u64, ids: &mut Ids) -> (Wants, Vec<String>) {
        let mut told = Vec::new();
        let now = BEGIN + Duration::from_secs(seconds);
        let wants = following.read(&all(), ids, || now, &mut |text| told.push(text.to_string()));
        (wants, told)
    }

    #[test]
    fn what_comes_is_shown_once_over_rotation_and_compression() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.log");
        append(&log, &line("old"));
        let mut following = Following::open(&[folder.path().to_owned()], Start::End, BEGIN).unwrap();
        let mut ids = Ids::new();
        assert_eq!(read(&mut following, 0, &mut ids), (Wants::More, vec![]));
        append(&log, &(line("1") + &line("2")));
        assert_eq!(read(&mut following, 1, &mut ids), (Wants::More, vec![]));
        append(&log, &line("3"));
        let backup = folder.path().join("audit-2026-01-02T03-04-05.006.log");
        fs::rename(&log, &backup).unwrap();
        append(&log, &line("4"));
        assert_eq!(read(&mut following, 2, &mut ids), (Wants::More, vec![]));
        let archive = fs::File::create(backup.with_extension("log.gz")).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(archive, flate2::Compression::fast());
        gzip.write_all(&fs::read(&backup).unwrap()).unwrap();
        gzip.finish().unwrap();
        fs::remove_file(&backup).unwrap();
        append(&log, &line("5"));
        assert_eq!(read(&mut following, 3, &mut ids), (Wants::More, vec![]));
        assert_eq!(ids.0, ["1", "2", "3", "4", "5"]);
        assert!(!following.has_gaps());
    }

    #[test]
    fn what_is_there_already_is_shown_if_it_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.log");
        append(
            &folder.path().join("audit-2026-01-02T03-04-05.006.log"),
            &line("1"),
        );
        append(&log, &(line("2") + "no event\n" + &line("3")));
        let mut following = Following::open(&[log], Start::Beginning, BEGIN).unwrap();
        let mut ids = Ids::new();
        let (_, told) = read(&mut following, 0, &mut ids);
        assert_eq!(ids.0, ["1", "2", "3"]);
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("no audit events"), "{told:?}");
    }

    #[test]
    fn a_file_that_is_not_there_is_told_of_at_once_and_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.log");
        let mut following = Following::open(std::slice::from_ref(&log), Start::End, BEGIN).unwrap();
        let mut ids = Ids::new();
        let (_, told) = read(&mut following, 0, &mut ids);
        assert_eq!(
            told,
            [format!(
                "note: there is no file at {} yet; waiting",
                log.display()
            )]
        );
        assert_eq!(read(&mut following, 5, &mut ids).1, [""; 0], "and not told again");
        append(&log, &line("1"));
        assert_eq!(read(&mut following, 10, &mut ids).1, [""; 0]);
        assert_eq!(ids.0, ["1"]);
    }

    #[test]
    fn a_name_that_a_rotation_leaves_for_a_moment_is_not_told_of_and_for_longer_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.log");
        append(&log, &line("1"));
        let mut following = Following::open(std::slice::from_ref(&log), Start::Beginning, BEGIN).unwrap();
        let mut ids = Ids::new();
        read(&mut following, 0, &mut ids);
        fs::rename(&log, folder.path().join("audit.log.1")).unwrap();
        assert_eq!(read(&mut following, 10, &mut ids).1, [""; 0]);
        assert_eq!(read(&mut following, 11, &mut ids).1, [""; 0]);
        let (_, told) = read(&mut following, 12, &mut ids);
        assert_eq!(
            told,
            [format!(
                "note: there is no file at {} any more; waiting",
                log.display()
            )]
        );
        append(&log, &line("2"));
        assert_eq!(read(&mut following, 13, &mut ids).1, [""; 0]);
        assert_eq!(ids.0, ["1", "2"]);
    }

    #[test]
    fn a_busy_file_does_not_keep_another_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let (busy, other) = (folder.path().join("busy.log"), folder.path().join("other.log"));
        // Several times what is read at once.
        append(&busy, &line("busy").repeat(12_000));
        append(&other, &line("other"));
        let mut following = Following::open(&[busy, other], Start::Beginning, BEGIN).unwrap();
        let mut ids = Ids::new();
        read(&mut following, 0, &mut ids);
        assert_eq!(ids.0.len(), 12_001);
        assert_ne!(ids.0.last().unwrap(), "other");
    }

    #[test]
    fn nothing_is_read_any_more_when_the_fold_has_enough() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.log");
        append(&log, &(line("1") + &line("2")));
        let mut following = Following::open(&[log], Start::Beginning, BEGIN).unwrap();
        let mut ids = Ids(Vec::new(), 1);
        assert_eq!(read(&mut following, 0, &mut ids).0, Wants::Nothing);
        assert_eq!(ids.0, ["1"]);
    }

    #[test]
    fn what_cannot_grow_and_what_is_a_filter_are_refused() {
        for (path, help) in [
            ("audit-1.log.gz", "kaudit query --from audit-1.log.gz"),
            ("verb: delete", "stands before --from"),
        ] {
            let refused = Following::open(&[PathBuf::from(path)], Start::End, BEGIN).unwrap_err();
            assert!(format!("{refused}").contains(help), "{refused}");
        }
    }
}
