//! Who wrote a version, and how.

use kaudit_event::{EventView, FieldText, Level, MicroTime};

use crate::target::parameter;

/// The request behind a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// The number by which the caller knows the event.
    pub event: u64,
    /// When the request ended (`stageTimestamp`); zero if the event does not say.
    pub time: MicroTime,
    /// Who asked.
    pub user: String,
    /// Who it was carried out as.
    pub impersonated: Option<String>,
    /// The verb.
    pub verb: String,
    /// The subresource; empty for the object itself.
    pub subresource: String,
    /// What the client calls itself.
    pub user_agent: String,
    /// The field manager that the request named.
    pub field_manager: Option<String>,
    /// `auditID`; chosen by the client if it wants to.
    pub audit_id: String,
    /// The answer's HTTP status.
    pub code: i64,
    /// How much was recorded.
    pub level: Option<Level>,
}

impl Origin {
    pub(super) fn of(event: u64, view: &EventView<'_>) -> Self {
        let text = |text: FieldText<'_>| String::from_utf8_lossy(&text).into_owned();
        let uri = view.request_uri();
        Self {
            event,
            time: view.stage_timestamp().unwrap_or(MicroTime::ZERO),
            user: text(view.user().text("username")),
            impersonated: view.impersonated_user().map(|user| text(user.text("username"))),
            verb: text(view.verb()),
            subresource: view
                .object_ref()
                .map(|reference| text(reference.text("subresource")))
                .unwrap_or_default(),
            user_agent: text(view.user_agent()),
            field_manager: parameter(&uri, "fieldManager"),
            audit_id: text(view.audit_id()),
            code: view
                .response_status()
                .and_then(|status| status.integer("code"))
                .unwrap_or_default(),
            level: view.level(),
        }
    }

    /// Who it was carried out as: the impersonated user, else the user.
    #[must_use]
    pub fn actor(&self) -> &str {
        self.impersonated.as_deref().unwrap_or(&self.user)
    }

    /// Whether a part of the cluster itself wrote: a controller, a node, a service account of `kube-system`.
    #[must_use]
    pub fn is_component(&self) -> bool {
        match self.actor().strip_prefix("system:") {
            Some(rest) => match rest.strip_prefix("serviceaccount:") {
                Some(account) => account.starts_with("kube-system:"),
                None => !matches!(rest, "admin" | "anonymous" | "unsecured"),
            },
            None => false,
        }
    }
}
