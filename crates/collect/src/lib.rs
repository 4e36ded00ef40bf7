//! Collects audit events from apiservers' webhooks and log files without losing one it acknowledged.

pub mod completeness;
