//! One object, and the events that are about it.

mod kinds;

use std::borrow::Cow;

use kaudit_event::EventView;
use serde_json::Value;

use crate::body;

pub(crate) use kinds::is_builtin_group;

/// An object's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Target {
    /// API group, empty for the core group; `None` for a type that is not built in and was named without
    /// its group: then events of every group are about it.
    pub group: Option<String>,
    /// Plural name of the resource.
    pub resource: String,
    /// Namespace; empty for objects of the cluster.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Why a text names no object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// It is not `TYPE/NAME`.
    #[error("`{0}` is not TYPE/NAME, for example deploy/api, deployments.apps/api or secret/db-password")]
    Form(String),
    /// An object that lives in a namespace was named without one.
    #[error("{resource} live in a namespace: name one to say which `{name}` is meant")]
    NoNamespace {
        /// The resource.
        resource: String,
        /// The object's name.
        name: String,
    },
}

/// What an event has to do with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "callers must look at each")]
pub enum Relation {
    /// Nothing.
    None,
    /// It names the object, or its bodies do.
    Names,
    /// It may have touched the object, and nothing recorded says whether it did: a deletion of many, or a
    /// name that the server made up.
    MayTouch,
}

impl Target {
    /// Reads `TYPE/NAME`, where TYPE is a plural, singular, kind or short name (`deploy`), with a group
    /// (`deployments.apps`) or with version and group (`deployments.v1.apps`).
    ///
    /// `namespace` is passed over for built-in objects of the cluster. For a type that is not built in, an
    /// empty one stands for the cluster.
    ///
    /// # Errors
    ///
    /// [`TargetError`] for a text of another form, and for a missing namespace.
    pub fn parse(text: &str, namespace: &str) -> Result<Self, TargetError> {
        let form = || TargetError::Form(text.to_owned());
        let (ty, name) = text.split_once('/').ok_or_else(form)?;
        if ty.is_empty() || name.is_empty() || name.contains('/') {
            return Err(form());
        }
        let (resource, group) = match ty.split_once('.') {
            None => (ty, None),
            Some((resource, group)) => (resource, Some(without_version(group))),
        };
        if resource.is_empty() || group == Some("") && !ty.ends_with('.') {
            return Err(form());
        }
        let Some(builtin) = kinds::named(resource, group) else {
            return Ok(Self {
                group: group.map(str::to_owned),
                resource: resource.to_ascii_lowercase(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            });
        };
        let namespace = match builtin.scope {
            kinds::Scope::Cluster => "",
            kinds::Scope::Namespaced if namespace.is_empty() => {
                return Err(TargetError::NoNamespace {
                    resource: builtin.plural.to_owned(),
                    name: name.to_owned(),
                });
            }
            kinds::Scope::Namespaced => namespace,
        };
        Ok(Self::new(builtin.group, builtin.plural, namespace, name))
    }

    /// An object by its full address, for example that of an event's `objectRef`.
    #[must_use]
    pub fn new(group: &str, resource: &str, namespace: &str, name: &str) -> Self {
        let is_cluster = kinds::named(resource, Some(group))
            .is_some_and(|row| row.plural == resource && row.scope == kinds::Scope::Cluster);
        Self {
            group: Some(group.to_owned()),
            resource: resource.to_owned(),
            namespace: if is_cluster {
                String::new()
            } else {
                namespace.to_owned()
            },
            name: name.to_owned(),
        }
    }

    /// Whether an event is about this object. A list or a deletion of many that its answer shows to hold
    /// the object names it; one whose answer does not hold the object has nothing to do with it.
    ///
    /// A create whose event has neither a name nor bodies is nobody's: the names of made-up names are in
    /// bodies only.
    #[must_use]
    pub fn relation(&self, event: &EventView<'_>) -> Relation {
        let Some(reference) = event.object_ref() else {
            return Relation::None;
        };
        let is = |key: &str, expected: &str| *reference.text(key) == *expected.as_bytes();
        let is_elsewhere =
            |namespace: &[u8]| !self.namespace.is_empty() && namespace != self.namespace.as_bytes();
        if !is("resource", &self.resource)
            || self.group.as_deref().is_some_and(|group| !is("apiGroup", group))
        {
            return Relation::None;
        }
        let (name, namespace) = (reference.text("name"), reference.text("namespace"));
        if *name == *self.name.as_bytes() {
            // A type that is not built in may be one of the cluster whatever namespace was given.
            let is_other = is_elsewhere(&namespace) && (!namespace.is_empty() || self.is_builtin());
            return if is_other { Relation::None } else { Relation::Names };
        }
        if !name.is_empty() {
            return Relation::None;
        }
        match &*event.verb() {
            b"create" if !is_elsewhere(&namespace) => self.relation_of_create(event),
            b"deletecollection" if namespace.is_empty() || !is_elsewhere(&namespace) => {
                self.relation_of_collection(event)
            }
            _ => Relation::None,
        }
    }

    fn is_builtin(&self) -> bool {
        self.group
            .as_deref()
            .is_some_and(|group| kinds::named(&self.resource, Some(group)).is_some())
    }

    fn relation_of_create(&self, event: &EventView<'_>) -> Relation {
        let text = |body: Option<&[u8]>, pointer: &str| {
            body.and_then(|text| body::parse(text).ok())
                .and_then(|body| body.value.pointer(pointer)?.as_str().map(str::to_owned))
        };
        if let Some(name) = text(event.response_object(), "/metadata/name") {
            return if name == self.name {
                Relation::Names
            } else {
                Relation::None
            };
        }
        match text(event.request_object(), "/metadata/generateName") {
            // The server adds five letters and digits, and cuts the rest to make room for them.
            Some(prefix)
                if self.name.len() >= 5
                    && self
                        .name
                        .split_at_checked(self.name.len() - 5)
                        .is_some_and(|(head, _)| {
                            !head.is_empty()
                                && prefix.starts_with(head)
                                && (head == prefix || prefix.len() > 58)
                        }) =>
            {
                Relation::MayTouch
            }
            _ => Relation::None,
        }
    }

    fn relation_of_collection(&self, event: &EventView<'_>) -> Relation {
        let uri = event.request_uri();
        if let Some(selector) = parameter(&uri, "fieldSelector")
            && let Some(other) = selector.split(',').find_map(|term| {
                let (field, value) = term.split_once("==").or_else(|| term.split_once('='))?;
                (field == "metadata.name").then_some(value)
            })
            && other != self.name
        {
            return Relation::None;
        }
        let Some(items) = event.response_object().and_then(|text| body::parse(text).ok()) else {
            return Relation::MayTouch;
        };
        match items.value.get("items").and_then(Value::as_array) {
            None => Relation::MayTouch,
            Some(items) if items.iter().any(|item| self.is(item)) => Relation::Names,
            Some(_) => Relation::None,
        }
    }

    /// Whether a body, as far as its metadata tells, is this object.
    pub(crate) fn is(&self, object: &Value) -> bool {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        text("/metadata/name") == Some(&self.name)
            && (self.namespace.is_empty()
                || text("/metadata/namespace").is_none_or(|namespace| namespace == self.namespace))
    }
}

/// `v1.apps` is the group `apps`, `v1.` is the core group; `vault.example.com` has no version.
fn without_version(group: &str) -> &str {
    let is_version = |text: &str| {
        text.strip_prefix('v')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    match group.split_once('.') {
        Some((version, rest)) if is_version(version) => rest,
        _ => group,
    }
}

/// The first value of a parameter of a request's target, decoded.
pub(crate) fn parameter(uri: &[u8], name: &str) -> Option<String> {
    let query = uri.splitn(2, |byte| *byte == b'?').nth(1)?;
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let key = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        (decoded(key) == name).then(|| decoded(value).into_owned())
    })
}

