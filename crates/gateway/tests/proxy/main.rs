//! The gateway between a client that sends any bytes and an upstream that answers anything.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod abuse;
mod certificates;
mod corpus;
mod encodings;
mod endings;
mod failover;
mod fixture;
mod forwarding;
mod identity;
mod inflight;
mod invariants;
mod lifecycle;
mod records;
mod sessions;
mod stalled;
mod streams;
mod tunnels;
mod vectors;
