//! One request, sent until it is answered or may not be sent any more.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};
use http_body::Body as _;
use hyper::client::conn::http1::SendRequest;
use tokio::time::{Duration, sleep};
use tracing::debug;

use super::body::UpstreamBody;
use super::health::Seen;
use super::http2::{Exchanged, Slot};
use super::outgoing::Outgoing;
use super::pool::{Lease, Pool, Taken};
use super::servers::Choice;
use super::{Inner, OutgoingBody, SendError};

/// Connections that turn out to be closed before anything was sent; more of them are no accident.
const MAX_UNSENT: u32 = 16;

/// Most answers begin sooner.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// Whether a request changes nothing, whatever its path means.
///
/// Source: RFC 9110 section 9.2.1.
fn is_safe(head: &Parts) -> bool {
    matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// One request on its way through as many connections as it takes.
pub(super) struct Sending<'a> {
    upstream: &'a Inner,
    head: Parts,
    /// Whether it may be sent again although the server may have acted on it.
    is_repeatable: bool,
    /// The body of one that may although it has one.
    question: Option<Bytes>,
    unsent: u32,
    was_retried: bool,
}

pub(super) enum Attempt {
    Answered(Response<UpstreamBody>),
    Again(Outgoing),
}

impl<'a> Sending<'a> {
    pub(super) fn new(
        upstream: &'a Inner,
        head: Parts,
        body: &OutgoingBody,
        question: Option<Bytes>,
    ) -> Self {
        Self {
            upstream,
            is_repeatable: question.is_some() || (is_safe(&head) && body.is_end_stream()),
            question,
            head,
            unsent: 0,
            was_retried: false,
        }
    }

    /// Whether the request may find out if a server does well again.
    pub(super) const fn choice(&self) -> Choice {
        if self.is_repeatable && !self.was_retried {
            Choice::MayTry
        } else {
            Choice::Proven
        }
    }

    /// Whether there is another server to ask.
    const fn has_others(&self) -> bool {
        self.upstream.pools.len() > 1
    }

    /// The body of a request that may be repeated.
    fn whole(&self) -> Outgoing {
        Outgoing::new(match &self.question {
            Some(question) => Outgoing::of_bytes(question.clone()),
            None => Outgoing::empty(),
        })
    }

    /// Ready when the answer had better be asked of another server, as it is found that this one is silent. A long
    /// wait is a reason to look.
    async fn given_up(&self, pool: &Pool) {
        if !self.has_others() {
            return std::future::pending().await;
        }
        let health = pool.health();
        let looking = async {
            sleep(LONG_WAIT).await;
            health.doubt();
            std::future::pending().await
        };
        tokio::select! {
            () = looking => {}
            () = health.hung(), if self.is_repeatable && !self.was_retried => {}
        }
    }

    pub(super) async fn over(
        &mut self,
        pool: &Arc<Pool>,
        connection: Taken,
        body: Outgoing,
    ) -> Result<Attempt, SendError> {
        match connection {
            Taken::Http1 {
                sender,
                is_reused,
                lease,
            } => self.over_http1(pool, sender, is_reused, lease, body).await,
            Taken::Http2 { slot, sender } => self.over_http2(pool, slot, sender, body).await,
        }
    }

