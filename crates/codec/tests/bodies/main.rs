//! Bodies in protobuf, CBOR and YAML.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod golden;
mod hostile;
mod vectors;
