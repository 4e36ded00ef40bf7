//! Who may do what: the seam between the chain, the reviews and the rules.

use std::sync::Arc;

use kaudit_event::UserInfo;
use kaudit_tower::{Authorization, AuthorizationRequest, Authorizer, BoxFuture, Decision};

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

/// Answers a question by the stored roles and bindings.
pub(crate) fn decide(state: &State, question: &Question<'_>) -> Answer {
    state.policy().decide(question)
}

/// The chain's authorizer.
#[derive(Debug)]
pub(crate) struct StoreAuthorizer(pub(crate) Arc<State>);

impl Authorizer for StoreAuthorizer {
    fn authorize<'a>(
        &'a self,
        request: AuthorizationRequest<'a>,
    ) -> BoxFuture<'a, Result<Authorization, String>> {
        let attributes = &request.attributes;
        let text = String::from_utf8_lossy;
        let path = text(attributes.path);
        let question = Question {
            user: request.user,
            verb: &text(attributes.verb),
            group: &text(attributes.api_group),
            resource: &text(attributes.resource),
            subresource: &text(attributes.subresource),
            namespace: &text(attributes.namespace),
            name: &text(attributes.name),
            path: (!attributes.is_resource_request).then_some(&*path),
        };
        let answer = decide(&self.0, &question);
        let decision = if answer.allowed {
            Decision::Allow
        } else {
            Decision::NoOpinion
        };
        let authorization = Authorization {
            decision,
            reason: answer.reason,
        };
        Box::pin(std::future::ready(Ok(authorization)))
    }
}

/// The status of a SelfSubjectRulesReview.
pub(crate) fn rules(state: &State, user: &UserInfo, namespace: &str) -> serde_json::Value {
    state.policy().review(user, namespace)
}
