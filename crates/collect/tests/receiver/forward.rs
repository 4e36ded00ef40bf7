//! Two kaudits, one of which forwards to the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kaudit_collect::{
    About, Access, Arrival, Beside, Forward, ForwardOptions, ForwardState, ForwardStatus, Intake, Parcel, Way,
};
use kaudit_event::record::{Record, Transport};
use kaudit_journal::filesystem::simulated::{Fault, SimulatedDisk};
use kaudit_journal::{Hold, Journal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::world::{
    Central, Plan, TOKEN, certificate, grant, intake, item, journal_options, line, origin, padded, post,
    records, until,
};

/// A kaudit that forwards.
struct Edge {
    disk: SimulatedDisk,
    intake: Intake,
    folder: tempfile::TempDir,
    running: Option<Running>,
}

struct Running {
    forward: Forward,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Edge {
    fn new() -> Self {
        Self::on(SimulatedDisk::new(5))
    }

    fn on(disk: SimulatedDisk) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            intake: intake(&disk, journal_options(), folder.path()),
            disk,
            folder,
            running: None,
        }
    }

    /// Events of two apiservers, which came two ways.
    async fn take(&self, numbers: std::ops::Range<usize>) {
        for number in numbers.clone() {
            let (instance, way, path) = match number % 3 {
                0 => ("cp-1", Way::Webhook, ""),
                1 => ("cp-1", Way::File, "/var/log/audit.log"),
                _ => ("cp-2", Way::Webhook, ""),
            };
            let text = line(&item(number));
            self.take_line(instance, way, path, &text, 1000 + i64::try_from(number).unwrap());
        }
        self.durable().await;
    }

    fn take_line(&self, instance: &str, way: Way, path: &str, text: &str, received_micros: i64) {
        let source = self.intake.source(&origin("prod", instance, way, path)).unwrap();
        let mut parcel = Parcel::new(source);
        let arrival = Arrival::of_line(text.as_bytes(), "prod", self.intake.keys()).unwrap();
        let about = About {
            received_micros,
            tail: (way == Way::File).then_some(("file-1", 77)),
            ..About::default()
        };
        parcel.push(&arrival, about).unwrap();
        drop(
            self.intake
                .take(&parcel, Beside::default(), received_micros)
                .unwrap(),
        );
    }

    async fn durable(&self) {
        let barrier = self
            .intake
            .journal()
            .append(kaudit_journal::Batch::new())
            .unwrap();
        barrier.await.unwrap();
    }

    fn run(&mut self, to: &kaudit_dial::Cluster, change: impl FnOnce(&mut ForwardOptions)) {
        let mut options = ForwardOptions::new("edge-7f3a".parse().unwrap());
        options.max_records = 50;
        options.initial_backoff = Duration::from_millis(1);
        options.max_backoff = Duration::from_millis(5);
        change(&mut options);
        let forward = Forward::new(self.intake.journal().clone(), to, options).unwrap();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (running, stopping) = (forward.clone(), stop.clone());
        tasks.spawn(async move { running.run(stopping).await });
        self.running = Some(Running { forward, stop, tasks });
    }

    fn status(&self) -> ForwardStatus {
        self.running.as_ref().unwrap().forward.status()
    }

    async fn stop(&mut self) {
        let mut running = self.running.take().unwrap();
        running.stop.cancel();
        running.tasks.join_next().await.unwrap().unwrap();
        assert_eq!(running.forward.status().state, ForwardState::Stopped);
    }

    /// Power goes, and comes back.
    async fn crash(mut self) -> Self {
        let disk = power_cut(&self.disk);
        self.stop().await;
        assert!(self.folder.path().exists());
        Self::on(disk)
    }

    async fn caught_up(&self) {
        until(|| self.status().state == ForwardState::CaughtUp && self.status().backlog_records == 0).await;
    }
}

/// The disk as it is after the power went. Before it comes back nothing more is kept.
fn power_cut(disk: &SimulatedDisk) -> SimulatedDisk {
    disk.fail_at_random(Some((1, Fault::PowerOff)));
    disk.crash()
}

/// The numbers of the events that are at the centre.
fn numbers(central: &Central) -> Vec<usize> {
    records(&central.intake).iter().map(number).collect()
}

