//! A listener and clients that speak for themselves.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod bounds;
mod drain;
mod fixture;
mod names;
mod proxies;
mod windows;
mod workers;
