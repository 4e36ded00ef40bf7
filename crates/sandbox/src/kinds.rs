//! The resources that are served: a table of built-in ones, and those that custom resource
//! definitions add.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

type Str = Cow<'static, str>;

/// How an object's part is addressed besides the object itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subresource {
    pub(crate) name: &'static str,
    /// Kind in discovery.
    pub(crate) kind: &'static str,
    /// Group and version of the kind, where they are not the resource's own.
    pub(crate) group_version: Option<(&'static str, &'static str)>,
    pub(crate) verbs: &'static [&'static str],
}

/// What a kind's objects are to the handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// Kept in the store.
    Stored,
    /// A question that is answered and forgotten.
    Review,
}

/// A column of a custom resource's table.
#[derive(Clone, Debug)]
pub(crate) struct CustomColumn {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) json_path: String,
    pub(crate) priority: i64,
}

/// What a custom resource definition adds to a kind.
#[derive(Clone, Debug)]
pub(crate) struct Custom {
    pub(crate) columns: Vec<CustomColumn>,
    pub(crate) status_subresource: bool,
    /// The `openAPIV3Schema`.
    pub(crate) schema: Value,
}

/// One resource in one version.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) group: Str,
    pub(crate) version: Str,
    pub(crate) kind: Str,
    pub(crate) list_kind: Str,
    pub(crate) plural: Str,
    pub(crate) singular: Str,
    pub(crate) short_names: Vec<Str>,
    pub(crate) categories: Vec<Str>,
    pub(crate) namespaced: bool,
    pub(crate) nature: Nature,
    pub(crate) verbs: &'static [&'static str],
    pub(crate) subresources: Vec<Subresource>,
    /// Fields a field selector may use besides name and namespace.
    pub(crate) selectable: &'static [&'static str],
    pub(crate) custom: Option<Arc<Custom>>,
    /// `plural` or `plural.group`: the store's name for the resource.
    pub(crate) key: Arc<str>,
}

impl Kind {
    /// `group/version`, or the version alone in the core group.
    pub(crate) fn api_version(&self) -> String {
        group_version(&self.group, &self.version)
    }

    pub(crate) fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources
            .iter()
            .find(|subresource| subresource.name == name)
    }
}

/// `group/version`, or the version alone in the core group.
pub(crate) fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

const ALL: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const CREATE: &[&str] = &["create"];
const CONNECT: &[&str] = &["create", "get"];
const PARTIAL: &[&str] = &["get", "patch", "update"];
const GET: &[&str] = &["get"];
const UPDATE: &[&str] = &["update"];

const STATUS: &str = "status";
const RBAC: &str = "rbac.authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

const fn sub(name: &'static str, kind: &'static str, verbs: &'static [&'static str]) -> Subresource {
    Subresource {
        name,
        kind,
        group_version: None,
        verbs,
    }
}

const fn foreign(
    name: &'static str,
    kind: &'static str,
    group_version: (&'static str, &'static str),
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource {
        name,
        kind,
        group_version: Some(group_version),
        verbs,
    }
}

const SCALE: Subresource = foreign("scale", "Scale", ("autoscaling", "v1"), PARTIAL);

/// One line of the table of built-in resources.
struct Row {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    /// Verbs are [`ALL`] unless the row says otherwise.
    nature: Nature,
    subresources: &'static [Subresource],
    selectable: &'static [&'static str],
}

const fn row(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Row {
    Row {
        group,
        version,
        kind,
        plural,
        short: &[],
        categories: &[],
        namespaced: true,
        nature: Nature::Stored,
        subresources: &[],
        selectable: &[],
    }
}

impl Row {
    const fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }

    const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short = names;
        self
    }

    const fn everywhere(mut self) -> Self {
        self.categories = &["all"];
        self
    }

    const fn review(mut self) -> Self {
        self.nature = Nature::Review;
        self
    }

    const fn subs(mut self, subresources: &'static [Subresource]) -> Self {
        self.subresources = subresources;
        self
    }

    const fn select(mut self, fields: &'static [&'static str]) -> Self {
        self.selectable = fields;
        self
    }

    fn build(&self) -> Kind {
        Kind {
            group: self.group.into(),
            version: self.version.into(),
            kind: self.kind.into(),
            list_kind: format!("{}List", self.kind).into(),
            plural: self.plural.into(),
            singular: self.kind.to_ascii_lowercase().into(),
            short_names: self.short.iter().map(|name| Str::Borrowed(*name)).collect(),
            categories: self.categories.iter().map(|name| Str::Borrowed(*name)).collect(),
            namespaced: self.namespaced,
            nature: self.nature,
            verbs: if self.nature == Nature::Review {
                CREATE
            } else {
                ALL
            },
            subresources: self.subresources.to_vec(),
            selectable: self.selectable,
            custom: None,
            key: store_key(self.group, self.plural),
        }
    }
}

