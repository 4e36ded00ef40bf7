//! What a listener takes from the network.

use std::time::Duration;

/// What one listener takes from the network before it refuses.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// Connections at once of one client: an address of IPv4, a /64 of IPv6. Further ones are closed.
    pub connections_per_address: usize,
    /// What was sent and is not acknowledged, or not taken, for so long ends the connection: whoever vanished holds
    /// no memory for longer. Linux.
    pub unacknowledged: Duration,
    /// Unanswered requests that an HTTP/2 peer may cancel before it is cut off: each costs what an answered one
    /// does. Every answered one forgives one.
    pub cancelled: usize,
    /// Time for the TLS handshake, and before it for a proxy's word on whose connection it is.
    pub handshake: Duration,
    /// Time from a connection's (or the previous response's) end to a complete request head, HTTP/1.
    pub request_head: Duration,
    /// Bytes of a request head. Over HTTP/1 also what a connection reads ahead of whoever takes the body, and what
    /// it holds of an answer that its client does not take.
    ///
    /// An API server takes heads of 1 MiB; what a thousand watches that nobody reads may hold decides here.
    pub head_bytes: usize,
    /// Header lines of a request, HTTP/1.
    pub headers: usize,
    /// Streams at once in one HTTP/2 connection.
    pub streams: u32,
    /// Bytes of bodies that a connection reads ahead of whoever takes them, HTTP/2, in all its streams; at
    /// least 65,535.
    pub ahead_bytes: u32,
    /// The same of one stream. Less than of all, so that one body which nobody takes keeps no other waiting.
    pub stream_ahead_bytes: u32,
    /// After a stop, how long an HTTP/1 connection without a request stays open: whoever was about to send one
    /// is answered, and told that the connection ends.
    pub linger: Duration,
    /// After a stop, how long an HTTP/2 connection without a request waits for its peer to acknowledge the end.
    pub goaway: Duration,
}

impl Default for Limits {
    /// Bounds of an ordinary API server. A tenth of all connections for one address is room for a node behind
    /// whose address 250 pods have four each, and needs ten addresses to shut everybody out.
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 1000,
            unacknowledged: Duration::from_secs(900),
            cancelled: 1000,
            handshake: Duration::from_secs(10),
            request_head: Duration::from_secs(60),
            head_bytes: 256 << 10,
            headers: 256,
            streams: 250,
            ahead_bytes: 1 << 20,
            stream_ahead_bytes: 256 << 10,
            linger: Duration::from_secs(5),
            goaway: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Bounds of a listener to which thousands send large bodies at once: what a connection holds is little
    /// beside the memory that whoever reads the bodies accounts for, and each body is read to its end or refused.
    #[must_use]
    pub fn of_receiver() -> Self {
        Self {
            head_bytes: 64 << 10,
            ahead_bytes: 128 << 10,
            stream_ahead_bytes: 128 << 10,
            ..Self::default()
        }
    }
}
