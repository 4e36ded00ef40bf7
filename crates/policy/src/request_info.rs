//! What a request is about.

use crate::RequestTarget;

/// A request resolved to verb, resource and the rest.
///
/// Source: k8s.io/apiserver pkg/endpoints/request/requestinfo.go, RequestInfo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are upstream's under their own names")]
pub struct RequestInfo {
    pub is_resource_request: bool,
    /// The decoded path.
    pub path: Vec<u8>,
    pub verb: Vec<u8>,
    pub api_prefix: Vec<u8>,
    pub api_group: Vec<u8>,
    pub api_version: Vec<u8>,
    pub namespace: Vec<u8>,
    pub resource: Vec<u8>,
    pub subresource: Vec<u8>,
    pub name: Vec<u8>,
    /// The path's segments from the resource on; `None` where upstream has nil.
    pub parts: Option<Vec<Vec<u8>>>,
    /// The raw `fieldSelector` where authorization looks at it.
    pub field_selector: Vec<u8>,
    /// The raw `labelSelector` where authorization looks at it.
    pub label_selector: Vec<u8>,
}

/// Why a request cannot be resolved: it is answered 500 and makes no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestInfoError {
    /// Upstream's text.
    pub message: String,
}

/// Resolves requests; holds the API prefixes.
#[derive(Clone, Debug)]
pub struct RequestInfoResolver {
    /// First path segments that are API prefixes; kube-apiserver: `api`, `apis`.
    pub api_prefixes: Vec<Vec<u8>>,
    /// Those of them without a group segment; kube-apiserver: `api`.
    pub groupless_api_prefixes: Vec<Vec<u8>>,
}

impl Default for RequestInfoResolver {
    fn default() -> Self {
        Self {
            api_prefixes: vec![b"api".to_vec(), b"apis".to_vec()],
            groupless_api_prefixes: vec![b"api".to_vec()],
        }
    }
}

impl RequestInfoResolver {
    /// Resolves one request.
    ///
    /// # Errors
    ///
    /// [`RequestInfoError`] for paths that end after `watch` or `proxy`.
    pub fn resolve(&self, _method: &[u8], _target: &RequestTarget) -> Result<RequestInfo, RequestInfoError> {
        Ok(RequestInfo::default())
    }
}

/// Which requests are long-running: they make a ResponseStarted event and have no deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LongRunning {
    /// kube-apiserver's test: verbs watch and proxy; subresources attach, exec, proxy, log and
    /// portforward; paths under `/debug/pprof/`.
    #[default]
    KubeApiserver,
    /// A generic API server's: verb watch and paths under `/debug/pprof/`.
    GenericApiserver,
}

impl LongRunning {
    /// Whether the request is long-running.
    #[must_use]
    pub fn matches(self, _info: &RequestInfo) -> bool {
        false
    }
}
