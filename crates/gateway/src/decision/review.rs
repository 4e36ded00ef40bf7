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
}

/// What tells the user of a question from others.
pub(super) fn subject<'a>(attributes: &Attributes<'a>) -> Vec<&'a [u8]> {
    let Some(user) = attributes.user else {
        return Vec::new();
    };
    // A word of each kind's own keeps a group from being taken for a key.
    let mut parts: Vec<&[u8]> = vec![b"subject", user.username.as_bytes(), user.uid.as_bytes()];
    for group in user.groups.iter().flatten() {
        parts.extend([b"group", group.as_bytes()]);
    }
    for (key, values) in &user.extra {
        parts.extend([b"extra".as_slice(), key.as_bytes()]);
        parts.extend(values.iter().flatten().map(Text::as_bytes));
    }
    parts
}

/// What tells what a question is about from other things.
pub(super) const fn subject_matter<'a>(attributes: &Attributes<'a>) -> [&'a [u8]; 8] {
    if attributes.is_resource_request {
        [
            b"resource",
            attributes.namespace,
            attributes.verb,
            attributes.api_group,
            attributes.api_version,
            attributes.resource,
            attributes.subresource,
            attributes.name,
        ]
    } else {
        [b"path", attributes.path, attributes.verb, b"", b"", b"", b"", b""]
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
