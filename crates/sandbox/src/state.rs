//! What all requests share.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use kaudit_event::UserInfo;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::credentials::{AUDIENCE, Claims, Credentials};
use crate::kinds::{Kinds, store_key};
use crate::object::text;
use crate::rbac::{Objects, Policy};
use crate::store::{Key, Store};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Where the time comes from.
pub(crate) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The server's state.
pub(crate) struct State {
    pub(crate) store: Store,
    kinds: RwLock<Arc<Kinds>>,
    clock: Clock,
    /// Ends watches, logs and sessions.
    pub(crate) stop: CancellationToken,
    /// Owns the sessions of upgraded connections.
    pub(crate) tasks: TaskTracker,
    authority: String,
    credentials: Credentials,
    /// The roles and bindings as of a revision.
    policy: RwLock<(u64, Arc<Policy>)>,
    pod_addresses: AtomicU32,
    cluster_addresses: AtomicU32,
    nodes: AtomicU32,
    pub(crate) namespaces: Arc<str>,
    pub(crate) pods: Arc<str>,
    pub(crate) config_maps: Arc<str>,
    pub(crate) service_accounts: Arc<str>,
    pub(crate) deployments: Arc<str>,
    pub(crate) replica_sets: Arc<str>,
    definitions: Arc<str>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("revision", &self.store.revision())
            .finish_non_exhaustive()
    }
}

/// Names of the nodes that a sandbox has.
pub(crate) const NODES: &[&str] = &["sandbox-control-plane", "sandbox-worker"];

impl State {
    /// `authority` is the PEM text that pods are given as the root of trust.
    pub(crate) fn new(
        clock: Clock,
        authority: String,
        stop: CancellationToken,
        credentials: Credentials,
    ) -> Self {
        Self {
            store: Store::new(),
            kinds: RwLock::new(Arc::new(Kinds::new([].into_iter()))),
            clock,
            stop,
            tasks: TaskTracker::new(),
            authority,
            credentials,
            policy: RwLock::default(),
            pod_addresses: AtomicU32::new(0),
            cluster_addresses: AtomicU32::new(0),
            nodes: AtomicU32::new(0),
            namespaces: store_key("", "namespaces"),
            pods: store_key("", "pods"),
            config_maps: store_key("", "configmaps"),
            service_accounts: store_key("", "serviceaccounts"),
            deployments: store_key("apps", "deployments"),
            replica_sets: store_key("apps", "replicasets"),
            definitions: store_key("apiextensions.k8s.io", "customresourcedefinitions"),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The resources that are served now.
    pub(crate) fn kinds(&self) -> Arc<Kinds> {
        Arc::clone(&self.kinds.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes notice of changed definitions.
    pub(crate) fn refresh_kinds(&self) {
        let definitions = self.store.all(&self.definitions, "");
        let kinds = Kinds::new(definitions.iter().map(AsRef::as_ref));
        *self.kinds.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(kinds);
    }

    pub(crate) fn certificate_authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn next_pod_ip(&self) -> String {
        let n = self.pod_addresses.fetch_add(1, Ordering::Relaxed) + 2;
        format!("10.244.{}.{}", (n >> 8) & 255, n & 255)
    }

    pub(crate) fn next_cluster_ip(&self) -> String {
        let n = self.cluster_addresses.fetch_add(1, Ordering::Relaxed) + 10;
        format!("10.96.{}.{}", (n >> 8) & 255, n & 255)
    }

    /// The node of the next pod, in turn.
    pub(crate) fn node_name(&self) -> &'static str {
        let n = usize::try_from(self.nodes.fetch_add(1, Ordering::Relaxed)).unwrap_or(0);
        NODES.get(n % NODES.len()).copied().unwrap_or("sandbox-worker")
    }

    /// The roles and bindings as they are now.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        let revision = self.store.access_revision();
        {
            let known = self.policy.read().unwrap_or_else(PoisonError::into_inner);
            if known.0 == revision {
                return Arc::clone(&known.1);
            }
        }
        let all = |plural: &str| self.store.all(&store_key(RBAC, plural), "");
        let (cluster_roles, roles) = (all("clusterroles"), all("roles"));
        let (cluster_bindings, bindings) = (all("clusterrolebindings"), all("rolebindings"));
        let policy = Arc::new(Policy::new(Objects {
            cluster_roles: cluster_roles.iter().map(AsRef::as_ref),
            roles: roles.iter().map(AsRef::as_ref),
            cluster_bindings: cluster_bindings.iter().map(AsRef::as_ref),
            bindings: bindings.iter().map(AsRef::as_ref),
        }));
        // What was read may be newer than its revision says: then it is only read once more.
        let mut known = self.policy.write().unwrap_or_else(PoisonError::into_inner);
        if known.0 < revision {
            *known = (revision, Arc::clone(&policy));
        }
        policy
    }

    /// The user of a bearer token, without the group of all authenticated users.
    pub(crate) fn token_user(&self, token: &str) -> Option<UserInfo> {
        if let Some(user) = self.credentials.given(token) {
            return Some(user.clone());
        }
        self.issued_token(token, &[AUDIENCE.to_owned()])
            .map(|(user, _)| user)
    }

    /// The user of a token that was issued here, and those of the wanted audiences it is for.
    ///
    /// Source: kubernetes pkg/serviceaccount/claims.go, Validate.
    fn issued_token(&self, token: &str, wanted: &[String]) -> Option<(UserInfo, Vec<String>)> {
        let claims = self.credentials.verify(token, self.now())?;
        let mut audiences = claims.audiences.clone();
        audiences.retain(|audience| wanted.contains(audience));
        let lives = |resource: &Arc<str>, namespace: &str, name: &str, uid: &str| {
            let object = self.store.read(&Key::new(resource, namespace, name));
            object.is_some_and(|object| text(&object, "/metadata/uid") == uid)
        };
        let namespace = &claims.namespace;
        let bound = match &claims.bound {
            None => true,
            Some(bound) => {
                let (resource, namespace) = match bound.kind {
                    "pod" => (Arc::clone(&self.pods), namespace.as_str()),
                    "secret" => (store_key("", "secrets"), namespace.as_str()),
                    _ => (store_key("", "nodes"), ""),
                };
                lives(&resource, namespace, &bound.name, &bound.uid)
            }
        };
        let good = !audiences.is_empty()
            && bound
            && lives(&self.service_accounts, namespace, &claims.account, &claims.uid);
        good.then(|| (claims.user(), audiences))
    }

    /// The status of a TokenReview.
    ///
    /// Source: kubernetes pkg/registry/authentication/tokenreview/storage.go.
    pub(crate) fn review_token(&self, token: &str, audiences: &[String]) -> serde_json::Value {
        let own = [AUDIENCE.to_owned()];
        let wanted = if audiences.is_empty() { &own } else { audiences };
        // A given token is for the server itself.
        let given = self
            .credentials
            .given(token)
            .filter(|_| wanted.iter().any(|wanted| wanted == AUDIENCE))
            .map(|user| (user.clone(), own.to_vec()));
        match given.or_else(|| self.issued_token(token, wanted)) {
            Some((user, audiences)) => serde_json::json!({
                "authenticated": true,
                "user": crate::reviews::user_value(&kaudit_tower::with_authenticated_group(user)),
                "audiences": audiences,
            }),
            None => serde_json::json!({"user": {}}),
        }
    }

    /// A new token of a service account.
    pub(crate) fn issue_token(&self, claims: &Claims) -> String {
        self.credentials.issue(claims)
    }
}
