//! What may refuse or complete a write after it was authorized.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::call::Call;
use crate::escalation;
use crate::kinds::Kind;
use crate::object::{child, default, fields, text};
use crate::pod_security::{self, Modes};
use crate::rbac::Policy;
use crate::state::State;
use crate::status::{ApiError, Cause};
use crate::store::Key;

const RBAC: &str = "rbac.authorization.k8s.io";

/// What admission has to look at besides the object, read before the store is locked.
#[derive(Debug)]
pub(crate) struct Admission {
    namespace: Option<Arc<Value>>,
    /// For writes of roles and bindings.
    policy: Option<Arc<Policy>>,
    /// The pods of a namespace that is written.
    pods: Vec<Arc<Value>>,
    warnings: Vec<String>,
}

impl Admission {
    /// Reads the request's namespace.
    ///
    /// # Errors
    ///
    /// 404 when a namespaced object's namespace does not exist.
    pub(crate) fn gather(state: &State, call: &Call) -> Result<Self, ApiError> {
        let policy = (call.kind.group == RBAC).then(|| state.policy());
        if !call.kind.namespaced {
            let pods = if &*call.kind.key == "namespaces" && !call.name.is_empty() {
                state.store.all(&state.pods, &call.name)
            } else {
                Vec::new()
            };
            return Ok(Self {
                namespace: None,
                policy,
                pods,
                warnings: Vec::new(),
            });
        }
        let key = Key::new(&state.namespaces, "", &call.namespace);
        let namespace = state.store.read(&key);
        if namespace.is_none() {
            return Err(ApiError::not_found("", "namespaces", &call.namespace));
        }
        Ok(Self {
            namespace,
            policy,
            pods: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// Admits a new object.
    ///
    /// # Errors
    ///
    /// 403 with the text of the plugin that refused.
    pub(crate) fn create(
        &mut self,
        state: &State,
        call: &mut Call,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        let kind = &call.kind;
        let terminating = self
            .namespace
            .as_deref()
            .is_some_and(|namespace| text(namespace, "/status/phase") == "Terminating");
        if terminating {
            // Source: k8s.io/apiserver pkg/admission/plugin/namespace/lifecycle/admission.go.
            let namespace = &call.namespace;
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let cause = Cause {
                reason: "NamespaceTerminating",
                message: format!("namespace {namespace} is being terminated"),
                field: "metadata.namespace".to_owned(),
            };
            let name = text(object, "/metadata/name").to_owned();
            return Err(ApiError::forbidden(&kind.group, &kind.plural, &name, &why).with_cause(cause));
        }
        self.grant(call, object, None)?;
        if &*call.kind.key == "pods" {
            service_account(state, call, object)?;
        }
        if &*call.kind.key == "services" {
            let spec = child(fields(object), "spec");
            if spec.get("type").and_then(Value::as_str) != Some("ExternalName") {
                default(spec, "clusterIP", json!(state.next_cluster_ip()));
                let address = spec.get("clusterIP").cloned().unwrap_or_default();
                default(spec, "clusterIPs", json!([address]));
                default(spec, "ipFamilies", json!(["IPv4"]));
                default(spec, "ipFamilyPolicy", json!("SingleStack"));
            }
        }
        self.pod_security(call, object, None)
    }

    /// Admits the new state of an object.
    ///
    /// # Errors
    ///
    /// 403 with the text of the plugin that refused.
    pub(crate) fn update(&mut self, call: &Call, object: &Value, before: &Value) -> Result<(), ApiError> {
        if call.subresource.is_empty() {
            self.grant(call, object, Some(before))?;
        }
        self.pod_security(call, object, Some(before))
    }

    /// Source: k8s.io/pod-security-admission admission/admission.go, Validate.
    fn pod_security(&mut self, call: &Call, object: &Value, before: Option<&Value>) -> Result<(), ApiError> {
        let kind = &call.kind;
        let name = text(object, "/metadata/name");
        if &*kind.key == "namespaces" {
            return self.check_labels(kind, object, before);
        }
        let Some(namespace) = self.namespace.as_deref() else {
            return Ok(());
        };
        let verdict = match (&*kind.key, call.subresource.as_str()) {
            ("pods", "" | "ephemeralcontainers") => pod_security::pod(namespace, object, before),
            (_, "") => pod_security::controller(namespace, kind, object),
            _ => return Ok(()),
        };
        for (key, value) in &verdict.annotations {
            call.recorder.annotate(key, value);
        }
        self.warnings.extend(verdict.warning);
        match verdict.refusal {
            Some(why) => Err(ApiError::forbidden(&kind.group, &kind.plural, name, &why)),
            None => Ok(()),
        }
    }

    /// The labels of a namespace must make sense when they change.
    fn check_labels(&mut self, kind: &Kind, object: &Value, before: Option<&Value>) -> Result<(), ApiError> {
        let (_, causes) = Modes::of(object);
        let known = before.map(|before| Modes::of(before).1).unwrap_or_default();
        if !causes.is_empty() && causes != known {
            let name = text(object, "/metadata/name");
            return Err(ApiError::invalid(&kind.group, &kind.kind, name, causes));
        }
        if let Some(before) = before {
            let pods = self.pods.iter().map(AsRef::as_ref);
            self.warnings
                .extend(pod_security::namespace_warnings(object, before, pods));
        }
        Ok(())
    }

    /// Nobody grants more than they have.
    fn grant(&self, call: &Call, object: &Value, before: Option<&Value>) -> Result<(), ApiError> {
        match &self.policy {
            Some(policy) => {
                escalation::check(policy, &call.user, &call.kind, &call.namespace, object, before)
            }
            None => Ok(()),
        }
    }

    /// Warnings that admission has for the client.
    pub(crate) fn into_warnings(self) -> Vec<String> {
        self.warnings
    }
}

/// Source: kubernetes plugin/pkg/admission/serviceaccount/admission.go.
fn service_account(state: &State, call: &Call, object: &mut Value) -> Result<(), ApiError> {
    let name = text(object, "/metadata/name").to_owned();
    let spec = child(fields(object), "spec");
    default(spec, "serviceAccountName", json!("default"));
    let account = spec
        .get("serviceAccountName")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    default(spec, "serviceAccount", json!(account));
    default(spec, "enableServiceLinks", json!(true));
    default(spec, "preemptionPolicy", json!("PreemptLowerPriority"));
    default(spec, "priority", json!(0));
    default(spec, "tolerations", json!([]));
    let key = Key::new(&state.service_accounts, &call.namespace, &account);
    if state.store.read(&key).is_none() {
        let why = format!(
            "error looking up service account {}/{account}: serviceaccount {account:?} not found",
            call.namespace
        );
        return Err(ApiError::forbidden("", "pods", &name, &why));
    }
    Ok(())
}
