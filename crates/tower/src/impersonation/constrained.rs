//! Impersonation by verbs that say which kind of user, and for what: `impersonate:user-info` together with
//! `impersonate-on:user-info:list` and their kin.
//!
//! Source: k8s.io/apiserver 0.36 pkg/endpoints/filters/impersonation, mode.go and constrained_impersonation.go. Not
//! here: `associated-node`, which is for service accounts whose token names their node.

use kaudit_event::{Text, UserInfo};
use kaudit_policy::Attributes;

use super::Request;
use crate::authz::{Authorizer, forbidden_by};
use crate::status::StatusError;

const GROUP: &str = "authentication.k8s.io";
const NODE_USER: &str = "system:node:";
const NODES: &str = "system:nodes";
const MASTERS: &str = "system:masters";

/// From so many groups or extra values on one question about all of them comes first.
const MANY: usize = 4;

/// The kinds of users that there are verbs for. At most one is for a given user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
}

impl Mode {
    /// The one for whom `request` asks to be. Nodes and service accounts have the groups that they have: who asks for
    /// others asks for nobody.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let is_name_only = request.uid.is_empty() && request.groups.is_empty() && request.extra.is_empty();
        if node(&request.user).is_some() {
            is_name_only.then_some(Self::ArbitraryNode)
        } else if request.service_account.is_some() {
            is_name_only.then_some(Self::ServiceAccount)
        } else {
            Some(Self::UserInfo)
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
        }
    }

    /// What an event calls the constraint, and the verb of the questions about the user's parts.
    const fn verb(self) -> &'static str {
        match self {
            Self::ArbitraryNode => "impersonate:arbitrary-node",
            Self::ServiceAccount => "impersonate:serviceaccount",
            Self::UserInfo => "impersonate:user-info",
        }
    }
}

/// Who was let be whom.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Impersonated {
    /// The user.
    pub user: UserInfo,
    /// The verb that allowed it, as events name it; `None` for the plain `impersonate`.
    pub constraint: Option<&'static str>,
}

impl Request {
    /// Asks whether `user` may be the other one for the request that `attributes` describe: first by the constrained
    /// verbs, then by `impersonate` alone.
    ///
    /// # Errors
    ///
    /// 403 with what was refused first.
    pub async fn authorize_for(
        &self,
        user: &UserInfo,
        attributes: Attributes<'_>,
        authorizer: &dyn Authorizer,
    ) -> Result<Impersonated, StatusError> {
        let mut first = None;
        if let Some(mode) = Mode::of(self) {
            match self.authorize_by(mode, user, attributes, authorizer).await {
                Ok(()) => {
                    return Ok(Impersonated {
                        user: self.user_by(mode),
                        constraint: Some(mode.verb()),
                    });
                }
                Err(refusal) => first = Some(refusal),
            }
        }
        match self.authorize(user, authorizer).await {
            Ok(()) => Ok(Impersonated {
                user: self.user(),
                constraint: None,
            }),
            Err(refusal) => Err(first.unwrap_or(refusal)),
        }
    }

    /// The user of a mode: nodes are of their group.
    fn user_by(&self, mode: Mode) -> UserInfo {
        let mut user = self.user();
        if mode == Mode::ArbitraryNode
            && let Some(groups) = &mut user.groups
        {
            groups.insert(0, Text::from_static(NODES));
        }
        user
    }

