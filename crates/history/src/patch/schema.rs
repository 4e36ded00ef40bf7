//! How the lists and objects of the built-in resources merge.
//!
//! A list without an entry is replaced as a whole, an object without one is merged field by field.
//!
//! Source: kubernetes staging/src/k8s.io/api/*/*/types.go, tags `patchStrategy`, `patchMergeKey`,
//! `listType` and `listMapKey`.

use super::Resource;

/// Types that hold lists or objects that merge in their own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// Nothing is known of it.
    Plain,
    /// An object of a resource: metadata, and the two types of its spec and status.
    Root(&'static Shape),
    Metadata,
    PodTemplate,
    PodSpec,
    PodStatus,
    Container,
    Volume,
    ServiceSpec,
    WorkloadSpec,
    CronJobSpec,
    JobTemplate,
    NodeSpec,
    NodeStatus,
    /// A status with conditions.
    Status,
    AdmissionPolicySpec,
    /// An object with a selector of labels.
    Selecting,
}

/// The types of a resource's parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shape {
    spec: Type,
    status: Type,
    own: &'static [(&'static str, Field)],
}

/// How a list merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// It is replaced.
    Atomic,
    /// Its scalars are a set.
    Set,
    /// Its items are told apart by keys: the first for strategic merge, all for apply.
    Map(&'static [&'static str]),
}

/// What is known of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Its type, or that of its items.
    pub(super) ty: Type,
    pub(super) list: List,
    /// An object that apply replaces as a whole.
    pub(super) atomic: bool,
}

const PLAIN: Field = of(Type::Plain);
const LABEL_SELECTOR: Field = Field {
    atomic: true,
    ..PLAIN
};

const fn of(ty: Type) -> Field {
    Field {
        ty,
        list: List::Atomic,
        atomic: false,
    }
}

const fn map(ty: Type, keys: &'static [&'static str]) -> Field {
    Field {
        ty,
        list: List::Map(keys),
        atomic: false,
    }
}

const SET: Field = Field {
    list: List::Set,
    ..PLAIN
};
const BY_NAME: Field = map(Type::Plain, &["name"]);
const CONDITIONS: Field = map(Type::Plain, &["type"]);

const fn shape(spec: Type, status: Type) -> Shape {
    Shape {
        spec,
        status,
        own: &[],
    }
}

static PLAIN_ROOT: Shape = shape(Type::Plain, Type::Plain);
static STATUS_ROOT: Shape = shape(Type::Plain, Type::Status);
static POD: Shape = shape(Type::PodSpec, Type::PodStatus);
static WORKLOAD: Shape = shape(Type::WorkloadSpec, Type::Status);
static CRON_JOB: Shape = shape(Type::CronJobSpec, Type::Plain);
static SERVICE: Shape = shape(Type::ServiceSpec, Type::Status);
static NODE: Shape = shape(Type::NodeSpec, Type::NodeStatus);
static SELECTING: Shape = shape(Type::Selecting, Type::Status);
static POD_TEMPLATE: Shape = Shape {
    own: &[("template", of(Type::PodTemplate))],
    ..PLAIN_SHAPE
};
static SERVICE_ACCOUNT: Shape = Shape {
    own: &[("secrets", BY_NAME)],
    ..PLAIN_SHAPE
};
static WEBHOOKS: Shape = Shape {
    own: &[("webhooks", BY_NAME)],
    ..PLAIN_SHAPE
};
static ADMISSION_POLICY: Shape = shape(Type::AdmissionPolicySpec, Type::Status);
const PLAIN_SHAPE: Shape = shape(Type::Plain, Type::Plain);

