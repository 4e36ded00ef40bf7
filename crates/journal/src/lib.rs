//! A durable, checksummed, append-only journal of opaque records.
