//! Access reviews as the cluster reads and writes them.

use std::collections::BTreeMap;

use kaudit_event::{Text, UserInfo};
use kaudit_policy::Attributes;
use serde::{Deserialize, Serialize};

pub(super) const SELF_SUBJECT: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
pub(super) const SUBJECT: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// `authorization.k8s.io/v1` SelfSubjectAccessReview, or SubjectAccessReview where it names a user.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Review {
    kind: &'static str,
    api_version: &'static str,
    spec: Spec,
}

#[derive(Debug, Serialize)]
struct Spec {
    #[serde(flatten)]
    what: What,
    #[serde(flatten)]
    subject: Option<Subject>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum What {
    ResourceAttributes {
        namespace: String,
        verb: String,
        group: String,
        version: String,
        resource: String,
        subresource: String,
        name: String,
    },
    NonResourceAttributes {
        path: String,
        verb: String,
    },
}

#[derive(Debug, Serialize)]
struct Subject {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Review {
    pub(super) fn of(attributes: &Attributes<'_>, subject: Option<&UserInfo>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let what = if attributes.is_resource_request {
            What::ResourceAttributes {
                namespace: text(attributes.namespace),
                verb: text(attributes.verb),
                group: text(attributes.api_group),
                version: text(attributes.api_version),
                resource: text(attributes.resource),
                subresource: text(attributes.subresource),
                name: text(attributes.name),
            }
        } else {
            What::NonResourceAttributes {
                path: text(attributes.path),
                verb: text(attributes.verb),
            }
        };
        Self {
            kind: if subject.is_some() {
                "SubjectAccessReview"
            } else {
                "SelfSubjectAccessReview"
            },
            api_version: "authorization.k8s.io/v1",
            spec: Spec {
                what,
                subject: subject.map(Subject::of),
            },
        }
    }

    /// What tells this subject from others.
    pub(super) fn subject(&self) -> Vec<&[u8]> {
        let Some(Subject {
            user,
            uid,
            groups,
            extra,
        }) = &self.spec.subject
        else {
            return Vec::new();
        };
        // A word of each kind's own keeps a group from being taken for a key.
        let mut parts: Vec<&[u8]> = vec![b"subject", user.as_bytes(), uid.as_bytes()];
        for group in groups {
            parts.extend([b"group", group.as_bytes()]);
        }
        for (key, values) in extra {
            parts.extend([b"extra".as_slice(), key.as_bytes()]);
            parts.extend(values.iter().map(|value| value.as_bytes()));
        }
        parts
    }

    /// What tells these attributes from others.
    pub(super) fn attributes(&self) -> Vec<&str> {
        match &self.spec.what {
            What::ResourceAttributes {
                namespace,
                verb,
                group,
                version,
                resource,
                subresource,
                name,
            } => vec![
                "resource",
                namespace,
                verb,
                group,
                version,
                resource,
                subresource,
                name,
            ],
            What::NonResourceAttributes { path, verb } => vec!["path", path, verb],
        }
    }
}

impl Subject {
    fn of(user: &UserInfo) -> Self {
        let text = |text: &Text| text.to_string_lossy().into_owned();
        let texts = |values: &Vec<Text>| values.iter().map(text).collect::<Vec<_>>();
        Self {
            user: text(&user.username),
            uid: text(&user.uid),
            groups: user.groups.as_ref().map(texts).unwrap_or_default(),
            extra: user
                .extra
                .iter()
                .map(|(key, values)| (text(key), values.as_ref().map(texts).unwrap_or_default()))
                .collect(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Reviewed {
    #[serde(default)]
    pub(super) status: ReviewedStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ReviewedStatus {
    pub(super) allowed: bool,
    pub(super) reason: String,
}
