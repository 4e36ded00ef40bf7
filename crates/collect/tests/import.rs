//! One-off files: formats by content, limits, identities.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use kaudit_collect::{
    Form, ImportConfig, ImportError, ImportFile, ImportIdentity, InflateError, Limits, TornReason,
};

struct Imported {
    lines: Vec<String>,
    torn: Vec<(u64, TornReason)>,
    forms: Vec<Form>,
    identity: ImportIdentity,
}

fn import(text: &[u8], config: &ImportConfig) -> Result<Imported, (Vec<String>, ImportError)> {
    let mut import =
        ImportFile::from_reader(std::io::Cursor::new(text.to_vec()), "-", config.clone()).unwrap();
    let (mut lines, mut torn, mut forms) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        match import.next_chunk() {
            Ok(Some(chunk)) => {
                lines.extend(
                    chunk
                        .texts()
                        .map(|line| String::from_utf8_lossy(line).into_owned()),
                );
                torn.extend(chunk.torn.iter().map(|torn| (torn.offset, torn.reason)));
                forms.push(chunk.form);
            }
            Ok(None) => break,
            Err(error) => {
                assert!(import.next_chunk().unwrap().is_none(), "reading ended");
                return Err((lines, error));
            }
        }
    }
    Ok(Imported {
        lines,
        torn,
        forms,
        identity: import.identity().unwrap(),
    })
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn event(number: usize) -> String {
    format!("{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"auditID\":\"{number}\"}}")
}

#[test]
fn the_format_is_told_by_the_content() {
    let config = ImportConfig::default();
    let events: Vec<String> = (0..4).map(event).collect();
    let lines = events.join("\n");
    let list = format!("{{\"kind\":\"EventList\",\"items\":[{}]}}", events.join(","));
    let pretty = list.replace('{', "{\n  ").replace(',', ",\n ").replace(':', ": ");
    let container: String = events
        .iter()
        .map(|event| {
            let (first, second) = event.split_at(20);
            format!("2026-01-02T03:04:05Z stdout P {first}\n2026-01-02T03:04:05Z stdout F {second}\n")
        })
        .collect();
    let table = [
        ("lines", lines.clone().into_bytes(), vec![Form::Lines]),
        (
            "gzip",
            [gzip(&lines.as_bytes()[..100]), gzip(&lines.as_bytes()[100..])].concat(),
            vec![Form::Lines],
        ),
        (
            "zstd",
            zstd::encode_all(lines.as_bytes(), 3).unwrap(),
            vec![Form::Lines],
        ),
        ("list", list.clone().into_bytes(), vec![Form::Items]),
        ("pretty list", pretty.into_bytes(), vec![Form::Items]),
        (
            "zipped list",
            gzip(format!("{list}\n").as_bytes()),
            vec![Form::Items],
        ),
        ("container", container.into_bytes(), vec![Form::Lines]),
    ];
    for (name, text, forms) in table {
        let imported = import(&text, &config).unwrap_or_else(|(_, error)| panic!("{name}: {error}"));
        assert_eq!(imported.lines, events, "{name}");
        let mut found = imported.forms;
        found.dedup();
        assert_eq!((imported.torn, found), (vec![], forms), "{name}");
    }
    let twice = import(format!("{list}\n{list}{lines}").as_bytes(), &config)
        .ok()
        .unwrap();
    assert_eq!(twice.lines.len(), 12);
    assert_eq!(twice.forms.last(), Some(&Form::Lines));
    assert!(import(b"", &config).ok().unwrap().lines.is_empty());
    assert_eq!(
        import(b"no json\n", &config).ok().unwrap().torn,
        [(0, TornReason::NotObject)]
    );
}

#[test]
fn a_large_list_is_streamed_in_small_chunks() {
    let events: Vec<String> = (0..20_000).map(event).collect();
    let list = format!("{{\"kind\":\"EventList\",\"items\":[{}]}}", events.join(",\n"));
    let config = ImportConfig {
        max_chunk_bytes: 1000,
        ..ImportConfig::default()
    };
    let imported = import(list.as_bytes(), &config).ok().unwrap();
    assert_eq!(imported.lines, events);
    assert!(imported.forms.len() > 1000);
}

#[test]
fn the_same_text_is_known_again_whatever_it_is_packed_in() {
    let config = ImportConfig::default();
    let text = (0..100).map(event).collect::<Vec<_>>().join("\n");
    let plain = import(text.as_bytes(), &config).ok().unwrap().identity;
    assert_eq!(
        import(&gzip(text.as_bytes()), &config).ok().unwrap().identity,
        plain
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events");
    fs::write(&path, zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
    assert_eq!(ImportFile::identify(&path, config).unwrap(), plain);
    assert_eq!(
        (plain.length, plain.hash),
        (text.len() as u64, *blake3::hash(text.as_bytes()).as_bytes())
    );
}

#[test]
fn what_came_before_the_damage_is_handed_over() {
    let config = ImportConfig::default();
    let text = (0..50_000).map(event).collect::<Vec<_>>().join("\n");
    let archive = gzip(text.as_bytes());
    let Err((lines, error)) = import(&archive[..archive.len() / 2], &config) else {
        panic!("it is cut");
    };
    assert!(lines.len() > 10_000);
    assert!(matches!(
        error,
        ImportError::Inflate {
            source: InflateError::Incomplete,
            ..
        }
    ));
    let bomb = gzip(&vec![b' '; 10 << 20]);
    let strict = ImportConfig {
        limits: Limits::body(u64::MAX),
        ..config
    };
    let Err((_, error)) = import(&bomb, &strict) else {
        panic!("it grows too much");
    };
    assert!(matches!(
        error,
        ImportError::Inflate {
            source: InflateError::Ratio { .. },
            ..
        }
    ));
}

#[test]
fn only_regular_files_are_opened_and_links_are_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events");
    fs::write(&path, event(1)).unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let mut import = ImportFile::open(&link, ImportConfig::default()).unwrap();
    assert_eq!(import.next_chunk().unwrap().unwrap().lines.len(), 1);
    for path in [directory.path(), std::path::Path::new("/dev/zero")] {
        let error = ImportFile::open(path, ImportConfig::default()).unwrap_err();
        assert!(matches!(error, ImportError::NotRegular { .. }), "{error}");
    }
    let error = ImportFile::open(&directory.path().join("none"), ImportConfig::default()).unwrap_err();
    assert!(matches!(error, ImportError::Io { .. }));
}