/// The store's name for a resource.
pub(crate) fn store_key(group: &str, plural: &str) -> Arc<str> {
    crate::status::qualified(group, plural).into()
}

const POD_SUBRESOURCES: &[Subresource] = &[
    sub("attach", "PodAttachOptions", CONNECT),
    sub("binding", "Binding", CREATE),
    sub("ephemeralcontainers", "Pod", PARTIAL),
    foreign("eviction", "Eviction", ("policy", "v1"), CREATE),
    sub("exec", "PodExecOptions", CONNECT),
    sub("log", "Pod", GET),
    sub("portforward", "PodPortForwardOptions", CONNECT),
    sub(STATUS, "Pod", PARTIAL),
];

const POD_FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

const TOKEN: Subresource = foreign("token", "TokenRequest", (AUTHENTICATION, "v1"), CREATE);

const TABLE: &[Row] = &[
    row("", "v1", "ConfigMap", "configmaps").short(&["cm"]),
    row("", "v1", "Endpoints", "endpoints").short(&["ep"]),
    row("", "v1", "Event", "events")
        .short(&["ev"])
        .select(EVENT_FIELDS),
    row("", "v1", "LimitRange", "limitranges").short(&["limits"]),
    row("", "v1", "Namespace", "namespaces")
        .short(&["ns"])
        .cluster()
        .subs(&[
            sub("finalize", "Namespace", UPDATE),
            sub(STATUS, "Namespace", PARTIAL),
        ])
        .select(&["status.phase"]),
    row("", "v1", "Node", "nodes")
        .short(&["no"])
        .cluster()
        .subs(&[sub(STATUS, "Node", PARTIAL)])
        .select(&["spec.unschedulable"]),
    row("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims").short(&["pvc"]),
    row("", "v1", "Pod", "pods")
        .short(&["po"])
        .everywhere()
        .subs(POD_SUBRESOURCES)
        .select(POD_FIELDS),
    row("", "v1", "ResourceQuota", "resourcequotas").short(&["quota"]),
    row("", "v1", "Secret", "secrets").select(&["type"]),
    row("", "v1", "ServiceAccount", "serviceaccounts")
        .short(&["sa"])
        .subs(&[TOKEN]),
    row("", "v1", "Service", "services")
        .short(&["svc"])
        .everywhere()
        .subs(&[sub(STATUS, "Service", PARTIAL)])
        .select(&["spec.clusterIP", "spec.type"]),
    row(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
    )
    .short(&["crd", "crds"])
    .cluster()
    .subs(&[sub(STATUS, "CustomResourceDefinition", PARTIAL)]),
    row("apps", "v1", "DaemonSet", "daemonsets")
        .short(&["ds"])
        .everywhere()
        .subs(&[sub(STATUS, "DaemonSet", PARTIAL)]),
    row("apps", "v1", "Deployment", "deployments")
        .short(&["deploy"])
        .everywhere()
        .subs(&[SCALE, sub(STATUS, "Deployment", PARTIAL)]),
    row("apps", "v1", "ReplicaSet", "replicasets")
        .short(&["rs"])
        .everywhere()
        .subs(&[SCALE, sub(STATUS, "ReplicaSet", PARTIAL)])
        .select(&["status.replicas"]),
    row("apps", "v1", "StatefulSet", "statefulsets")
        .short(&["sts"])
        .everywhere()
        .subs(&[SCALE, sub(STATUS, "StatefulSet", PARTIAL)]),
    row(AUTHENTICATION, "v1", "SelfSubjectReview", "selfsubjectreviews")
        .cluster()
        .review(),
    row(AUTHENTICATION, "v1", "TokenReview", "tokenreviews")
        .cluster()
        .review(),
    row(
        AUTHORIZATION,
        "v1",
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
    )
    .review(),
    row(
        AUTHORIZATION,
        "v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
    )
    .cluster()
    .review(),
    row(
        AUTHORIZATION,
        "v1",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
    )
    .cluster()
    .review(),
    row(AUTHORIZATION, "v1", "SubjectAccessReview", "subjectaccessreviews")
        .cluster()
        .review(),
    row("batch", "v1", "CronJob", "cronjobs")
        .short(&["cj"])
        .everywhere()
        .subs(&[sub(STATUS, "CronJob", PARTIAL)]),
    row("batch", "v1", "Job", "jobs")
        .everywhere()
        .subs(&[sub(STATUS, "Job", PARTIAL)])
        .select(&["status.successful"]),
    row("coordination.k8s.io", "v1", "Lease", "leases"),
    row("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies").short(&["netpol"]),
    row(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings").cluster(),
    row(RBAC, "v1", "ClusterRole", "clusterroles").cluster(),
    row(RBAC, "v1", "RoleBinding", "rolebindings"),
    row(RBAC, "v1", "Role", "roles"),
];

/// All built-in resources, by group, then plural.
pub(crate) fn built_in() -> Vec<Arc<Kind>> {
    TABLE.iter().map(|row| Arc::new(row.build())).collect()
}

fn names(value: Option<&Value>) -> Vec<Str> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str)
        .map(|name| Str::Owned(name.to_owned()))
        .collect()
}

