//! From a document to rules, as Go's decoder fills the v1 types.
//!
//! Source: sigs.k8s.io/json internal/golang/encoding/json decode.go; k8s.io/apiserver
//! pkg/apis/audit/v1/types.go.

use super::document::{Member, Node, Position, Value};

/// A text and where it stood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) text: String,
    pub(crate) at: Position,
}

/// A policy as written, not yet checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) rules: Vec<DraftRule>,
    pub(crate) omit_stages: Vec<Entry>,
    pub(crate) omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DraftRule {
    pub(crate) at: Position,
    pub(crate) level: Entry,
    pub(crate) users: Vec<Entry>,
    pub(crate) user_groups: Vec<Entry>,
    pub(crate) verbs: Vec<Entry>,
    pub(crate) resources: Vec<DraftResources>,
    pub(crate) namespaces: Vec<Entry>,
    pub(crate) non_resource_urls: Vec<Entry>,
    pub(crate) omit_stages: Vec<Entry>,
    pub(crate) omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DraftResources {
    pub(crate) at: Position,
    pub(crate) group: Entry,
    pub(crate) resources: Vec<Entry>,
    pub(crate) resource_names: Vec<Entry>,
}

/// A field that the types do not have, or a JSON field that came twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StrictError {
    pub(crate) at: Position,
    pub(crate) kind: StrictKind,
    /// `rules[0].bar`
    pub(crate) path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StrictKind {
    Unknown,
    Repeated,
}

/// A value of the wrong type; the first one is what the decoder reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeError {
    pub(crate) at: Position,
    pub(crate) message: String,
}

/// Upstream stops to list strict errors here.
const MAX_STRICT_ERRORS: usize = 100;

/// What decoding yields: always a draft, and everything that is wrong with it.
pub(crate) struct Decoded {
    pub(crate) draft: Draft,
    pub(crate) strict: Vec<StrictError>,
    pub(crate) wrong_types: Vec<TypeError>,
}

pub(crate) fn decode(root: &Node) -> Decoded {
    let mut decoder = Decoder {
        strict: Vec::new(),
        wrong_types: Vec::new(),
    };
    let mut draft = Draft::default();
    if let Value::Map(members) = &root.value {
        decoder.policy(members, &mut draft);
    }
    Decoded {
        draft,
        strict: decoder.strict,
        wrong_types: decoder.wrong_types,
    }
}

struct Decoder {
    strict: Vec<StrictError>,
    wrong_types: Vec<TypeError>,
}

/// Names for error texts: the Go struct and the path of JSON names, `PolicyRule` and `rules.level`.
#[derive(Clone, Copy)]
struct Field<'a> {
    owner: &'a str,
    path: &'a str,
}

impl Decoder {
    fn wrong(&mut self, node: &Node, field: Field<'_>, go_type: &str) {
        let message = format!(
            "json: cannot unmarshal {} into Go struct field {}.{} of type {go_type}",
            node.value.kind(),
            field.owner,
            field.path
        );
        self.wrong_types.push(TypeError { at: node.at, message });
    }

    /// Reports fields that are not `known` and fields that come twice; calls `each` for the rest.
    fn members(
        &mut self,
        members: &[Member],
        prefix: &str,
        known: &[&str],
        mut each: impl FnMut(&mut Self, &str, &Node),
    ) {
        let mut seen: Vec<&str> = Vec::new();
        for member in members {
            let key = member.key.as_str();
            let mut report = |kind| {
                let path = if prefix.is_empty() {
                    key.to_owned()
                } else {
                    format!("{prefix}.{key}")
                };
                let error = StrictError {
                    at: member.at,
                    kind,
                    path,
                };
                if self.strict.len() < MAX_STRICT_ERRORS && !self.strict.contains(&error) {
                    self.strict.push(error);
                }
            };
            if !known.contains(&key) {
                report(StrictKind::Unknown);
                continue;
            }
            if seen.contains(&key) {
                report(StrictKind::Repeated);
            }
            seen.push(key);
            each(self, key, &member.node);
        }
    }

