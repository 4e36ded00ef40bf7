//! The receiver.
mod split;
