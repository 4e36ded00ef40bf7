//! Witnesses: requests made up to ask the policy what it does with them.

use kaudit_event::{Text, UserInfo};

use super::super::{Policy, PolicyRule, Stated};
use crate::Attributes;

/// A resource that requests are about; empty subresource for the object itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About<'a> {
    pub(super) group: &'a str,
    pub(super) resource: &'a str,
    pub(super) subresource: &'a str,
    pub(super) namespace: &'a str,
}

impl About<'_> {
    /// As policies write it: `pods/exec`.
    pub(super) fn pattern(&self) -> String {
        match self.subresource {
            "" => self.resource.to_owned(),
            subresource => format!("{}/{subresource}", self.resource),
        }
    }
}

/// A made-up request.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    user: UserInfo,
    is_somebody: bool,
    verb: String,
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

/// Values of one condition that are tried.
const TRIED: usize = 8;

impl Probe {
    pub(super) fn attributes(&self) -> Attributes<'_> {
        Attributes {
            user: Some(&self.user),
            verb: self.verb.as_bytes(),
            is_resource_request: true,
            api_group: self.group.as_bytes(),
            api_version: b"v1",
            resource: self.resource.as_bytes(),
            subresource: self.subresource.as_bytes(),
            namespace: self.namespace.as_bytes(),
            name: self.name.as_bytes(),
            path: b"/",
        }
    }

    pub(super) fn verb(&self) -> &str {
        &self.verb
    }

    /// The same request about a subresource.
    pub(super) fn with_subresource(&self, verb: &str, subresource: &str) -> Self {
        Self {
            verb: verb.to_owned(),
            subresource: subresource.to_owned(),
            ..self.clone()
        }
    }

    /// A request that rule number `index` decides, with one of `verbs`, about one of `abouts`.
    pub(super) fn decided_by(
        policy: &Policy,
        index: usize,
        verbs: &[&str],
        abouts: &[About<'_>],
    ) -> Option<Self> {
        let rule = policy.rules().get(index)?;
        let somebody = somebody(policy);
        let users = tried(&rule.users, &somebody);
        let groups = tried(&rule.user_groups, "system:authenticated");
        let allowed: Vec<&str> = verbs
            .iter()
            .copied()
            .filter(|verb| rule.verbs.is_empty() || rule.verbs.iter().any(|entry| entry.value == *verb))
            .collect();
        let names = names(rule);
        for about in abouts {
            let namespaces = tried(&rule.namespaces, about.namespace);
            for verb in &allowed {
                for user in &users {
                    for group in &groups {
                        for namespace in &namespaces {
                            for name in &names {
                                let probe = Self {
                                    user: UserInfo {
                                        username: Text::from((*user).to_owned()),
                                        groups: Some(vec![Text::from((*group).to_owned())]),
                                        ..UserInfo::default()
                                    },
                                    is_somebody: *user == somebody,
                                    verb: (*verb).to_owned(),
                                    group: about.group.to_owned(),
                                    resource: about.resource.to_owned(),
                                    subresource: about.subresource.to_owned(),
                                    namespace: (*namespace).to_owned(),
                                    name: (*name).to_owned(),
                                };
                                if policy.evaluate(&probe.attributes()).rule == Some(index) {
                                    return Some(probe);
                                }
                            }
                        }
                    }
                }
            }
        }
        None
    }

    /// `create secrets in namespace "default" by user "jane"`.
    pub(super) fn describe(&self) -> String {
        let about = About {
            group: &self.group,
            resource: &self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
        };
        let mut text = format!("{} {}", self.verb, about.pattern());
        if !self.group.is_empty() {
            text += &format!(" of {}", self.group);
        }
        if !self.namespace.is_empty() {
            text += &format!(" in namespace {:?}", self.namespace);
        }
        let groups = self.user.groups.as_deref().unwrap_or_default();
        let group = groups
            .iter()
            .find(|group| group.as_bytes() != b"system:authenticated");
        match (self.is_somebody, group) {
            (true, None) => text += " by any user",
            (true, Some(group)) => text += &format!(" by a member of {group:?}"),
            (false, _) => text += &format!(" by user {:?}", self.user.username),
        }
        text
    }
}

/// A user that no rule names.
fn somebody(policy: &Policy) -> String {
    let mut name = "somebody".to_owned();
    while policy
        .rules()
        .iter()
        .any(|rule| rule.users.iter().any(|user| user.value == name))
    {
        name.push_str("-else");
    }
    name
}

fn tried<'a>(list: &'a [Stated<String>], otherwise: &'a str) -> Vec<&'a str> {
    match list {
        [] => vec![otherwise],
        // A value with a wildcard is one that no request has.
        list => list
            .iter()
            .map(|entry| entry.value.as_str())
            .filter(|value| !value.contains('*'))
            .take(TRIED)
            .collect(),
    }
}

fn names(rule: &PolicyRule) -> Vec<&str> {
    let named = rule
        .resources
        .iter()
        .flat_map(|entry| &entry.resource_names)
        .take(TRIED)
        .map(|name| name.value.as_str());
    ["example"].into_iter().chain(named).collect()
}