    fn policy(&mut self, members: &[Member], draft: &mut Draft) {
        const KNOWN: &[&str] = &[
            "kind",
            "apiVersion",
            "metadata",
            "rules",
            "omitStages",
            "omitManagedFields",
        ];
        self.members(members, "", KNOWN, |decoder, key, node| {
            let field = Field {
                owner: "Policy",
                path: key,
            };
            match key {
                "metadata" => decoder.metadata(node, draft),
                "rules" => decoder.list(
                    node,
                    field,
                    ("[]v1.PolicyRule", "v1.PolicyRule"),
                    &mut draft.rules,
                    |decoder, index, node, rule| {
                        let Value::Map(members) = &node.value else {
                            return false;
                        };
                        rule.at = node.at;
                        decoder.rule(members, index, rule);
                        true
                    },
                ),
                "omitStages" => {
                    decoder.texts(node, field, ("[]v1.Stage", "v1.Stage"), &mut draft.omit_stages)
                }
                "omitManagedFields" => match node.value {
                    Value::Bool(value) => draft.omit_managed_fields = value,
                    Value::Null => {}
                    _ => decoder.wrong(node, field, "bool"),
                },
                _ => {}
            }
        });
    }

    fn metadata(&mut self, node: &Node, draft: &mut Draft) {
        const KNOWN: &[&str] = &[
            "name",
            "generateName",
            "namespace",
            "selfLink",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "labels",
            "annotations",
            "ownerReferences",
            "finalizers",
            "managedFields",
        ];
        let members = match &node.value {
            Value::Null => return,
            Value::Map(members) => members,
            _ => {
                return self.wrong(
                    node,
                    Field {
                        owner: "Policy",
                        path: "metadata",
                    },
                    "v1.ObjectMeta",
                );
            }
        };
        self.members(members, "metadata", KNOWN, |decoder, key, node| {
            let path = format!("metadata.{key}");
            let field = Field {
                owner: "ObjectMeta",
                path: &path,
            };
            match (key, &node.value) {
                (_, Value::Null) => {}
                ("name", Value::String(name)) => draft.name.clone_from(name),
                ("name" | "generateName" | "namespace" | "selfLink" | "resourceVersion", value)
                    if !matches!(value, Value::String(_)) =>
                {
                    decoder.wrong(node, field, "string");
                }
                ("uid", value) if !matches!(value, Value::String(_)) => {
                    decoder.wrong(node, field, "types.UID")
                }
                ("generation" | "deletionGracePeriodSeconds", value)
                    if !matches!(value, Value::Number(_)) =>
                {
                    decoder.wrong(node, field, "int64");
                }
                ("creationTimestamp" | "deletionTimestamp", value) => decoder.time(node, value),
                ("labels" | "annotations", Value::Map(members)) => {
                    for member in members {
                        if !matches!(member.node.value, Value::String(_) | Value::Null) {
                            decoder.wrong(&member.node, field, "string");
                        }
                    }
                }
                ("labels" | "annotations", _) => decoder.wrong(node, field, "map[string]string"),
                ("finalizers", _) => decoder.texts(node, field, ("[]string", "string"), &mut Vec::new()),
                _ => {}
            }
        });
    }

