//! Senders that bring events as kube-apiserver does, and remember what they were told.
//!
//! Each connection posts one list after the other and brings a list again until it is answered with 200. Some
//! lists are brought by two connections at once, as happens when an apiserver gives up waiting for an answer
//! that is under way.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kaudit_dial::Cluster;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::events::{self, Name};
use crate::place::{self, post};
use crate::scale::Random;

/// Senders are told so long after an answer other than 200; kube-apiserver's would wait for seconds.
const AGAIN: Duration = Duration::from_millis(5);

/// What was acknowledged.
#[derive(Debug, Default)]
struct Acked {
    /// The numbers of each stream that were acknowledged, in order.
    ranges: Vec<(u32, std::ops::Range<u64>)>,
    events: u64,
    /// Answers by status; 0 for none.
    answers: std::collections::BTreeMap<u16, u64>,
}

#[derive(Debug, Default)]
struct Ledger {
    acked: Mutex<Acked>,
    grown: Condvar,
}

/// Running senders.
#[derive(Debug)]
pub(crate) struct Load {
    ledger: Arc<Ledger>,
    address: watch::Sender<Option<SocketAddr>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// So many connections, each with lists of up to `batch` events.
    pub(crate) fn start(cluster: &Cluster, connections: u32, batch: u64, seed: u64) -> Self {
        let ledger = Arc::new(Ledger::default());
        let (address, addresses) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let (cluster, keep) = (cluster.clone(), Arc::clone(&ledger));
        let thread = std::thread::spawn(move || {
            place::runtime().block_on(async move {
                let mut senders = JoinSet::new();
                for stream in 1..=connections {
                    let sender = Sender {
                        cluster: cluster.clone(),
                        stream,
                        batch,
                        random: Random::of(seed ^ u64::from(stream) << 32),
                        ledger: Arc::clone(&keep),
                        addresses: addresses.clone(),
                        stopped: stopped.clone(),
                    };
                    senders.spawn(sender.run());
                }
                while let Some(ended) = senders.join_next().await {
                    ended.unwrap();
                }
            });
        });
        Self {
            ledger,
            address,
            stop,
            thread: Some(thread),
        }
    }

    /// Where the receiver is, or that there is none.
    pub(crate) fn goes_to(&self, address: Option<SocketAddr>) {
        self.address.send_replace(address);
    }

    /// Events that were acknowledged so far.
    pub(crate) fn acked(&self) -> u64 {
        self.ledger.acked.lock().unwrap().events
    }

    /// Waits until so many more are.
    pub(crate) fn wait_acked(&self, more: u64, within: Duration, context: impl Fn() -> String) {
        let mut acked = self.ledger.acked.lock().unwrap();
        let wanted = acked.events + more;
        let deadline = Instant::now() + within;
        while acked.events < wanted {
            let rest = deadline.checked_duration_since(Instant::now());
            let rest = rest.unwrap_or_else(|| {
                panic!(
                    "{} of {wanted} events acknowledged after {within:?}, answers {:?}\n{}",
                    acked.events,
                    acked.answers,
                    context()
                )
            });
            acked = self.ledger.grown.wait_timeout(acked, rest).unwrap().0;
        }
    }

    /// All that was acknowledged until now.
    pub(crate) fn names(&self) -> Vec<Name> {
        let acked = self.ledger.acked.lock().unwrap();
        acked
            .ranges
            .iter()
            .flat_map(|(stream, numbers)| {
                let stream = *stream;
                numbers.clone().map(move |number| Name { stream, number })
            })
            .collect()
    }

    /// Answers by status; 0 for a connection that broke.
    pub(crate) fn answers(&self) -> std::collections::BTreeMap<u16, u64> {
        self.ledger.acked.lock().unwrap().answers.clone()
    }

    /// No new lists; returns when all that were begun are acknowledged.
    pub(crate) fn finish(&mut self) {
        self.stop.send_replace(true);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.address.send_replace(None);
    }
}

#[derive(Clone)]
struct Sender {
    cluster: Cluster,
    stream: u32,
    batch: u64,
    random: Random,
    ledger: Arc<Ledger>,
    addresses: watch::Receiver<Option<SocketAddr>>,
    stopped: watch::Receiver<bool>,
}

impl Sender {
    async fn run(mut self) {
        let mut number = 0;
        while !*self.stopped.borrow() {
            let numbers = number..number + 1 + self.random.below(self.batch);
            number = numbers.end;
            let stream = self.stream;
            let list = events::list(numbers.clone().map(|number| Name { stream, number }));
            let list = bytes::Bytes::from(list);
            let is_twice = self.random.below(8) == 0;
            let brought = if is_twice {
                let mut other = self.clone();
                let (one, two) = tokio::join!(self.bring(list.clone()), other.bring(list));
                one && two
            } else {
                self.bring(list).await
            };
            if !brought {
                return;
            }
            let mut acked = self.ledger.acked.lock().unwrap();
            acked.events += numbers.end - numbers.start;
            acked.ranges.push((stream, numbers));
            self.ledger.grown.notify_all();
        }
    }

    /// Brings a list until it is kept; `false` when nobody waits for it any more.
    async fn bring(&mut self, list: bytes::Bytes) -> bool {
        let mut connection = None;
        loop {
            let address = match self.addresses.wait_for(Option::is_some).await {
                Ok(address) => address.unwrap(),
                Err(_) => return false,
            };
            let sender = match &connection {
                Some((known, sender)) if *known == address => sender,
                _ => {
                    let sender = place::sender(&self.cluster, address);
                    &connection.insert((address, sender)).1
                }
            };
            let told = post(sender, "c", list.clone()).await;
            let status = told.map_or(0, |told| told.status);
            *self
                .ledger
                .acked
                .lock()
                .unwrap()
                .answers
                .entry(status)
                .or_default() += 1;
            if status == 200 {
                return true;
            }
            assert!(matches!(status, 0 | 429 | 503), "an answer of {status}");
            tokio::time::sleep(AGAIN).await;
        }
    }
}