    async fn authorize_by(
        &self,
        mode: Mode,
        user: &UserInfo,
        attributes: Attributes<'_>,
        authorizer: &dyn Authorizer,
    ) -> Result<(), StatusError> {
        let on = [b"impersonate-on:", mode.name().as_bytes(), b":", attributes.verb].concat();
        let attributes = Attributes {
            user: Some(user),
            verb: &on,
            ..attributes
        };
        super::may(user, authorizer, attributes).await?;
        let part = |resource: &'static str, name: &'static [u8]| part(user, mode, resource, name);
        let name = match (mode, &self.service_account) {
            (Mode::ArbitraryNode, _) => Attributes {
                name: node(&self.user).unwrap_or_default().as_bytes(),
                ..part("nodes", b"")
            },
            (Mode::ServiceAccount, Some((namespace, name))) => Attributes {
                namespace: namespace.as_bytes(),
                name: name.as_bytes(),
                ..part("serviceaccounts", b"")
            },
            _ => Attributes {
                name: self.user.as_bytes(),
                ..part("users", b"")
            },
        };
        super::may(user, authorizer, name).await?;
        if !self.uid.is_empty() {
            let uid = Attributes {
                name: self.uid.as_bytes(),
                ..part("uids", b"")
            };
            super::may(user, authorizer, uid).await?;
        }
        self.may_have_groups(mode, user, authorizer).await?;
        self.may_have_extra(mode, user, authorizer).await
    }

    async fn may_have_groups(
        &self,
        mode: Mode,
        user: &UserInfo,
        authorizer: &dyn Authorizer,
    ) -> Result<(), StatusError> {
        let group = |name| part(user, mode, "groups", name);
        for (refused, name, why) in [
            (
                "",
                &b""[..],
                "impersonating the empty string group is not allowed",
            ),
            (
                MASTERS,
                MASTERS.as_bytes(),
                "impersonating the system:masters group is not allowed",
            ),
        ] {
            if self.groups.iter().any(|group| *group == refused) {
                return Err(forbidden_by(&group(name), why));
            }
        }
        if self.groups.len() >= MANY && super::may(user, authorizer, group(b"*")).await.is_ok() {
            return Ok(());
        }
        for name in &self.groups {
            super::may(user, authorizer, group(name.as_bytes())).await?;
        }
        Ok(())
    }

    async fn may_have_extra(
        &self,
        mode: Mode,
        user: &UserInfo,
        authorizer: &dyn Authorizer,
    ) -> Result<(), StatusError> {
        let extra = |key, value| Attributes {
            subresource: key,
            ..part(user, mode, "userextras", value)
        };
        if let Some(why) = self.extra.iter().find_map(|(key, values)| unusable(key, values)) {
            return Err(forbidden_by(&extra(b"", b""), &why));
        }
        let values = self.extra.iter().map(|(_, values)| values.len()).sum::<usize>();
        if values >= MANY && super::may(user, authorizer, extra(b"*", b"*")).await.is_ok() {
            return Ok(());
        }
        for (key, values) in &self.extra {
            for value in values {
                super::may(user, authorizer, extra(key.as_bytes(), value.as_bytes())).await?;
            }
        }
        Ok(())
    }
}

/// The question about one part of a user.
fn part<'a>(user: &'a UserInfo, mode: Mode, resource: &'static str, name: &'a [u8]) -> Attributes<'a> {
    Attributes {
        user: Some(user),
        verb: mode.verb().as_bytes(),
        is_resource_request: true,
        api_group: GROUP.as_bytes(),
        api_version: b"v1",
        resource: resource.as_bytes(),
        subresource: b"",
        namespace: b"",
        name,
        path: b"",
    }
}

/// Why the constrained verbs allow no such fact.
fn unusable(key: &Text, values: &[Text]) -> Option<String> {
    let text = key.to_string_lossy();
    let what = if text.is_empty() {
        "the empty string key"
    } else if !is_domain_prefixed(&text) {
        "an invalid key"
    } else if text.to_lowercase() != text {
        "a non-lowercase key"
    } else if values.is_empty() {
        "empty values"
    } else if values.iter().any(|value| value.is_empty()) {
        "the empty string value"
    } else {
        return None;
    };
    Some(format!("impersonating {what} in extra is not allowed"))
}