    fn time(&mut self, node: &Node, value: &Value) {
        let text = match value {
            Value::String(text) => text.as_str(),
            _ => "",
        };
        let digits_at = |range: std::ops::Range<usize>| {
            text.get(range)
                .is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let is_time = digits_at(0..4) && digits_at(5..7) && digits_at(8..10) && text.get(10..11) == Some("T");
        if !is_time {
            let message = format!(
                "parsing time {} as \"2006-01-02T15:04:05Z07:00\": cannot parse {} as \"2006\"",
                super::document::quoted(text),
                super::document::quoted(text)
            );
            self.wrong_types.push(TypeError { at: node.at, message });
        }
    }

    fn rule(&mut self, members: &[Member], index: usize, rule: &mut DraftRule) {
        const KNOWN: &[&str] = &[
            "level",
            "users",
            "userGroups",
            "verbs",
            "resources",
            "namespaces",
            "nonResourceURLs",
            "omitStages",
            "omitManagedFields",
        ];
        let prefix = format!("rules[{index}]");
        self.members(members, &prefix, KNOWN, |decoder, key, node| {
            let path = format!("rules.{key}");
            let field = Field {
                owner: "PolicyRule",
                path: &path,
            };
            let strings = ("[]string", "string");
            match key {
                "level" => decoder.text(node, field, "v1.Level", &mut rule.level),
                "users" => decoder.texts(node, field, strings, &mut rule.users),
                "userGroups" => decoder.texts(node, field, strings, &mut rule.user_groups),
                "verbs" => decoder.texts(node, field, strings, &mut rule.verbs),
                "namespaces" => decoder.texts(node, field, strings, &mut rule.namespaces),
                "nonResourceURLs" => decoder.texts(node, field, strings, &mut rule.non_resource_urls),
                "omitStages" => decoder.texts(node, field, ("[]v1.Stage", "v1.Stage"), &mut rule.omit_stages),
                "omitManagedFields" => match node.value {
                    Value::Bool(value) => rule.omit_managed_fields = Some(value),
                    Value::Null => rule.omit_managed_fields = None,
                    _ => decoder.wrong(node, field, "bool"),
                },
                "resources" => {
                    let types = ("[]v1.GroupResources", "v1.GroupResources");
                    decoder.list(
                        node,
                        field,
                        types,
                        &mut rule.resources,
                        |decoder, at, node, resources| {
                            let Value::Map(members) = &node.value else {
                                return false;
                            };
                            resources.at = node.at;
                            decoder.resources(members, &format!("rules[{index}].resources[{at}]"), resources);
                            true
                        },
                    );
                }
                _ => {}
            }
        });
    }

    fn resources(&mut self, members: &[Member], prefix: &str, resources: &mut DraftResources) {
        const KNOWN: &[&str] = &["group", "resources", "resourceNames"];
        self.members(members, prefix, KNOWN, |decoder, key, node| {
            let path = format!("rules.resources.{key}");
            let field = Field {
                owner: "GroupResources",
                path: &path,
            };
            match key {
                "group" => decoder.text(node, field, "string", &mut resources.group),
                "resources" => decoder.texts(node, field, ("[]string", "string"), &mut resources.resources),
                _ => decoder.texts(node, field, ("[]string", "string"), &mut resources.resource_names),
            }
        });
    }

    fn text(&mut self, node: &Node, field: Field<'_>, go_type: &str, into: &mut Entry) {
        match &node.value {
            Value::String(text) => {
                *into = Entry {
                    text: text.clone(),
                    at: node.at,
                }
            }
            Value::Null => {}
            _ => self.wrong(node, field, go_type),
        }
    }

    fn texts(&mut self, node: &Node, field: Field<'_>, types: (&str, &str), into: &mut Vec<Entry>) {
        self.list(node, field, types, into, |_, _, node, entry| {
            entry.at = node.at;
            match &node.value {
                Value::String(text) => {
                    entry.text.clone_from(text);
                    true
                }
                _ => false,
            }
        });
    }

    /// Fills a list element by element: where a field is repeated, the elements of the first
    /// occurrence are decoded into, not replaced.
    fn list<T: Default>(
        &mut self,
        node: &Node,
        field: Field<'_>,
        (list_type, item_type): (&str, &str),
        into: &mut Vec<T>,
        mut item: impl FnMut(&mut Self, usize, &Node, &mut T) -> bool,
    ) {
        let items = match &node.value {
            Value::Null => return into.clear(),
            Value::List(items) => items,
            _ => return self.wrong(node, field, list_type),
        };
        into.truncate(items.len());
        for (index, node) in items.iter().enumerate() {
            if into.len() <= index {
                into.push(T::default());
            }
            let Some(element) = into.get_mut(index) else {
                continue;
            };
            if !item(self, index, node, element) && node.value != Value::Null {
                self.wrong(node, field, item_type);
            }
        }
    }
}
