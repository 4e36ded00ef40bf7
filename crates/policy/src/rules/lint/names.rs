//! Names that policies get wrong: resources and their groups, verbs, users and groups.

/// The name that `text` was probably meant to be: the same but for case, or at most a few letters away.
pub(super) fn nearest<'a>(text: &str, names: &[&'a str]) -> Option<&'a str> {
    if let Some(name) = names.iter().find(|name| name.eq_ignore_ascii_case(text)) {
        return Some(name);
    }
    let allowed = (text.chars().count() / 3).clamp(1, 3);
    names
        .iter()
        .map(|name| {
            (
                strsim::damerau_levenshtein(&text.to_lowercase(), &name.to_lowercase()),
                *name,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Whether objects of a resource live in namespaces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Cluster,
    Namespaced,
}

use Scope::{Cluster, Namespaced};

/// Plural, singular in lower case, short name.
type Names = (&'static str, &'static str, &'static str);

/// The built-in resources of Kubernetes 1.30 and later by group, with kind and short name.
#[rustfmt::skip]
const BUILT_IN: &[(&str, Scope, &[Names])] = &[
    ("", Namespaced, &[
        ("bindings", "binding", ""), ("configmaps", "configmap", "cm"), ("endpoints", "endpoint", "ep"),
        ("events", "event", "ev"), ("limitranges", "limitrange", "limits"),
        ("persistentvolumeclaims", "persistentvolumeclaim", "pvc"), ("pods", "pod", "po"),
        ("podtemplates", "podtemplate", ""), ("replicationcontrollers", "replicationcontroller", "rc"),
        ("resourcequotas", "resourcequota", "quota"), ("secrets", "secret", ""),
        ("serviceaccounts", "serviceaccount", "sa"), ("services", "service", "svc"),
    ]),
    ("", Cluster, &[
        ("componentstatuses", "componentstatus", "cs"), ("namespaces", "namespace", "ns"),
        ("nodes", "node", "no"), ("persistentvolumes", "persistentvolume", "pv"),
    ]),
    ("admissionregistration.k8s.io", Cluster, &[
        ("mutatingwebhookconfigurations", "mutatingwebhookconfiguration", ""),
        ("validatingwebhookconfigurations", "validatingwebhookconfiguration", ""),
        ("validatingadmissionpolicies", "validatingadmissionpolicy", ""),
        ("validatingadmissionpolicybindings", "validatingadmissionpolicybinding", ""),
        ("mutatingadmissionpolicies", "mutatingadmissionpolicy", ""),
        ("mutatingadmissionpolicybindings", "mutatingadmissionpolicybinding", ""),
    ]),
    ("apiextensions.k8s.io", Cluster, &[("customresourcedefinitions", "customresourcedefinition", "crd")]),
    ("apiregistration.k8s.io", Cluster, &[("apiservices", "apiservice", "")]),
    ("apps", Namespaced, &[
        ("controllerrevisions", "controllerrevision", ""), ("daemonsets", "daemonset", "ds"),
        ("deployments", "deployment", "deploy"), ("replicasets", "replicaset", "rs"),
        ("statefulsets", "statefulset", "sts"),
    ]),
    ("authentication.k8s.io", Cluster, &[
        ("selfsubjectreviews", "selfsubjectreview", ""), ("tokenreviews", "tokenreview", ""),
    ]),
    ("authorization.k8s.io", Cluster, &[
        ("selfsubjectaccessreviews", "selfsubjectaccessreview", ""),
        ("selfsubjectrulesreviews", "selfsubjectrulesreview", ""),
        ("subjectaccessreviews", "subjectaccessreview", ""),
    ]),
    ("authorization.k8s.io", Namespaced, &[("localsubjectaccessreviews", "localsubjectaccessreview", "")]),
    ("autoscaling", Namespaced, &[("horizontalpodautoscalers", "horizontalpodautoscaler", "hpa")]),
    ("batch", Namespaced, &[("cronjobs", "cronjob", "cj"), ("jobs", "job", "")]),
    ("certificates.k8s.io", Cluster, &[
        ("certificatesigningrequests", "certificatesigningrequest", "csr"),
        ("clustertrustbundles", "clustertrustbundle", ""),
    ]),
    ("coordination.k8s.io", Namespaced, &[("leases", "lease", "")]),
    ("discovery.k8s.io", Namespaced, &[("endpointslices", "endpointslice", "")]),
    ("events.k8s.io", Namespaced, &[("events", "event", "ev")]),
    ("flowcontrol.apiserver.k8s.io", Cluster, &[
        ("flowschemas", "flowschema", ""), ("prioritylevelconfigurations", "prioritylevelconfiguration", ""),
    ]),
    ("networking.k8s.io", Namespaced, &[
        ("ingresses", "ingress", "ing"), ("networkpolicies", "networkpolicy", "netpol"),
    ]),
    ("networking.k8s.io", Cluster, &[
        ("ingressclasses", "ingressclass", ""), ("ipaddresses", "ipaddress", ""), ("servicecidrs", "servicecidr", ""),
    ]),
    ("node.k8s.io", Cluster, &[("runtimeclasses", "runtimeclass", "")]),
    ("policy", Namespaced, &[("poddisruptionbudgets", "poddisruptionbudget", "pdb")]),
    ("rbac.authorization.k8s.io", Cluster, &[
        ("clusterrolebindings", "clusterrolebinding", ""), ("clusterroles", "clusterrole", ""),
    ]),
    ("rbac.authorization.k8s.io", Namespaced, &[
        ("rolebindings", "rolebinding", ""), ("roles", "role", ""),
    ]),
    ("resource.k8s.io", Cluster, &[("deviceclasses", "deviceclass", ""), ("resourceslices", "resourceslice", "")]),
    ("resource.k8s.io", Namespaced, &[
        ("resourceclaims", "resourceclaim", ""), ("resourceclaimtemplates", "resourceclaimtemplate", ""),
    ]),
    ("scheduling.k8s.io", Cluster, &[("priorityclasses", "priorityclass", "pc")]),
    ("storage.k8s.io", Cluster, &[
        ("csidrivers", "csidriver", ""), ("csinodes", "csinode", ""), ("storageclasses", "storageclass", "sc"),
        ("volumeattachments", "volumeattachment", ""),
    ]),
    ("storage.k8s.io", Namespaced, &[("csistoragecapacities", "csistoragecapacity", "")]),
];

/// Groups that served built-in resources once and do no longer.
const REMOVED_GROUPS: &[&str] = &["extensions"];

fn all() -> impl Iterator<
    Item = (
        &'static str,
        Scope,
        &'static (&'static str, &'static str, &'static str),
    ),
> {
    BUILT_IN
        .iter()
        .flat_map(|(group, scope, resources)| resources.iter().map(|resource| (*group, *scope, resource)))
}

/// Whether only Kubernetes itself puts resources into this group.
pub(super) fn is_built_in_group(group: &str) -> bool {
    REMOVED_GROUPS.contains(&group) || BUILT_IN.iter().any(|(known, ..)| *known == group)
}

/// The groups that a built-in resource has.
pub(super) fn groups_of(resource: &str) -> Vec<&'static str> {
    all()
        .filter(|(_, _, (name, ..))| *name == resource)
        .map(|(group, ..)| group)
        .collect()
}

/// The plural for a kind, a short name, or a plural with a slip of the pen.
pub(super) fn plural_of(text: &str, group: &str) -> Option<&'static str> {
    let lower = text.to_lowercase();
    let in_group = || all().filter(|(of, ..)| *of == group || group == "*");
    let by_other_name = in_group().find(|(_, _, (plural, kind, short))| {
        *kind == lower || (!short.is_empty() && *short == lower) || (*plural == lower && *plural != text)
    });
    if let Some((_, _, (plural, ..))) = by_other_name {
        return Some(plural);
    }
    if in_group().any(|(_, _, (plural, ..))| *plural == text) {
        return None;
    }
    // Among all groups there is a resource near to any word.
    if group == "*" {
        return None;
    }
    let plurals: Vec<&str> = in_group().map(|(_, _, (plural, ..))| *plural).collect();
    nearest(text, &plurals)
}