/// The type of a resource's objects.
pub(super) fn root(resource: Resource<'_>) -> Type {
    let shape = match (resource.group, resource.resource) {
        ("", "pods") => &POD,
        ("", "podtemplates") => &POD_TEMPLATE,
        ("", "replicationcontrollers")
        | ("apps" | "extensions", "deployments" | "daemonsets" | "statefulsets" | "replicasets")
        | ("batch", "jobs") => &WORKLOAD,
        ("batch", "cronjobs") => &CRON_JOB,
        ("", "services") => &SERVICE,
        ("", "serviceaccounts") => &SERVICE_ACCOUNT,
        ("", "nodes") => &NODE,
        ("policy", "poddisruptionbudgets") => &SELECTING,
        ("", "namespaces" | "persistentvolumeclaims") | ("autoscaling", "horizontalpodautoscalers") => {
            &STATUS_ROOT
        }
        (
            "admissionregistration.k8s.io",
            "validatingwebhookconfigurations" | "mutatingwebhookconfigurations",
        ) => &WEBHOOKS,
        ("admissionregistration.k8s.io", "validatingadmissionpolicies" | "mutatingadmissionpolicies") => {
            &ADMISSION_POLICY
        }
        _ => &PLAIN_ROOT,
    };
    Type::Root(shape)
}

impl Type {
    /// What is known of one of its fields.
    pub(super) fn field(self, name: &str) -> Field {
        match (self, name) {
            (Self::Root(_), "metadata") => of(Self::Metadata),
            (Self::Root(shape), "spec") => of(shape.spec),
            (Self::Root(shape), "status") => of(shape.status),
            (Self::Root(shape), _) => shape
                .own
                .iter()
                .find(|(field, _)| *field == name)
                .map_or(PLAIN, |(_, field)| *field),
            (Self::Metadata, "finalizers") => SET,
            (Self::Metadata, "ownerReferences") => map(Self::Plain, &["uid"]),
            (Self::PodTemplate | Self::JobTemplate, "metadata") => of(Self::Metadata),
            (Self::PodTemplate, "spec") => of(Self::PodSpec),
            (Self::JobTemplate, "spec") => of(Self::WorkloadSpec),
            (Self::PodSpec, "containers" | "initContainers" | "ephemeralContainers") => {
                map(Self::Container, &["name"])
            }
            (Self::PodSpec, "volumes") => map(Self::Volume, &["name"]),
            (Self::PodSpec, "imagePullSecrets" | "resourceClaims" | "schedulingGates") => BY_NAME,
            (Self::PodSpec, "hostAliases") => map(Self::Plain, &["ip"]),
            (Self::PodSpec, "topologySpreadConstraints") => {
                map(Self::Plain, &["topologyKey", "whenUnsatisfiable"])
            }
            (Self::PodSpec, "nodeSelector") => LABEL_SELECTOR,
            (Self::PodStatus, "podIPs" | "hostIPs") => map(Self::Plain, &["ip"]),
            (Self::PodStatus, "resourceClaimStatuses") => BY_NAME,
            (Self::Container, "ports") => map(Self::Plain, &["containerPort", "protocol"]),
            (Self::Container, "env") => BY_NAME,
            (Self::Container, "volumeMounts") => map(Self::Plain, &["mountPath"]),
            (Self::Container, "volumeDevices") => map(Self::Plain, &["devicePath"]),
            (Self::ServiceSpec, "ports") => map(Self::Plain, &["port", "protocol"]),
            (Self::ServiceSpec, "selector") | (Self::WorkloadSpec | Self::Selecting, "selector") => {
                LABEL_SELECTOR
            }
            (Self::WorkloadSpec, "template") => of(Self::PodTemplate),
            (Self::CronJobSpec, "jobTemplate") => of(Self::JobTemplate),
            (Self::NodeSpec, "podCIDRs") => SET,
            (Self::NodeStatus, "addresses") => map(Self::Plain, &["type"]),
            (Self::Status | Self::PodStatus | Self::NodeStatus, "conditions") => CONDITIONS,
            (Self::AdmissionPolicySpec, "matchConditions" | "variables") => BY_NAME,
            _ => PLAIN,
        }
    }
}

/// The value of a key that an item leaves out.
pub(super) fn key_default(key: &str) -> Option<&'static str> {
    (key == "protocol").then_some("TCP")
}
