//! Objects in Kubernetes' other encodings, as the JSON that kube-apiserver has of them.
//!
//! What comes out is exact, or nothing comes out: a body with anything in it that is not understood is
//! [`Unprintable`], never guessed at. No I/O; depth and size of what is read and written are bounded.

pub mod cbor;
mod order;
pub mod protobuf;
mod scalars;
mod tree;
pub mod yaml;

/// Why a body has no JSON here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(clippy::exhaustive_enums, reason = "it is not known, or it is too large")]
pub enum Unprintable {
    /// Something in it is not what the encoding or the kind allows, or the kind is not known.
    #[error("it is not understood")]
    NotUnderstood,
    /// Its JSON is larger than what it may be.
    #[error("its JSON is larger than the limit for one body")]
    TooLarge,
}