fn number(record: &Record) -> usize {
    let event = kaudit_event::Event::from_json_line(&record.event).unwrap();
    event
        .audit_id
        .to_string()
        .strip_prefix("id-")
        .unwrap()
        .parse()
        .unwrap()
}

fn apiserver(central: &Central) -> kaudit_dial::Cluster {
    central.cluster(central.address, Some("apiserver"), None)
}

/// Between the two; cuts a connection when an answer would come after more records became durable, so that it
/// is lost. So often as `cuts` says.
async fn lossy(
    to: SocketAddr,
    journal: Journal,
    cuts: Arc<AtomicU64>,
    tasks: &mut JoinSet<()>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(to).await else {
                continue;
            };
            let (journal, cuts) = (journal.clone(), Arc::clone(&cuts));
            connections.spawn(async move {
                let (mut client_read, mut client_write) = client.into_split();
                let (mut server_read, mut server_write) = server.into_split();
                let up = tokio::io::copy(&mut client_read, &mut server_write);
                let down = async move {
                    let before = journal.durable();
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(length) = server_read.read(&mut buffer).await {
                        let is_answer = journal.durable() > before && cuts.load(Ordering::Relaxed) > 0;
                        if length == 0 || is_answer {
                            cuts.fetch_sub(u64::from(is_answer), Ordering::Relaxed);
                            break;
                        }
                        if client_write.write_all(&buffer[..length]).await.is_err() {
                            break;
                        }
                    }
                };
                tokio::select! {
                    _ = up => {}
                    () = down => {}
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn records_arrive_in_order_as_they_are_with_where_they_came_from() {
    for gzip in [true, false] {
        let central = Plan::new().start().await;
        let mut edge = Edge::new();
        edge.take(0..500).await;
        edge.run(&apiserver(&central), |options| options.gzip = gzip);
        edge.take(500..600).await;
        edge.caught_up().await;
        let (sent, kept) = (records(&edge.intake), records(&central.intake));
        assert_eq!(kept.len(), 600);
        for (at, (sent, kept)) in sent.iter().zip(&kept).enumerate() {
            let expected = Record {
                seq: u64::try_from(at).unwrap() + 1,
                transport: Transport::Forward,
                ..sent.clone()
            };
            assert_eq!(kept, &expected);
        }
        let sources: Vec<String> = central
            .intake
            .sources()
            .iter()
            .map(|source| {
                let origin = source.origin();
                format!("{}/{} {}", origin.cluster, origin.instance, origin.source())
            })
            .collect();
        assert_eq!(
            sources,
            ["prod/cp-1 forward:edge-7f3a", "prod/cp-2 forward:edge-7f3a"]
        );
        let status = edge.status();
        assert_eq!((status.forwarded, status.duplicates, status.gaps), (600, 0, 0));
        assert!(status.last_success_micros.is_some());
        edge.stop().await;
        let at = edge.intake.journal().cursors();
        assert_eq!(
            at,
            [("forward".to_owned(), edge.intake.journal().durable(), Hold::Yes)]
        );
    }
}

#[tokio::test]
async fn lost_answers_make_no_visible_duplicates() {
    let central = Plan::new().start().await;
    let mut tasks = JoinSet::new();
    let cuts = Arc::new(AtomicU64::new(5));
    let journal = central.intake.journal().clone();
    let address = lossy(central.address, journal, Arc::clone(&cuts), &mut tasks).await;
    let mut edge = Edge::new();
    edge.take(0..1000).await;
    edge.run(&central.cluster(address, Some("apiserver"), None), |_| {});
    edge.caught_up().await;
    assert_eq!(cuts.load(Ordering::Relaxed), 0);
    assert_eq!(numbers(&central), (0..1000).collect::<Vec<_>>());
    let status = edge.status();
    assert!(status.duplicates >= 5, "{status:?}");
    assert_eq!(status.forwarded, 1000);
    assert!(status.last_error.is_some());
    assert_eq!(status.failures_in_a_row, 0);
    edge.stop().await;
}

#[tokio::test]
async fn either_side_may_lose_its_power_in_the_middle() {
    let mut central = Plan::new().start().await;
    let mut edge = Edge::new();
    let mut to = apiserver(&central);
    for round in 0..4 {
        edge.take(round * 500..(round + 1) * 500).await;
        edge.run(&to, |_| {});
        let journal = central.intake.journal().clone();
        let before = journal.durable();
        journal.wait_durable(before.plus(120)).await;
        if round % 2 == 0 {
            edge = edge.crash().await;
        } else {
            let disk = power_cut(&central.disk);
            let (_, authority, address) = central.stop().await;
            until(|| edge.status().failures_in_a_row > 0).await;
            let plan = Plan {
                disk,
                authority,
                address,
                ..Plan::new()
            };
            central = plan.start().await;
            edge.caught_up().await;
            edge.stop().await;
        }
        to = apiserver(&central);
    }
    edge.run(&to, |_| {});
    edge.caught_up().await;
    assert!(numbers(&central).into_iter().eq(0..2000));
    edge.stop().await;
}

#[tokio::test]
async fn a_record_that_its_sender_may_not_bring_stays_at_the_edge() {
    let central = Plan::new().start().await;
    let only = |instance: &str| {
        Arc::new(Access::new(vec![grant(
            "prod",
            instance,
            certificate("apiserver"),
        )]))
    };
    central.access.store(only("cp-1"));
    let mut edge = Edge::new();
    edge.take_line("cp-1", Way::Webhook, "", &line(&item(0)), 1);
    edge.take_line("cp-2", Way::Webhook, "", &line(&item(1)), 2);
    edge.take_line("cp-1", Way::Webhook, "", &line(&item(2)), 3);
    edge.durable().await;
    edge.run(&apiserver(&central), |_| {});
    until(|| edge.status().failures_in_a_row > 3).await;
    let status = edge.status();
    assert!(
        matches!(status.state, ForwardState::Refused | ForwardState::Sending),
        "{status:?}"
    );
    assert!(
        status.last_error.as_ref().unwrap().1.contains("403"),
        "{status:?}"
    );
    assert!(
        status.last_error.as_ref().unwrap().1.contains("cp-2"),
        "{status:?}"
    );
    assert_eq!(status.backlog_records, 3);
    // What came before it is there, and is known when it comes again.
    assert_eq!(numbers(&central), [0]);
    central.access.store(only("*"));
    edge.caught_up().await;
    assert_eq!(numbers(&central), [0, 1, 2]);
    edge.stop().await;
}

#[tokio::test]
async fn a_centre_that_is_full_makes_the_edge_wait_and_loses_nothing() {
    let mut plan = Plan::new();
    plan.journal.segment_bytes = 256 << 10;
    plan.journal.max_bytes = 2 << 20;
    let central = plan.start().await;
    let store = central.intake.journal().cursor("store", Hold::Yes).unwrap();
    let mut edge = Edge::new();
    for number in 0..1500 {
        edge.take_line(
            "cp-1",
            Way::Webhook,
            "",
            &line(&padded(number, &"x".repeat(2000))),
            1,
        );
    }
    edge.durable().await;
    edge.run(&apiserver(&central), |_| {});
    until(|| {
        edge.status()
            .last_error
            .is_some_and(|(_, error)| error.contains("429"))
    })
    .await;
    let mut kept = Vec::new();
    while edge.status().state != ForwardState::CaughtUp || edge.status().backlog_records > 0 {
        let mut reader = central.intake.journal().reader(store.position());
        while let Some(kaudit_journal::Item::Record { payload, .. }) = reader.next().unwrap() {
            kept.push(number(&Record::read(&payload).unwrap()));
        }
        store.advance(reader.position()).unwrap();
        tokio::task::yield_now().await;
    }
    let mut reader = central.intake.journal().reader(store.position());
    while let Some(kaudit_journal::Item::Record { payload, .. }) = reader.next().unwrap() {
        kept.push(number(&Record::read(&payload).unwrap()));
    }
    assert_eq!(kept, (0..1500).collect::<Vec<_>>());
    edge.stop().await;
}

#[tokio::test]
async fn a_centre_that_is_slow_is_asked_again_and_nothing_is_taken_for_durable() {
    let mut plan = Plan::new();
    // After its first commit the journal does not begin another for a minute.
    plan.journal.linger = Duration::from_secs(60);
    plan.journal.commit_share = u32::MAX;
    plan.receiver.forward_deadline = Duration::from_millis(50);
    let central = plan.start().await;
    central
        .intake
        .journal()
        .append(kaudit_journal::Batch::new())
        .unwrap()
        .await
        .unwrap();
    let mut edge = Edge::new();
    edge.take(0..10).await;
    // The centre answers in time that it does not know.
    edge.run(&apiserver(&central), |_| {});
    until(|| {
        edge.status()
            .last_error
            .is_some_and(|(_, error)| error.contains("429"))
    })
    .await;
    edge.stop().await;
    // It does not answer in time.
    edge.run(&apiserver(&central), |options| {
        options.timeout = Duration::from_millis(5)
    });
    until(|| {
        edge.status()
            .last_error
            .is_some_and(|(_, error)| error.contains("no answer"))
    })
    .await;
    assert_eq!(edge.status().backlog_records, 10);
    edge.stop().await;
    assert_eq!(edge.status_position(), 1);
}

impl Edge {
    fn status_position(&self) -> u64 {
        self.intake.journal().cursors()[0].1.get()
    }
}

#[tokio::test]
async fn what_the_edge_cannot_read_any_more_is_a_gap_at_the_centre() {
    let central = Plan::new().start().await;
    let edge = Edge::new();
    edge.take(0..100).await;
    edge.intake.journal().close();
    let paths = edge.disk.paths();
    let segment = paths
        .iter()
        .find(|path| path.extension().is_some_and(|end| end == "kaj"))
        .unwrap();
    let content = edge.disk.content(segment).unwrap();
    let at = content
        .windows(7)
        .position(|window| window == b"\"id-50\"")
        .unwrap();
    assert!(edge.disk.flip(segment, u64::try_from(8 * at).unwrap()));
    let disk = edge.disk.clone();
    drop(edge);
    let mut edge = Edge::on(disk);
    edge.run(&apiserver(&central), |_| {});
    edge.caught_up().await;
    let expected: Vec<usize> = (0..100).filter(|number| *number != 50).collect();
    assert_eq!(numbers(&central), expected);
    assert_eq!(edge.status().gaps, 1);
    let gaps: u64 = central
        .intake
        .sources()
        .iter()
        .map(|source| source.counts().gaps)
        .sum();
    assert_eq!(gaps, 1);
    edge.stop().await;
}

#[tokio::test]
async fn one_record_that_is_larger_than_a_request_goes_alone() {
    let central = Plan::new().start().await;
    let mut edge = Edge::new();
    let large = line(&padded(1, &"x".repeat(3 << 20)));
    edge.take_line("cp-1", Way::Webhook, "", &line(&item(0)), 1);
    edge.take_line("cp-1", Way::Webhook, "", &large, 2);
    edge.take_line("cp-1", Way::Webhook, "", &line(&item(2)), 3);
    edge.durable().await;
    edge.run(&apiserver(&central), |_| {});
    edge.caught_up().await;
    let records = records(&central.intake);
    assert_eq!(records.len(), 3);
    assert_eq!(records[1].event, large.as_bytes());
    let answers = central.receiver.answers();
    assert_eq!(answers, [(200, "ok", 3)]);
    edge.stop().await;
}

/// A body of the wire format.
fn body(frames: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut body = b"kaudfwd\x01".to_vec();
    for (kind, payload) in frames {
        body.push(*kind);
        body.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        body.extend_from_slice(payload);
    }
    body.push(3);
    body.extend_from_slice(&4_u32.to_le_bytes());
    body.extend_from_slice(&u32::try_from(frames.len()).unwrap().to_le_bytes());
    body
}

fn frame(instance: &str, event: &str) -> (u8, Vec<u8>) {
    let record = Record {
        cluster: "prod".to_owned(),
        source: "webhook".to_owned(),
        instance: instance.to_owned(),
        seq: 4,
        received_micros: 1,
        transport: Transport::Webhook,
        tail: None,
        matched_rule: None,
        event: event.to_owned().into(),
    };
    let mut bytes = Vec::new();
    record.write(&mut bytes).unwrap();
    (1, bytes)
}

#[tokio::test]
async fn requests_that_are_not_those_of_an_edge_are_refused() {
    let central = Plan::new().start().await;
    let kind = ("content-type", "application/vnd.kaudit.forward");
    let edge = ("kaudit-edge", "edge-1");
    let good = body(&[frame("cp-1", &line(&item(0)))]);
    let cut = good[..good.len() - 1].to_vec();
    for (name, token, headers, body, expected) in [
        (Some("apiserver"), None, vec![kind, edge], &good, 200),
        (None, None, vec![kind, edge], &good, 401),
        (None, Some(TOKEN), vec![kind, edge], &good, 403),
        (Some("apiserver"), None, vec![edge], &good, 415),
        (Some("apiserver"), None, vec![kind], &good, 400),
        (
            Some("apiserver"),
            None,
            vec![kind, ("kaudit-edge", "/")],
            &good,
            400,
        ),
        (Some("apiserver"), None, vec![kind, edge], &cut, 400),
        (
            Some("apiserver"),
            None,
            vec![kind, edge],
            &b"{}{}{}{}{}".to_vec(),
            400,
        ),
    ] {
        let client = central.client(name, token);
        let answer = post(&client, "/v1/forward", &headers, body).await;
        assert_eq!(answer.status.as_u16(), expected, "{name:?} {headers:?}");
        client.close().await;
    }
    assert_eq!(numbers(&central), [0]);
}

#[tokio::test]
async fn what_is_no_event_or_no_record_goes_to_quarantine_and_the_rest_is_kept() {
    let central = Plan::new().start().await;
    let frames = [
        frame("cp-1", &line(&item(0))),
        frame("cp-1", "no event"),
        (1, b"no record".to_vec()),
        frame("not/a/name", &line(&item(9))),
        frame("cp-2", &line(&item(1))),
        frame("cp-1", &line(&item(0))),
    ];
    let client = central.client(Some("apiserver"), None);
    let headers = [
        ("content-type", "application/vnd.kaudit.forward"),
        ("kaudit-edge", "edge-1"),
    ];
    let answer = post(&client, "/v1/forward", &headers, &body(&frames)).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (200, &b"{\"accepted\":2,\"duplicates\":1,\"quarantined\":3}\n"[..])
    );
    assert_eq!(numbers(&central), [0, 1]);
    let quarantine = central.quarantine();
    assert!(
        quarantine.contains("no event") && quarantine.contains("no record"),
        "{quarantine}"
    );
    client.close().await;
}

#[tokio::test]
async fn a_gap_that_is_told_twice_is_counted_once() {
    let central = Plan::new().start().await;
    let gap = |from: u64, to: u64| (2, [&from.to_le_bytes()[..], &to.to_le_bytes(), &[1]].concat());
    let client = central.client(Some("apiserver"), None);
    let headers = [
        ("content-type", "application/vnd.kaudit.forward"),
        ("kaudit-edge", "edge-1"),
    ];
    for frames in [
        vec![frame("cp-1", &line(&item(0))), gap(5, 8)],
        vec![gap(5, 8)],
        vec![gap(5, 8), gap(10, 11)],
    ] {
        assert_eq!(
            post(&client, "/v1/forward", &headers, &body(&frames))
                .await
                .status,
            200
        );
    }
    let source = central
        .intake
        .source(&origin("prod", "cp-1", Way::Forward, "edge-1"))
        .unwrap();
    assert_eq!((source.counts().gaps, source.counts().missing), (2, 4));
    client.close().await;
}

#[tokio::test]
async fn an_outage_is_held_by_the_edge_until_its_journal_is_full_and_then_it_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = journal_options();
    options.segment_bytes = 64 << 10;
    options.max_bytes = 128 << 10;
    let disk = SimulatedDisk::new(11);
    let edge = intake(&disk, options, folder.path());
    let nowhere =
        kaudit_dial::Cluster::new("http://127.0.0.1:1".parse().unwrap(), kaudit_dial::Trust::Public);
    let options = ForwardOptions::new("edge-1".parse().unwrap());
    let forward = Forward::new(edge.journal().clone(), &nowhere, options).unwrap();
    let source = edge.source(&origin("prod", "cp-1", Way::Webhook, "")).unwrap();
    let mut kept = 0;
    let refused = loop {
        let mut parcel = Parcel::new(source.clone());
        let text = line(&padded(kept, &"x".repeat(1000)));
        let arrival = Arrival::of_line(text.as_bytes(), "prod", edge.keys()).unwrap();
        parcel.push(&arrival, About::default()).unwrap();
        let taken = match edge.take(&parcel, Beside::default(), 1) {
            Ok(taken) => taken.durable().await,
            Err(error) => Err(error),
        };
        match taken {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.reason(), "journal_full");
    assert!(kept > 50);
    assert_eq!(forward.status().backlog_records, u64::try_from(kept).unwrap());
}