/// The resources that a CustomResourceDefinition makes the server serve, one per served version.
pub(crate) fn of_definition(definition: &Value) -> Vec<Arc<Kind>> {
    let text = |pointer: &str| {
        definition
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (group, plural, kind) = (
        text("/spec/group"),
        text("/spec/names/plural"),
        text("/spec/names/kind"),
    );
    if group.is_empty() || plural.is_empty() || kind.is_empty() {
        return Vec::new();
    }
    let singular = match text("/spec/names/singular") {
        singular if singular.is_empty() => kind.to_ascii_lowercase(),
        singular => singular,
    };
    let list_kind = match text("/spec/names/listKind") {
        list if list.is_empty() => format!("{kind}List"),
        list => list,
    };
    let versions = definition
        .pointer("/spec/versions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    versions
        .filter(|version| version.get("served").and_then(Value::as_bool) == Some(true))
        .filter_map(|version| {
            let name = version.get("name").and_then(Value::as_str)?;
            let status_subresource = version.pointer("/subresources/status").is_some();
            let mut subresources = Vec::new();
            if version.pointer("/subresources/scale").is_some() {
                subresources.push(SCALE);
            }
            if status_subresource {
                subresources.push(sub(STATUS, "", PARTIAL));
            }
            let custom = Custom {
                columns: columns(version),
                status_subresource,
                schema: version
                    .pointer("/schema/openAPIV3Schema")
                    .cloned()
                    .unwrap_or_default(),
            };
            Some(Arc::new(Kind {
                group: group.clone().into(),
                version: name.to_owned().into(),
                kind: kind.clone().into(),
                list_kind: list_kind.clone().into(),
                plural: plural.clone().into(),
                singular: singular.clone().into(),
                short_names: names(definition.pointer("/spec/names/shortNames")),
                categories: names(definition.pointer("/spec/names/categories")),
                namespaced: text("/spec/scope") == "Namespaced",
                nature: Nature::Stored,
                verbs: ALL,
                subresources,
                selectable: &[],
                custom: Some(Arc::new(custom)),
                key: store_key(&group, &plural),
            }))
        })
        .collect()
}

fn columns(version: &Value) -> Vec<CustomColumn> {
    let list = version
        .get("additionalPrinterColumns")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    list.map(|column| {
        let text = |key: &str| {
            column
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        CustomColumn {
            name: text("name"),
            kind: text("type"),
            json_path: text("jsonPath"),
            priority: column.get("priority").and_then(Value::as_i64).unwrap_or(0),
        }
    })
    .collect()
}

/// All resources that are served now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kinds(Vec<Arc<Kind>>);

impl Kinds {
    /// The built-in resources and those of the given definitions.
    pub(crate) fn new<'a>(definitions: impl Iterator<Item = &'a Value>) -> Self {
        let mut all = built_in();
        for definition in definitions {
            all.extend(of_definition(definition));
        }
        Self(all)
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.0
            .iter()
            .find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.0.iter()
    }

    /// Group and versions in the order of discovery; the core group is the empty one.
    pub(crate) fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for kind in &self.0 {
            let index = groups.iter().position(|(group, _)| *group == kind.group);
            match index.and_then(|index| groups.get_mut(index)) {
                Some((_, versions)) if versions.iter().any(|version| *version == kind.version) => {}
                Some((_, versions)) => versions.push(kind.version.to_string()),
                None => groups.push((kind.group.to_string(), vec![kind.version.to_string()])),
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn built_in_resources_have_unique_names() {
        let all = built_in();
        for (index, kind) in all.iter().enumerate() {
            assert!(
                all.iter().skip(index + 1).all(|other| other.key != kind.key),
                "{}",
                kind.key
            );
        }
    }

    #[test]
    fn a_definition_serves_its_served_versions() {
        let definition = json!({"spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [
                {"name": "v1", "served": true, "subresources": {"status": {}}},
                {"name": "v1alpha1", "served": false},
            ],
        }});
        let kinds = Kinds::new([&definition].into_iter());
        let widget = kinds.find("example.com", "v1", "widgets").unwrap();
        assert_eq!(
            (&*widget.key, &*widget.singular),
            ("widgets.example.com", "widget")
        );
        assert!(widget.subresource("status").is_some());
        assert!(kinds.find("example.com", "v1alpha1", "widgets").is_none());
    }
}
