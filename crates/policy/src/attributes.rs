//! What a policy looks at, and what it answers.

use kaudit_event::{Level, StageSet, UserInfo};

use crate::RequestInfo;

/// The attributes of one request: who, and what it is about.
///
/// Source: k8s.io/apiserver pkg/authorization/authorizer/interfaces.go, Attributes.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are those of RequestInfo")]
pub struct Attributes<'a> {
    /// `None` when authentication failed: then no rule with users or groups matches.
    pub user: Option<&'a UserInfo>,
    pub verb: &'a [u8],
    pub is_resource_request: bool,
    pub api_group: &'a [u8],
    pub api_version: &'a [u8],
    pub resource: &'a [u8],
    pub subresource: &'a [u8],
    pub namespace: &'a [u8],
    pub name: &'a [u8],
    /// The decoded path.
    pub path: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes of a request that was resolved to `info`.
    #[must_use]
    pub fn new(user: Option<&'a UserInfo>, info: &'a RequestInfo) -> Self {
        Self {
            user,
            verb: info.verb(),
            is_resource_request: info.is_resource_request(),
            api_group: info.api_group(),
            api_version: info.api_version(),
            resource: info.resource(),
            subresource: info.subresource(),
            namespace: info.namespace(),
            name: info.name(),
            path: info.path(),
        }
    }
}

/// How one request is recorded.
///
/// Source: k8s.io/apiserver pkg/audit/evaluator.go, RequestAuditConfig.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestAuditConfig {
    /// How much; [`Level::None`] when no rule matched.
    pub level: Level,
    /// Stages that make no event.
    pub omit_stages: StageSet,
    /// Whether `metadata.managedFields` is left out of recorded bodies.
    pub omit_managed_fields: bool,
    /// Index of the rule that matched; `None` when none did.
    pub rule: Option<usize>,
}
