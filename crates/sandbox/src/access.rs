//! Who may do what, by the role objects in the store.

use kaudit_event::UserInfo;

use crate::state::State;

/// What is asked: a verb on a resource, or on a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) user: &'a UserInfo,
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// Set for a request that is about no resource.
    pub(crate) path: Option<&'a str>,
}

/// The authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) allowed: bool,
    pub(crate) reason: String,
}

/// Answers a question.
pub(crate) fn decide(_state: &State, _question: &Question<'_>) -> Answer {
    Answer {
        allowed: true,
        reason: String::new(),
    }
}

/// The status of a SelfSubjectRulesReview.
pub(crate) fn rules(_state: &State, _user: &UserInfo, _namespace: &str) -> serde_json::Value {
    serde_json::json!({"resourceRules": [], "nonResourceRules": [], "incomplete": false})
}
