//! An event as a recorder that may see less would have made it.

use bytes::Bytes;

use crate::types::{Event, Unknown};
use crate::{Level, without_managed_fields};

/// What a recorder sees of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "kept or left out")]
pub enum ManagedFields {
    /// Objects keep `metadata.managedFields`.
    Keep,
    /// They lose it.
    Omit,
}

impl Event {
    /// The event at a level that is not above its own: without the bodies that the level leaves out, and
    /// without managedFields in the others if that is wanted.
    ///
    /// Source: release-1.18 of k8s.io/apiserver plugin/pkg/audit/dynamic/enforced/enforced.go.
    #[must_use]
    pub fn at_level(&self, level: Level, managed_fields: ManagedFields) -> Self {
        let body = |kept_from: Level, body: &Option<Unknown>, managed_fields| {
            let body = body.as_ref().filter(|_| level >= kept_from)?;
            Some(match managed_fields {
                ManagedFields::Keep => body.clone(),
                ManagedFields::Omit => body.without_managed_fields(),
            })
        };
        // A patch says what is to be done with managedFields; it has none.
        let of_request = if self.verb == "patch" {
            ManagedFields::Keep
        } else {
            managed_fields
        };
        Self {
            level: level.into(),
            request_object: body(Level::Request, &self.request_object, of_request),
            response_object: body(Level::RequestResponse, &self.response_object, managed_fields),
            ..self.clone()
        }
    }
}

impl Unknown {
    /// The same without `metadata.managedFields`; what is not JSON stays as it is.
    fn without_managed_fields(&self) -> Self {
        let cut = self.raw.as_deref().and_then(without_managed_fields);
        match cut {
            Some(cut) => Self {
                raw: Some(Bytes::from(cut)),
                ..self.clone()
            },
            None => self.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let body = |text: &'static str| Some(Unknown::json(Bytes::from_static(text.as_bytes())));
        Event {
            level: Level::RequestResponse.into(),
            request_object: body(r#"{"metadata":{"name":"a","managedFields":[]}}"#),
            response_object: body(r#"{"metadata":{"name":"b","managedFields":[]}}"#),
            annotations: vec![("k".into(), "v".into())],
            ..Event::default()
        }
    }

    #[test]
    fn a_level_takes_the_bodies_that_are_above_it() {
        for (level, request, response) in [
            (Level::Metadata, false, false),
            (Level::Request, true, false),
            (Level::RequestResponse, true, true),
        ] {
            let seen = event().at_level(level, ManagedFields::Keep);
            assert_eq!(seen.level, level.into());
            assert_eq!(seen.request_object.is_some(), request, "{level}");
            assert_eq!(seen.response_object.is_some(), response, "{level}");
            assert_eq!(seen.annotations, event().annotations);
        }
        assert_eq!(
            event().at_level(Level::RequestResponse, ManagedFields::Keep),
            event()
        );
    }

    #[test]
    fn managed_fields_go_where_that_is_wanted() {
        let seen = event().at_level(Level::RequestResponse, ManagedFields::Omit);
        let text = |body: &Option<Unknown>| body.as_ref().unwrap().raw.clone().unwrap();
        assert_eq!(text(&seen.request_object), &br#"{"metadata":{"name":"a"}}"#[..]);
        assert_eq!(text(&seen.response_object), &br#"{"metadata":{"name":"b"}}"#[..]);

        let patch = Event {
            verb: "patch".into(),
            ..event()
        };
        let seen = patch.at_level(Level::RequestResponse, ManagedFields::Omit);
        assert_eq!(seen.request_object, event().request_object);
    }
}
