//! A delivery that is under way.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::Refusals;

/// Tells how a delivery that was begun ends.
///
/// The delivery belongs to the sink and goes on by itself: whoever drops its receipt only does not learn
/// of its end. What is lost is counted either way.
#[must_use = "the delivery is not finished yet"]
pub struct Receipt(Pin<Box<dyn Future<Output = Result<(), Refusals>> + Send>>);

impl Receipt {
    /// A receipt that ends as `end` does.
    pub fn new(end: impl Future<Output = Result<(), Refusals>> + Send + 'static) -> Self {
        Self(Box::pin(end))
    }

    /// Waits for the end on this thread, which must be one that may block.
    ///
    /// # Errors
    ///
    /// The refusals, as a synchronous sink would have returned them.
    pub fn wait(self) -> Result<(), Refusals> {
        wait(self)
    }
}

impl Future for Receipt {
    type Output = Result<(), Refusals>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt")
    }
}

/// Runs a future to its end on this thread, which sleeps in between. For sinks whose `shutdown` and
/// `submit_batch`, which may block, wait for tasks elsewhere; never for use inside of a task.
pub fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