fn decoded(text: &[u8]) -> Cow<'_, str> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return String::from_utf8_lossy(text);
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        rest = match rest {
            [b'%', high, low, after @ ..] if let (Some(high), Some(low)) = (digit(*high), digit(*low)) => {
                out.push(high << 4 | low);
                after
            }
            [b'+', after @ ..] => {
                out.push(b' ');
                after
            }
            [byte, after @ ..] => {
                out.push(*byte);
                after
            }
            [] => break,
        };
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_names_that_people_use() {
        for (text, group, resource, namespace) in [
            ("deploy/a", Some("apps"), "deployments", "n"),
            ("Deployment/a", Some("apps"), "deployments", "n"),
            ("deployments.apps/a", Some("apps"), "deployments", "n"),
            ("deployments.v1.apps/a", Some("apps"), "deployments", "n"),
            ("secret/a", Some(""), "secrets", "n"),
            ("cm/a", Some(""), "configmaps", "n"),
            ("pods.v1./a", Some(""), "pods", "n"),
            ("po/a", Some(""), "pods", "n"),
            ("svc/a", Some(""), "services", "n"),
            ("ns/a", Some(""), "namespaces", ""),
            ("ingress/a", Some("networking.k8s.io"), "ingresses", "n"),
            ("netpol/a", Some("networking.k8s.io"), "networkpolicies", "n"),
            (
                "clusterrole/a",
                Some("rbac.authorization.k8s.io"),
                "clusterroles",
                "",
            ),
            ("ev.events.k8s.io/a", Some("events.k8s.io"), "events", "n"),
            ("ev/a", Some(""), "events", "n"),
            (
                "orders.shop.example.com/a",
                Some("shop.example.com"),
                "orders",
                "n",
            ),
            (
                "orders.v1beta1.shop.example.com/a",
                Some("shop.example.com"),
                "orders",
                "n",
            ),
            (
                "orders.vault.example.com/a",
                Some("vault.example.com"),
                "orders",
                "n",
            ),
            ("orders/a", None, "orders", "n"),
        ] {
            let target = Target::parse(text, "n").unwrap();
            assert_eq!(
                (
                    target.group.as_deref(),
                    &*target.resource,
                    &*target.namespace,
                    &*target.name
                ),
                (group, resource, namespace, "a"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_names_no_object_is_refused() {
        for text in ["", "a", "/a", "po/", "po/a/b", ".apps/a", "deployments./a/"] {
            assert!(
                matches!(Target::parse(text, "n"), Err(TargetError::Form(_))),
                "{text}"
            );
        }
        let error = Target::parse("po/a", "").unwrap_err();
        assert_eq!(
            error.to_string(),
            "pods live in a namespace: name one to say which `a` is meant"
        );
    }

    #[test]
    fn parameters_are_decoded() {
        let uri = b"/x?a=1&b%5B=c+d%20%zz&a=2&e";
        assert_eq!(parameter(uri, "a").as_deref(), Some("1"));
        assert_eq!(parameter(uri, "b[").as_deref(), Some("c d %zz"));
        assert_eq!(parameter(uri, "e").as_deref(), Some(""));
        assert_eq!(parameter(uri, "f"), None);
        assert_eq!(parameter(b"/x", "a"), None);
    }
}
