//! Rotation on real files.

use std::os::unix::fs::PermissionsExt;
use std::time::UNIX_EPOCH;

use super::*;

fn clock() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_784_818_071_123)
}

fn open(dir: &Path, rotation: Rotation) -> RotatingFile {
    RotatingFile::open_with_clock(&dir.join("logs/audit.log"), rotation, clock).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.join("logs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

const BACKUP: &str = "audit-2026-07-23T14-47-51.123.log";

fn one_megabyte() -> Rotation {
    Rotation {
        max_size_megabytes: 1,
        ..Rotation::default()
    }
}

#[test]
fn the_file_is_0600_and_its_directory_0700() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), Rotation::default()).write_line(b"x\n").unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(dir.path().join("logs/audit.log")), 0o600);
    assert_eq!(mode(dir.path().join("logs")), 0o700);
}

#[test]
fn a_file_at_its_maximum_is_rotated_by_the_next_line_and_keeps_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = open(dir.path(), one_megabyte());
    let half = vec![b'x'; 1 << 19];
    file.write_line(&half).unwrap();
    fs::set_permissions(
        dir.path().join("logs/audit.log"),
        fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    file.write_line(&half).unwrap();
    assert_eq!(names(dir.path()), ["audit.log"], "exactly full is not over");
    file.write_line(b"y\n").unwrap();
    assert_eq!(names(dir.path()), [BACKUP, "audit.log"]);
    assert_eq!(
        fs::metadata(dir.path().join("logs/audit.log"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o640
    );
    assert_eq!(fs::read(dir.path().join("logs/audit.log")).unwrap(), b"y\n");
}

#[test]
fn an_existing_file_that_the_first_line_would_fill_is_rotated_at_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("logs")).unwrap();
    fs::write(dir.path().join("logs/audit.log"), vec![b'x'; (1 << 20) - 2]).unwrap();
    open(dir.path(), one_megabyte()).write_line(b"y\n").unwrap();
    assert_eq!(names(dir.path()), [BACKUP, "audit.log"]);
}

#[test]
fn a_line_larger_than_a_file_is_refused_in_upstreams_words() {
    let dir = tempfile::tempdir().unwrap();
    let error = open(dir.path(), one_megabyte())
        .write_line(&vec![b'x'; (1 << 20) + 1])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "write length 1048577 exceeds maximum file size 1048576"
    );
}

#[test]
fn size_zero_never_rotates() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = open(dir.path(), Rotation::default());
    file.write_line(&vec![b'x'; 3 << 20]).unwrap();
    file.write_line(b"y\n").unwrap();
    assert_eq!(names(dir.path()), ["audit.log"]);
}

#[test]
fn the_newest_backups_are_kept_and_both_forms_of_one_count_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("logs")).unwrap();
    for name in [
        "audit-2026-07-20T00-00-00.000.log",
        "audit-2026-07-21T00-00-00.000.log.gz",
        "audit-2026-07-22T00-00-00.000.log",
        "audit-2026-07-22T00-00-00.000.log.gz",
        "audit-not-a-time.log",
        "other-2026-07-20T00-00-00.000.log",
    ] {
        fs::write(dir.path().join("logs").join(name), "x").unwrap();
    }
    let rotation = Rotation {
        max_backups: 2,
        ..Rotation::default()
    };
    clean::clean(&dir.path().join("logs/audit.log"), rotation, clock()).unwrap();
    assert_eq!(
        names(dir.path()),
        [
            "audit-2026-07-21T00-00-00.000.log.gz",
            "audit-2026-07-22T00-00-00.000.log",
            "audit-2026-07-22T00-00-00.000.log.gz",
            "audit-not-a-time.log",
            "other-2026-07-20T00-00-00.000.log",
        ]
    );
}

#[test]
fn old_backups_go_and_the_rest_is_compressed() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("logs")).unwrap();
    fs::write(dir.path().join("logs/audit-2026-07-20T00-00-00.000.log"), "old").unwrap();
    fs::write(dir.path().join("logs/audit-2026-07-23T00-00-00.000.log"), "new").unwrap();
    let rotation = Rotation {
        max_age_days: 2,
        compress: true,
        ..Rotation::default()
    };
    clean::clean(&dir.path().join("logs/audit.log"), rotation, clock()).unwrap();
    assert_eq!(names(dir.path()), ["audit-2026-07-23T00-00-00.000.log.gz"]);
    let mut text = String::new();
    let file = File::open(dir.path().join("logs/audit-2026-07-23T00-00-00.000.log.gz")).unwrap();
    io::Read::read_to_string(&mut flate2::read::GzDecoder::new(file), &mut text).unwrap();
    assert_eq!(text, "new");
}

#[test]
fn a_file_that_somebody_moved_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = open(dir.path(), Rotation::default());
    file.write_line(b"1\n").unwrap();
    fs::rename(dir.path().join("logs/audit.log"), dir.path().join("logs/moved")).unwrap();
    let active = file.active.as_mut().unwrap();
    active.checked = active.checked.checked_sub(CHECK_INTERVAL).unwrap();
    file.write_line(b"2\n").unwrap();
    assert_eq!(fs::read(dir.path().join("logs/audit.log")).unwrap(), b"2\n");
    assert_eq!(fs::read(dir.path().join("logs/moved")).unwrap(), b"1\n");
}

#[test]
fn a_torn_line_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = open(dir.path(), Rotation::default());
    file.write_line(b"whole\n").unwrap();
    let active = file.active.as_mut().unwrap();
    active.file.write_all(b"to").unwrap();
    active.cut_torn_line();
    file.write_line(b"next\n").unwrap();
    assert_eq!(
        fs::read(dir.path().join("logs/audit.log")).unwrap(),
        b"whole\nnext\n"
    );
}

#[test]
fn a_full_disk_is_an_error_and_not_the_end() {
    let mut file = RotatingFile::open_with_clock(Path::new("/dev/full"), Rotation::default(), clock).unwrap();
    for _ in 0..2 {
        let error = file.write_line(b"x\n").unwrap_err();
        assert!(matches!(error, RotationError::Io(error) if error.kind() == io::ErrorKind::StorageFull));
    }
}