    async fn over_http1(
        &mut self,
        pool: &Arc<Pool>,
        mut sender: SendRequest<Outgoing>,
        is_reused: bool,
        lease: Lease,
        mut body: Outgoing,
    ) -> Result<Attempt, SendError> {
        if let Err(error) = sender.ready().await {
            return self.unsent(body).ok_or(SendError::Broken(error));
        }
        body.forget();
        // What was not sent comes back; a copy is only for what may be sent again although it was.
        let headers = if self.is_repeatable && (is_reused || self.has_others()) {
            self.head.headers.clone()
        } else {
            std::mem::take(&mut self.head.headers)
        };
        let request = self.upstream.address()?.http1(&self.head, headers, body)?;
        let sent = tokio::select! {
            biased;
            sent = sender.try_send_request(request) => sent,
            () = self.given_up(pool) => {
                return self.again(pool, Some(self.whole())).ok_or(SendError::Silent);
            }
        };
        match sent {
            Ok(response) => {
                if is_reused {
                    pool.counters().reused.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Attempt::Answered(
                    response.map(|body| UpstreamBody::http1(body, lease, sender)),
                ))
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) => {
                    let (head, body) = unsent.into_parts();
                    self.head.headers = head.headers;
                    self.unsent(body)
                        .ok_or_else(|| SendError::Broken(error.into_error()))
                }
                None if (is_reused || self.has_others()) && self.is_repeatable => {
                    self.broke(pool, is_reused, error.error());
                    self.again(pool, Some(self.whole()))
                        .ok_or_else(|| SendError::Broken(error.into_error()))
                }
                None => {
                    self.broke(pool, is_reused, error.error());
                    Err(SendError::Broken(error.into_error()))
                }
            },
        }
    }

    /// Tells the server's health of a connection that broke, unless it was closed by who made the request: its body broke
    /// off. Where the connection had been used, the server may have been closing it.
    fn broke(&self, pool: &Pool, is_reused: bool, error: &hyper::Error) {
        if !is_reused && !error.is_user() {
            pool.health().see(Seen::Broke);
        }
    }

    async fn over_http2(
        &mut self,
        pool: &Arc<Pool>,
        slot: Slot,
        sender: h2::client::SendRequest<Bytes>,
        body: Outgoing,
    ) -> Result<Attempt, SendError> {
        let was_used = slot.was_used();
        let link = Arc::clone(slot.link());
        let head = self.upstream.address()?.http2(&self.head)?;
        let exchanged = match slot.exchange(sender, head, body) {
            Ok(answer) => tokio::select! {
                biased;
                exchanged = answer => exchanged,
                () = self.given_up(pool) => {
                    return self.again(pool, Some(self.whole())).ok_or(SendError::Silent);
                }
            },
            Err(unsent) => unsent.into(),
        };
        match exchanged {
            Exchanged::Answered {
                response,
                length,
                slot,
                rest,
            } => {
                if was_used {
                    pool.counters().reused.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(rest) = rest {
                    // The stream is taken until both directions are done.
                    let slot = Arc::clone(&slot);
                    self.upstream.tasks.spawn(async move {
                        rest.run().await;
                        drop(slot);
                    });
                }
                Ok(Attempt::Answered(
                    response.map(|stream| UpstreamBody::http2(stream, length, slot)),
                ))
            }
            Exchanged::Refused { error, is_sent, body } => {
                debug!(%error, is_sent, "a request was refused unprocessed");
                if !is_sent || error.is_go_away() {
                    pool.forget(&link);
                }
                let again = match body {
                    Some(body) if !is_sent => self.unsent(body),
                    body => self.again(pool, body),
                };
                again.ok_or(SendError::Reset(error))
            }
            Exchanged::Broken {
                error,
                is_connection_lost,
                body,
            } => {
                if is_connection_lost {
                    pool.lose(&link);
                }
                if is_connection_lost && self.is_repeatable {
                    return self.again(pool, body).ok_or(SendError::Reset(error));
                }
                Err(SendError::Reset(error))
            }
        }
    }

    /// Another connection for what was not sent.
    fn unsent(&mut self, body: Outgoing) -> Option<Attempt> {
        self.unsent += 1;
        (self.unsent <= MAX_UNSENT).then_some(Attempt::Again(body))
    }

    /// Once more, if it was not yet and the body is still whole.
    fn again(&mut self, pool: &Pool, body: Option<Outgoing>) -> Option<Attempt> {
        let body = body.filter(|_| !self.was_retried)?;
        self.was_retried = true;
        pool.counters().retried.fetch_add(1, Ordering::Relaxed);
        Some(Attempt::Again(body))
    }
}
