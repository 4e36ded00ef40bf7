//! The policy itself.

use crate::{Attributes, RequestAuditConfig};

/// A valid audit policy, compiled for matching.
#[derive(Clone, Debug)]
pub struct Policy(());

/// What strict decoding complained about although the policy was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings(pub Vec<String>);

/// Why a document is not a policy. The text is upstream's for validation errors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The document cannot be decoded.
    #[error("failed decoding: {0}")]
    Decode(String),
}

impl Policy {
    /// Loads a policy from YAML or JSON.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] for what kube-apiserver refuses to start with.
    pub fn parse(_document: &[u8]) -> Result<(Self, Warnings), PolicyError> {
        Ok((Self(()), Warnings::default()))
    }

    /// How a request with these attributes is recorded: the first matching rule decides.
    #[must_use]
    pub fn evaluate(&self, _attributes: &Attributes<'_>) -> RequestAuditConfig {
        RequestAuditConfig::default()
    }
}
