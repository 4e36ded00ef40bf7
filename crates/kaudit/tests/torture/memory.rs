//! More than it can take: the memory of the process stays bounded.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use kaudit_dial::Upstream;
use tokio::task::JoinSet;

use crate::events;
use crate::mount::{Mount, fill};
use crate::oracle;
use crate::place::{self, Place, Setting, post};
use crate::scale::{Random, count, is_long, report};

/// The resident memory may never have been more.
const CEILING: u64 = 512 << 20;

/// Posts of each connection.
const POSTS: u64 = 4;

/// Items of a post of a megabyte.
const ITEMS: u64 = 10;

/// Between two bytes of a sender that drips.
const DRIP: Duration = Duration::from_millis(100);

/// Ten events of a hundred kilobytes; their auditIDs begin with `id`.
fn megabyte(id: &str) -> Bytes {
    let padding = "x".repeat(100_000);
    let items: Vec<String> = (0..ITEMS)
        .map(|item| {
            format!(
                "{{\"level\":\"Request\",\"auditID\":\"{id}-{item}\",\"stage\":\"ResponseComplete\",\"requestURI\":\"/api\",\
                 \"verb\":\"create\",\"user\":{{\"username\":\"alice\"}},\"requestObject\":{{\"data\":\"{padding}\"}},\
                 \"requestReceivedTimestamp\":\"2026-01-02T03:04:05.000006Z\",\
                 \"stageTimestamp\":\"2026-01-02T03:04:05.000007Z\"}}"
            )
        })
        .collect();
    Bytes::from(events::list_of(&items))
}

/// A megabyte but for its end, which comes byte by byte and would take hours.
async fn drip(sender: Upstream, id: String) -> Option<u16> {
    let whole = megabyte(&id);
    let (most, rest) = whole.split_at(whole.len() - 50_000);
    let (most, rest) = (Bytes::copy_from_slice(most), Bytes::copy_from_slice(rest));
    let pieces = futures_util::stream::unfold(Some((most, rest)), |state| async move {
        let (piece, mut rest) = state?;
        if piece.len() == 1 {
            tokio::time::sleep(DRIP).await;
        }
        let next = (!rest.is_empty()).then(|| (rest.split_to(1), rest));
        Some((Ok::<_, Infallible>(Frame::data(piece)), next))
    });
    let request = Request::post("/v1/audit/c/drip")
        .header("content-type", "application/json")
        .body(
            StreamBody::new(pieces)
                .map_err(|never| match never {})
                .boxed_unsync(),
        );
    let response = sender.send(request.unwrap()).await.ok()?;
    Some(response.status().as_u16())
}

#[test]
fn under_more_load_than_it_can_take_memory_stays_bounded() {
    let connections = count("KAUDIT_TORTURE_CONNECTIONS", 40, 200);
    let mut random = Random::of_test("memory");
    let folder = tempfile::tempdir().unwrap();
    // With a disk of its own it is full half of the time.
    let disk = Mount::memory(&folder.path().join("disk"), 1 << 30);
    let data = disk
        .as_ref()
        .map_or_else(|| folder.path().join("data"), |disk| disk.at.join("data"));
    let place = Place::with_data(
        folder,
        data,
        &Setting {
            journal: "2Gi",
            min_free: "1Mi",
            ..Setting::default()
        },
    );
    let process = place.start();
    let before = process.memory().0;
    let acked = Arc::new(Mutex::new(BTreeSet::new()));
    let refused = Arc::new(AtomicU64::new(0));
    let broken = Arc::new(AtomicU64::new(0));
    let dripped = place::runtime().block_on(async {
        let mut senders = JoinSet::new();
        for connection in 0..connections {
            let sender = place.sender(process.collector);
            let (acked, refused, broken) = (Arc::clone(&acked), Arc::clone(&refused), Arc::clone(&broken));
            senders.spawn(async move {
                for number in 0..POSTS {
                    let id = format!("{connection}-{number}");
                    let list = megabyte(&id);
                    loop {
                        // Over HTTP/1.1 an answer that comes before the end of the body may be lost with the
                        // connection.
                        let told = post(&sender, "c", list.clone()).await;
                        match told.map(|told| told.status) {
                            Some(200) => break,
                            Some(429) => refused.fetch_add(1, Ordering::Relaxed),
                            None => broken.fetch_add(1, Ordering::Relaxed),
                            other => panic!("an answer of {other:?}"),
                        };
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    acked.lock().unwrap().insert(id);
                }
            });
        }
        let mut drippers = JoinSet::new();
        for connection in 0..connections {
            drippers.spawn(drip(
                place.sender(process.collector),
                format!("drip-{connection}"),
            ));
        }
        if let Some(disk) = &disk {
            let ballast = disk.at.join("ballast");
            let filled = ballast.clone();
            tokio::task::spawn_blocking(move || fill(&filled)).await.unwrap();
            // Until everybody was turned away once.
            let before = refused.load(Ordering::Relaxed);
            while refused.load(Ordering::Relaxed) < before + connections && !senders.is_empty() {
                tokio::time::sleep(Duration::from_millis(50 + random.below(50))).await;
                while senders.try_join_next().is_some_and(|ended| ended.is_ok()) {}
            }
            std::fs::remove_file(ballast).unwrap();
        }
        while let Some(ended) = senders.join_next().await {
            ended.unwrap();
        }
        let mut dripped = 0;
        if !is_long() {
            // They would be turned away after 25 s.
            return connections - u64::try_from(drippers.len()).unwrap();
        }
        while let Some(ended) = drippers.join_next().await {
            let status = ended.unwrap();
            assert!(
                matches!(status, None | Some(408 | 429)),
                "a sender that drips was told {status:?}"
            );
            dripped += 1;
        }
        dripped
    });
    let (after, most) = process.memory();
    assert!(most < CEILING, "{most} bytes were resident");
    process.stop();
    let mut stored = BTreeSet::new();
    oracle::read(&place.data, |record| {
        let event: serde_json::Value = serde_json::from_slice(&record.event).unwrap();
        let id = event["auditID"].as_str().unwrap().to_owned();
        assert!(stored.insert(id.clone()), "{id} is there twice");
    });
    for id in acked.lock().unwrap().iter() {
        for item in 0..ITEMS {
            assert!(stored.contains(&format!("{id}-{item}")), "{id}-{item} is lost");
        }
    }
    let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
    report(
        "memory",
        "connections with 1 MB posts, and dripping ones",
        format!("{connections}, {connections}"),
    );
    report("memory", "dripping ones that were turned away", dripped);
    report(
        "memory",
        "posts told 429, broken",
        format!(
            "{}, {}",
            refused.load(Ordering::Relaxed),
            broken.load(Ordering::Relaxed)
        ),
    );
    report(
        "memory",
        "resident at start, at most, at the end",
        format!("{}, {}, {}", mebibytes(before), mebibytes(most), mebibytes(after)),
    );
}