/// Whether requests about this resource never have a namespace. Those about a namespace have its own.
pub(super) fn is_cluster_scoped(group: &str, resource: &str) -> bool {
    resource != "namespaces"
        && all().any(|(of, scope, (plural, ..))| of == group && *plural == resource && scope == Cluster)
}

/// The verbs of resource requests. Source: k8s.io/apiserver pkg/endpoints/request/requestinfo.go.
pub(super) const RESOURCE_VERBS: &[&str] = &[
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "proxy",
];

/// Verbs that change something.
pub(super) const MUTATING_VERBS: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];

/// What to write for a word that is not a verb of requests.
pub(super) fn verbs_for(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_lowercase().as_str() {
        "*" | "all" => "leave verbs out to match every verb",
        "read" | "view" => "write [get, list, watch]",
        "write" | "edit" | "modify" => "write [create, update, patch, delete, deletecollection]",
        "post" => "write create",
        "put" => "write update",
        "head" => "write get: HEAD requests have this verb",
        "connect" => "write [create, get]: sessions have these verbs, on pods/exec and the like",
        "impersonate" => "leave it out: the request that is made as somebody else has its own verb",
        "use" | "bind" | "escalate" | "approve" | "sign" | "attest" => {
            "leave it out: it is only asked of the authorizer, no request has it"
        }
        _ => return None,
    })
}

/// Names that begin with `system:` and are groups.
pub(super) fn is_system_group(name: &str) -> bool {
    matches!(
        name,
        "system:masters"
            | "system:authenticated"
            | "system:unauthenticated"
            | "system:nodes"
            | "system:serviceaccounts"
            | "system:bootstrappers"
            | "system:monitoring"
    ) || name.starts_with("system:serviceaccounts:")
        || name.starts_with("system:bootstrappers:")
}

/// Names that begin with `system:` and are users.
pub(super) fn is_system_user(name: &str) -> bool {
    matches!(
        name,
        "system:anonymous"
            | "system:admin"
            | "system:apiserver"
            | "system:aggregator"
            | "system:kube-controller-manager"
            | "system:kube-scheduler"
            | "system:kube-proxy"
            | "system:unsecured"
            | "system:volume-scheduler"
            | "kubernetes-admin"
    ) || name.starts_with("system:serviceaccount:")
        || name.starts_with("system:node:")
        || name.starts_with("system:bootstrap:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names_are_near() {
        let levels = ["None", "Metadata", "Request", "RequestResponse"];
        assert_eq!(nearest("metadata", &levels), Some("Metadata"));
        assert_eq!(nearest("MetaDate", &levels), Some("Metadata"));
        assert_eq!(nearest("RequestRespons", &levels), Some("RequestResponse"));
        assert_eq!(nearest("Everything", &levels), None);
    }

    #[test]
    fn kinds_short_names_and_slips_have_a_plural() {
        assert_eq!(plural_of("Deployment", "apps"), Some("deployments"));
        assert_eq!(plural_of("cm", ""), Some("configmaps"));
        assert_eq!(plural_of("secrts", ""), Some("secrets"));
        assert_eq!(plural_of("pods", ""), None);
        assert_eq!(plural_of("widgets", ""), None);
    }
}
