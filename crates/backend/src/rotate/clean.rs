//! Rotated files: too many, too old, not compressed yet.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use tracing::warn;

use super::{Rotation, name_parts};

/// Cleans in a thread of its own; at most one request waits while one is served.
#[derive(Debug, Default)]
pub(super) struct Cleaner(Option<(SyncSender<Job>, JoinHandle<()>)>);

#[derive(Debug)]
struct Job {
    path: PathBuf,
    rotation: Rotation,
    now: SystemTime,
}

impl Cleaner {
    pub(super) fn trigger(&mut self, path: &Path, rotation: Rotation, now: SystemTime) {
        if self.0.is_none() {
            let (jobs, queue) = sync_channel::<Job>(1);
            let thread = std::thread::Builder::new().name("audit-log-clean".to_owned()).spawn(move || {
                for job in queue {
                    if let Err(error) = clean(&job.path, job.rotation, job.now) {
                        warn!(%error, path = %job.path.display(), "cleaning up rotated audit logs failed");
                    }
                }
            });
            match thread {
                Ok(thread) => self.0 = Some((jobs, thread)),
                Err(error) => {
                    warn!(%error, "cannot start the thread that cleans up rotated audit logs");
                    return;
                }
            }
        }
        if let Some((jobs, _)) = &self.0 {
            match jobs.try_send(Job {
                path: path.to_owned(),
                rotation,
                now,
            }) {
                // A job that waits does this one's work too.
                Ok(()) | Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Disconnected(_)) => self.0 = None,
            }
        }
    }

    /// Waits for the work that was asked for.
    pub(super) fn finish(&mut self) {
        if let Some((jobs, thread)) = self.0.take() {
            drop(jobs);
            if thread.join().is_err() {
                warn!("the thread that cleans up rotated audit logs panicked");
            }
        }
    }
}

/// A rotated file, compressed or not.
#[derive(Debug)]
struct Backup {
    path: PathBuf,
    /// The name without `.gz`, which both forms share.
    name: String,
    time: SystemTime,
    is_compressed: bool,
}

/// Source: lumberjack v2.2.1, millRunOnce.
pub(super) fn clean(path: &Path, rotation: Rotation, now: SystemTime) -> io::Result<()> {
    let mut kept = backups(path)?;
    if rotation.max_backups > 0 {
        let mut names: Vec<String> = Vec::new();
        kept = remove_where(kept, |backup| {
            if !names.contains(&backup.name) {
                names.push(backup.name.clone());
            }
            names.len() > rotation.max_backups
        })?;
    }
    if rotation.max_age_days > 0 {
        let oldest = now.checked_sub(Duration::from_hours(24 * rotation.max_age_days));
        kept = remove_where(kept, |backup| oldest.is_some_and(|oldest| backup.time < oldest))?;
    }
    if rotation.compress {
        for backup in kept.iter().filter(|backup| !backup.is_compressed) {
            compress(&backup.path)?;
        }
    }
    Ok(())
}

fn remove_where(
    backups: Vec<Backup>,
    mut is_removed: impl FnMut(&Backup) -> bool,
) -> io::Result<Vec<Backup>> {
    let mut kept = Vec::with_capacity(backups.len());
    for backup in backups {
        if is_removed(&backup) {
            fs::remove_file(&backup.path)?;
        } else {
            kept.push(backup);
        }
    }
    Ok(kept)
}

/// Newest first, by the time in the name.
fn backups(path: &Path) -> io::Result<Vec<Backup>> {
    let (prefix, extension) = name_parts(path);
    let (prefix, extension) = (prefix.to_string_lossy(), extension.to_string_lossy());
    let directory = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut backups = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(file_name) = entry.file_name().into_string() else {
            continue;
        };
        let (name, is_compressed) = match file_name.strip_suffix(".gz") {
            Some(name) => (name.to_owned(), true),
            None => (file_name, false),
        };
        let time = name
            .strip_prefix(&*prefix)
            .and_then(|rest| rest.strip_suffix(&*extension))
            .and_then(parse_timestamp);
        if let Some(time) = time {
            backups.push(Backup {
                path: entry.path(),
                name,
                time,
                is_compressed,
            });
        }
    }
    backups.sort_by_key(|backup| std::cmp::Reverse(backup.time));
    Ok(backups)
}

/// Writes `<name>.gz` with the same mode and owner and removes the original; what fails leaves no `.gz`.
fn compress(path: &Path) -> io::Result<()> {
    let mut compressed = path.as_os_str().to_owned();
    compressed.push(".gz");
    let compressed = PathBuf::from(compressed);
    let outcome = compress_to(path, &compressed);
    if outcome.is_err() {
        // The original stays; half an archive would only be in the way.
        drop(fs::remove_file(&compressed));
    }
    outcome
}

fn compress_to(path: &Path, compressed: &Path) -> io::Result<()> {
    let mut source = File::open(path)?;
    let there = source.metadata()?;
    let mode = there.permissions().mode() & 0o7777;
    let target = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(mode)
        .open(compressed)?;
    std::os::unix::fs::fchown(&target, Some(there.uid()), Some(there.gid()))?;
    let mut encoder = GzEncoder::new(target, Compression::default());
    io::copy(&mut source, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::remove_file(path)
}

/// `2006-01-02T15-04-05.000`, UTC.
pub(super) fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}-{:02}-{:02}.{:03}",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_millis()
    )
}

/// The inverse of [`timestamp`].
fn parse_timestamp(text: &str) -> Option<SystemTime> {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse::<u64>().ok())?
    };
    let separators = [(4, "-"), (7, "-"), (10, "T"), (13, "-"), (16, "-"), (19, ".")];
    if text.len() != 23
        || separators
            .iter()
            .any(|(at, mark)| text.get(*at..at + 1) != Some(mark))
    {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second, millis) = (number(11..13)?, number(14..16)?, number(17..19)?, number(20..23)?);
    if !(1970..=9999).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let seconds = days_before(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_millis(seconds * 1000 + millis))
}

/// Year, month and day of a day since 1970, counted in years that begin on 1 March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

fn days_before(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let year_of_era = year % 400;
    year / 400 * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_a_name_is_read_back() {
        for seconds in [0, 951_782_400, 1_700_000_000, 1_784_818_071, 4_102_444_799] {
            let time = UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7);
            assert_eq!(parse_timestamp(&timestamp(time)), Some(time));
        }
        assert_eq!(
            timestamp(UNIX_EPOCH + Duration::from_millis(1_784_818_071_123)),
            "2026-07-23T14-47-51.123"
        );
        assert_eq!(parse_timestamp("2026-07-23T14-47-51"), None);
        assert_eq!(parse_timestamp("2026-13-23T14-47-51.123"), None);
    }
}
