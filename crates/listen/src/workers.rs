//! Threads that each serve connections of their own.
//!
//! On a runtime that shares its tasks among threads, what a request waits for is woken on whichever thread is free,
//! which has to be woken itself: a system call for each step of a short request. Here everything of a connection, down
//! to what it asks of other servers, runs on one thread, and many requests are taken further by one wake.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

/// Threads with a runtime each; cheap to clone.
///
/// A connection belongs to the thread with the fewest when it is accepted, and stays there.
#[derive(Clone, Debug)]
pub struct Workers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    workers: Box<[Worker]>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    open: Arc<AtomicUsize>,
}

/// A connection's part in the load of its thread, until it is dropped.
struct Share(Arc<AtomicUsize>);

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts `count` threads, at least one; each calls `begin` with its number, from 0, before anything else.
    ///
    /// # Errors
    ///
    /// Those of the system, which has no more threads or files.
    pub fn start(count: usize, begin: impl Fn(usize) + Clone + Send + 'static) -> io::Result<Self> {
        let stop = CancellationToken::new();
        // If one cannot be started, those before it end.
        let guard = stop.clone().drop_guard();
        let (mut workers, mut threads) = (Vec::new(), Vec::new());
        for number in 0..count.max(1) {
            let (tell, told) = mpsc::channel();
            let (begin, stop) = (begin.clone(), stop.clone());
            let run = move || {
                begin(number);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                match runtime {
                    Ok(runtime) => {
                        // Nobody listens if this thread was given up.
                        drop(tell.send(Ok(runtime.handle().clone())));
                        runtime.block_on(stop.cancelled());
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            };
            threads.push(
                thread::Builder::new()
                    .name(format!("worker-{number}"))
                    .spawn(run)?,
            );
            let runtime = told.recv().map_err(io::Error::other)??;
            let open = Arc::default();
            workers.push(Worker { runtime, open });
        }
        guard.disarm();
        Ok(Self(Arc::new(Inner {
            workers: workers.into(),
            threads: Mutex::new(threads),
            stop,
        })))
    }

    /// Runs `serve` for a connection on the thread that has the fewest.
    pub(crate) fn spawn<F>(
        &self,
        tracker: &TaskTracker,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Of no runtime, until the other one takes it.
        let stream = stream.into_std()?;
        let least = self
            .0
            .workers
            .iter()
            .min_by_key(|worker| worker.open.load(Ordering::Relaxed));
        let Some(worker) = least else {
            return Err(io::ErrorKind::NotFound.into());
        };
        worker.open.fetch_add(1, Ordering::Relaxed);
        let share = Share(Arc::clone(&worker.open));
        let serve = async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream).await,
                Err(error) => error!(%error, "cannot serve a connection"),
            }
            drop(share);
        };
        tracker.spawn_on(serve, &worker.runtime);
        Ok(())
    }

    /// Ends the threads, and whatever still runs on them, and waits for that. Nothing must be served by then.
    pub async fn end(&self) {
        self.0.stop.cancel();
        let threads = std::mem::take(&mut *self.0.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let join = move || {
            for thread in threads {
                if thread.join().is_err() {
                    error!("a thread that served connections ended with a panic");
                }
            }
        };
        drop(tokio::task::spawn_blocking(join).await);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