/// Source: k8s.io/apimachinery pkg/util/validation/validation.go, IsDomainPrefixedPath.
fn is_domain_prefixed(key: &str) -> bool {
    let is_of_path = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    key.split_once('/').is_some_and(|(domain, path)| {
        is_subdomain(domain) && !path.is_empty() && path.bytes().all(is_of_path)
    })
}

/// Source: the same, IsDNS1123Subdomain.
fn is_subdomain(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        let ends = label.bytes().next().zip(label.bytes().next_back());
        ends.is_some_and(|(first, last)| is_inner(first) && is_inner(last))
            && label.bytes().all(|byte| is_inner(byte) || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// The node of a node's user name.
fn node(user: &Text) -> Option<&str> {
    let user = std::str::from_utf8(user.as_bytes()).ok()?;
    user.strip_prefix(NODE_USER).filter(|name| is_subdomain(name))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http::{HeaderMap, HeaderName};

    use super::*;
    use crate::authn::BoxFuture;
    use crate::authz::{Authorization, AuthorizationRequest, Decision};

    /// Allows questions of which it has the text, and remembers all.
    #[derive(Debug, Default)]
    struct Rules {
        allowed: Vec<&'static str>,
        asked: Mutex<Vec<String>>,
    }

    impl Authorizer for Rules {
        fn authorize<'a>(
            &'a self,
            request: AuthorizationRequest<'a>,
        ) -> BoxFuture<'a, Result<Authorization, String>> {
            let of = request.attributes;
            let parts = [
                of.verb,
                of.api_group,
                of.resource,
                of.subresource,
                of.namespace,
                of.name,
                of.path,
            ];
            let parts = parts.map(|part| String::from_utf8_lossy(part).into_owned());
            let question = parts.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
            let decision = if self.allowed.contains(&question.as_str()) {
                Decision::Allow
            } else {
                Decision::NoOpinion
            };
            self.asked.lock().unwrap().push(question);
            let reason = String::new();
            Box::pin(std::future::ready(Ok(Authorization { decision, reason })))
        }
    }

    fn asks(lines: &[(&str, &str)]) -> Request {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        Request::from_headers(&headers).unwrap().unwrap()
    }

    async fn decide(
        lines: &[(&str, &str)],
        allowed: &[&'static str],
    ) -> (Result<Impersonated, String>, Vec<String>) {
        let mallory = UserInfo {
            username: Text::from_static("mallory"),
            ..UserInfo::default()
        };
        let listing = Attributes {
            user: Some(&mallory),
            verb: b"list",
            is_resource_request: true,
            api_group: b"",
            api_version: b"v1",
            resource: b"secrets",
            subresource: b"",
            namespace: b"team-a",
            name: b"",
            path: b"",
        };
        let rules = Rules {
            allowed: allowed.to_vec(),
            ..Rules::default()
        };
        let decided = asks(lines).authorize_for(&mallory, listing, &rules).await;
        let decided = decided.map_err(|refusal| refusal.status.message.to_string_lossy().into_owned());
        (decided, rules.asked.into_inner().unwrap())
    }

    const CAROL: &[(&str, &str)] = &[("impersonate-user", "carol")];
    const ON: &str = "impersonate-on:user-info:list secrets team-a";
    const AS_CAROL: &str = "impersonate:user-info authentication.k8s.io users carol";

    #[tokio::test]
    async fn both_verbs_are_needed_or_the_plain_one() {
        let (decided, _) = decide(CAROL, &[ON, AS_CAROL]).await;
        let decided = decided.unwrap();
        assert_eq!(
            (decided.user.username.as_bytes(), decided.constraint),
            (&b"carol"[..], Some("impersonate:user-info"))
        );
        let (decided, _) = decide(CAROL, &["impersonate users carol"]).await;
        assert_eq!(decided.unwrap().constraint, None);
        for allowed in [&[][..], &[ON], &[AS_CAROL]] {
            let (decided, asked) = decide(CAROL, allowed).await;
            let refusal = decided.unwrap_err();
            let expected = if allowed == [ON] {
                "users.authentication.k8s.io \"carol\" is forbidden: User \"mallory\" cannot impersonate:user-info resource \"users\" in API group \"authentication.k8s.io\" at the cluster scope"
            } else {
                "secrets is forbidden: User \"mallory\" cannot impersonate-on:user-info:list resource \"secrets\" in API group \"\" in the namespace \"team-a\""
            };
            assert_eq!(refusal, expected);
            assert_eq!(asked.last().unwrap(), "impersonate users carol", "{allowed:?}");
        }
    }

    #[tokio::test]
    async fn nodes_and_service_accounts_have_verbs_and_groups_of_their_own() {
        let (decided, _) = decide(
            &[("impersonate-user", "system:node:a.example")],
            &[
                "impersonate-on:arbitrary-node:list secrets team-a",
                "impersonate:arbitrary-node authentication.k8s.io nodes a.example",
            ],
        )
        .await;
        let node = decided.unwrap();
        assert_eq!(
            node.user.groups.unwrap(),
            ["system:nodes", "system:authenticated"]
        );
        let (decided, _) = decide(
            &[("impersonate-user", "system:serviceaccount:ns:robot")],
            &[
                "impersonate-on:serviceaccount:list secrets team-a",
                "impersonate:serviceaccount authentication.k8s.io serviceaccounts ns robot",
            ],
        )
        .await;
        assert_eq!(decided.unwrap().constraint, Some("impersonate:serviceaccount"));
        // With a group it is neither them nor anybody else.
        for user in ["system:node:a", "system:serviceaccount:ns:robot"] {
            let lines = [("impersonate-user", user), ("impersonate-group", "g")];
            let (decided, asked) = decide(&lines, &[]).await;
            decided.unwrap_err();
            assert_eq!(asked.len(), 1, "{asked:?}");
            assert!(asked[0].starts_with("impersonate "), "{asked:?}");
        }
    }

    #[tokio::test]
    async fn every_part_is_asked_for_and_many_at_once_first() {
        let many = [
            ("impersonate-user", "carol"),
            ("impersonate-uid", "7"),
            ("impersonate-group", "a"),
            ("impersonate-group", "b"),
            ("impersonate-group", "c"),
            ("impersonate-group", "d"),
            ("impersonate-extra-example.com%2fscope", "x"),
        ];
        let part = |rest: &str| format!("impersonate:user-info authentication.k8s.io {rest}");
        let (decided, asked) = decide(
            &many,
            &[
                ON,
                AS_CAROL,
                "impersonate:user-info authentication.k8s.io uids 7",
                "impersonate:user-info authentication.k8s.io groups *",
                "impersonate:user-info authentication.k8s.io userextras example.com/scope x",
            ],
        )
        .await;
        decided.unwrap();
        let expected = [
            "users carol",
            "uids 7",
            "groups *",
            "userextras example.com/scope x",
        ]
        .map(part);
        assert_eq!(asked.get(1..).unwrap(), expected);
    }

    #[tokio::test]
    async fn what_the_constrained_verbs_never_allow_is_not_asked_by_them() {
        for (line, why) in [
            (
                ("impersonate-group", "system:masters"),
                "the system:masters group",
            ),
            (("impersonate-group", ""), "the empty string group"),
            (("impersonate-extra-scopes", "x"), "an invalid key in extra"),
            (
                ("impersonate-extra-example.com%2fa", ""),
                "the empty string value in extra",
            ),
            (
                ("impersonate-extra-example.com%2f%41", "x"),
                "a non-lowercase key in extra",
            ),
        ] {
            let lines = [("impersonate-user", "carol"), line];
            let (decided, _) = decide(&lines, &[ON, AS_CAROL]).await;
            let refusal = decided.unwrap_err();
            assert!(
                refusal.ends_with(&format!(": impersonating {why} is not allowed")),
                "{refusal}"
            );
        }
    }
}
