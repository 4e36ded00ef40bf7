//! The built-in resources by every name that people give them.
//!
//! Source: kubernetes pkg/registry/*/*/storage, `ShortNames` and `NamespaceScoped`.

/// A built-in resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Builtin {
    pub(super) group: &'static str,
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    pub(super) scope: Scope,
    short: &'static [&'static str],
}

/// Where objects of a resource live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Namespaced,
    Cluster,
}

use Scope::{Cluster, Namespaced};

const fn row(
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    scope: Scope,
    short: &'static [&'static str],
) -> Builtin {
    Builtin {
        group,
        plural,
        kind,
        scope,
        short,
    }
}

const APPS: &str = "apps";
const ADMISSION: &str = "admissionregistration.k8s.io";
const FLOW: &str = "flowcontrol.apiserver.k8s.io";
const NETWORK: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";
const RESOURCE: &str = "resource.k8s.io";

/// Of a name that two groups have, the first row is meant, as kubectl means it.
const TABLE: &[Builtin] = &[
    row("", "configmaps", "ConfigMap", Namespaced, &["cm"]),
    row("", "endpoints", "Endpoints", Namespaced, &["ep"]),
    row("", "events", "Event", Namespaced, &["ev"]),
    row("", "limitranges", "LimitRange", Namespaced, &["limits"]),
    row("", "namespaces", "Namespace", Cluster, &["ns"]),
    row("", "nodes", "Node", Cluster, &["no"]),
    row(
        "",
        "persistentvolumeclaims",
        "PersistentVolumeClaim",
        Namespaced,
        &["pvc"],
    ),
    row("", "persistentvolumes", "PersistentVolume", Cluster, &["pv"]),
    row("", "pods", "Pod", Namespaced, &["po"]),
    row("", "podtemplates", "PodTemplate", Namespaced, &[]),
    row(
        "",
        "replicationcontrollers",
        "ReplicationController",
        Namespaced,
        &["rc"],
    ),
    row("", "resourcequotas", "ResourceQuota", Namespaced, &["quota"]),
    row("", "secrets", "Secret", Namespaced, &[]),
    row("", "serviceaccounts", "ServiceAccount", Namespaced, &["sa"]),
    row("", "services", "Service", Namespaced, &["svc"]),
    row(APPS, "controllerrevisions", "ControllerRevision", Namespaced, &[]),
    row(APPS, "daemonsets", "DaemonSet", Namespaced, &["ds"]),
    row(APPS, "deployments", "Deployment", Namespaced, &["deploy"]),
    row(APPS, "replicasets", "ReplicaSet", Namespaced, &["rs"]),
    row(APPS, "statefulsets", "StatefulSet", Namespaced, &["sts"]),
    row(
        "autoscaling",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        Namespaced,
        &["hpa"],
    ),
    row("batch", "cronjobs", "CronJob", Namespaced, &["cj"]),
    row("batch", "jobs", "Job", Namespaced, &[]),
    row(
        "policy",
        "poddisruptionbudgets",
        "PodDisruptionBudget",
        Namespaced,
        &["pdb"],
    ),
    row(NETWORK, "ingresses", "Ingress", Namespaced, &["ing"]),
    row(NETWORK, "ingressclasses", "IngressClass", Cluster, &[]),
    row(
        NETWORK,
        "networkpolicies",
        "NetworkPolicy",
        Namespaced,
        &["netpol"],
    ),
    row(NETWORK, "ipaddresses", "IPAddress", Cluster, &["ip"]),
    row(NETWORK, "servicecidrs", "ServiceCIDR", Cluster, &[]),
    row(RBAC, "clusterroles", "ClusterRole", Cluster, &[]),
    row(RBAC, "clusterrolebindings", "ClusterRoleBinding", Cluster, &[]),
    row(RBAC, "roles", "Role", Namespaced, &[]),
    row(RBAC, "rolebindings", "RoleBinding", Namespaced, &[]),
    row(STORAGE, "csidrivers", "CSIDriver", Cluster, &[]),
    row(STORAGE, "csinodes", "CSINode", Cluster, &[]),
    row(
        STORAGE,
        "csistoragecapacities",
        "CSIStorageCapacity",
        Namespaced,
        &[],
    ),
    row(STORAGE, "storageclasses", "StorageClass", Cluster, &["sc"]),
    row(STORAGE, "volumeattachments", "VolumeAttachment", Cluster, &[]),
    row(
        STORAGE,
        "volumeattributesclasses",
        "VolumeAttributesClass",
        Cluster,
        &["vac"],
    ),
    row("coordination.k8s.io", "leases", "Lease", Namespaced, &[]),
    row(
        "discovery.k8s.io",
        "endpointslices",
        "EndpointSlice",
        Namespaced,
        &[],
    ),
    row("node.k8s.io", "runtimeclasses", "RuntimeClass", Cluster, &[]),
    row(
        "scheduling.k8s.io",
        "priorityclasses",
        "PriorityClass",
        Cluster,
        &["pc"],
    ),
    row(
        "certificates.k8s.io",
        "certificatesigningrequests",
        "CertificateSigningRequest",
        Cluster,
        &["csr"],
    ),
    row(
        "certificates.k8s.io",
        "clustertrustbundles",
        "ClusterTrustBundle",
        Cluster,
        &[],
    ),
    row(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        Cluster,
        &["crd", "crds"],
    ),
    row(
        "apiregistration.k8s.io",
        "apiservices",
        "APIService",
        Cluster,
        &[],
    ),
    row(
        ADMISSION,
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        Cluster,
        &[],
    ),
    row(
        ADMISSION,
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        Cluster,
        &[],
    ),
    row(
        ADMISSION,
        "validatingadmissionpolicies",
        "ValidatingAdmissionPolicy",
        Cluster,
        &[],
    ),
    row(
        ADMISSION,
        "validatingadmissionpolicybindings",
        "ValidatingAdmissionPolicyBinding",
        Cluster,
        &[],
    ),
    row(
        ADMISSION,
        "mutatingadmissionpolicies",
        "MutatingAdmissionPolicy",
        Cluster,
        &[],
    ),
    row(
        ADMISSION,
        "mutatingadmissionpolicybindings",
        "MutatingAdmissionPolicyBinding",
        Cluster,
        &[],
    ),
    row(FLOW, "flowschemas", "FlowSchema", Cluster, &[]),
    row(
        FLOW,
        "prioritylevelconfigurations",
        "PriorityLevelConfiguration",
        Cluster,
        &[],
    ),
    row(RESOURCE, "deviceclasses", "DeviceClass", Cluster, &[]),
    row(RESOURCE, "resourceclaims", "ResourceClaim", Namespaced, &[]),
    row(
        RESOURCE,
        "resourceclaimtemplates",
        "ResourceClaimTemplate",
        Namespaced,
        &[],
    ),
    row(RESOURCE, "resourceslices", "ResourceSlice", Cluster, &[]),
    row("events.k8s.io", "events", "Event", Namespaced, &["ev"]),
];

/// The built-in resource that has `name` as plural, singular, kind or short name, in `group` if one is
/// named.
pub(super) fn named(name: &str, group: Option<&str>) -> Option<&'static Builtin> {
    TABLE.iter().find(|row| {
        group.is_none_or(|group| row.group == group)
            && (row.plural.eq_ignore_ascii_case(name)
                || row.kind.eq_ignore_ascii_case(name)
                || row.short.iter().any(|short| short.eq_ignore_ascii_case(name)))
    })
}

/// Whether any built-in resource is in `group`.
pub(crate) fn is_builtin_group(group: &str) -> bool {
    TABLE.iter().any(|row| row.group == group)
}
