//! What makes two events the same.

use std::fmt;

use crate::{EncodeError, Event};

/// Identifies an event within a store: a keyed hash of cluster and canonical event.
///
/// It decides duplicates; `auditID` cannot, since clients choose it. The key keeps anybody without it
/// from guessing redacted content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Eid([u8; 24]);

impl Eid {
    /// The ID of `event` from `cluster` under `key`: the first 192 bits of keyed BLAKE3 over the cluster,
    /// its length before it, and the event's own encoding without `kind` and `apiVersion`.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] for a body that is not JSON.
    pub fn of(key: &[u8; 32], cluster: &str, event: &Event) -> Result<Self, EncodeError> {
        let mut canonical = Vec::new();
        event.write_canonical(&mut canonical)?;
        Ok(Self::of_canonical(key, cluster, [&canonical, b""]))
    }

    /// The ID of an event whose canonical form is given in two parts.
    pub(crate) fn of_canonical(key: &[u8; 32], cluster: &str, canonical: [&[u8]; 2]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(&(cluster.len() as u64).to_le_bytes());
        hasher.update(cluster.as_bytes());
        for part in canonical {
            hasher.update(part);
        }
        let mut id = [0; 24];
        for (to, from) in id.iter_mut().zip(hasher.finalize().as_bytes()) {
            *to = *from;
        }
        Self(id)
    }

    /// The 24 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 24] {
        &self.0
    }
}

impl From<[u8; 24]> for Eid {
    fn from(bytes: [u8; 24]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Eid {
    /// 48 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Eid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_cluster_and_content_decide_and_type_meta_does_not() {
        let event = Event {
            verb: "get".into(),
            ..Event::default()
        };
        let of = |key: u8, cluster: &str, event: &Event| Eid::of(&[key; 32], cluster, event).unwrap();
        let id = of(1, "a", &event);
        assert_eq!(id.to_string().len(), 48);
        let item = Event {
            kind: "Event".into(),
            api_version: "audit.k8s.io/v1".into(),
            ..event.clone()
        };
        assert_eq!(id, of(1, "a", &item));
        assert_ne!(id, of(2, "a", &event));
        assert_ne!(id, of(1, "b", &event));
        let other = Event {
            verb: "list".into(),
            ..event
        };
        assert_ne!(id, of(1, "a", &other));
    }
}
