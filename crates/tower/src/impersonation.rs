//! Acting as somebody else.
//!
//! Source: k8s.io/apiserver pkg/endpoints/filters/impersonation.go and
//! pkg/endpoints/filters/impersonation/impersonation.go.

mod constrained;

use http::HeaderMap;
use kaudit_event::{Text, UserInfo};
use kaudit_policy::Attributes;

use crate::authz::{Authorization, AuthorizationRequest, Authorizer, Decision, forbidden_by};
use crate::status::StatusError;

pub use constrained::Impersonated;

/// What the chain does with `Impersonate-*` headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no fourth way")]
pub enum Impersonation {
    /// They mean nothing here.
    #[default]
    Off,
    /// The authorizer decides; the request is carried out as the other user.
    Enforce,
    /// Somebody behind decides; the event says who was asked for, unless that was refused.
    Observe,
}

const PREFIX: &str = "impersonate-";
const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// What `Impersonate-*` headers ask for.
#[derive(Debug)]
pub struct Request {
    user: Text,
    service_account: Option<(String, String)>,
    groups: Vec<Text>,
    uid: Text,
    extra: Vec<(Text, Vec<Text>)>,
}

impl Request {
    /// Reads the headers; `None` without any.
    ///
    /// # Errors
    ///
    /// 400 for parts of an identity without a user.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, StatusError> {
        // Few ask for it: one look at the names instead of one for each header.
        if !headers.keys().any(|name| name.as_str().starts_with(PREFIX)) {
            return Ok(None);
        }
        let text = |value: &http::HeaderValue| Text::copy_from_slice(value.as_bytes());
        let user = headers.get(USER).map(text).unwrap_or_default();
        let groups: Vec<Text> = headers.get_all(GROUP).iter().map(text).collect();
        let uid = headers.get(UID).map(text).unwrap_or_default();
        let extra: Vec<(Text, Vec<Text>)> = headers
            .keys()
            .filter_map(|name| Some((name, name.as_str().strip_prefix(EXTRA)?)))
            .map(|(name, key)| (unescape(key), headers.get_all(name).iter().map(text).collect()))
            .collect();
        let request = Self {
            service_account: service_account(&user),
            user,
            groups,
            uid,
            extra,
        };
        if !request.user.is_empty() {
            return Ok(Some(request));
        }
        if request.groups.is_empty() && request.uid.is_empty() && request.extra.is_empty() {
            return Ok(None);
        }
        let message = format!("requested {} without impersonating a user", request.references());
        Err(StatusError::new(
            http::StatusCode::BAD_REQUEST,
            "BadRequest",
            message,
        ))
    }

    /// The parts as Go prints a list of object references.
    fn references(&self) -> String {
        const VERSION: &str = "authentication.k8s.io/v1";
        let mut parts = Vec::new();
        let mut push = |kind: &str, name: &Text, version: &str, path: &str| {
            parts.push(format!("{{{kind}  {name}  {version}  {path}}}"));
        };
        for group in &self.groups {
            push("Group", group, "", "");
        }
        for (key, values) in &self.extra {
            for value in values {
                push("UserExtra", value, VERSION, &key.to_string_lossy());
            }
        }
        if !self.uid.is_empty() {
            push("UID", &self.uid, VERSION, "");
        }
        format!("[{}]", parts.join(" "))
    }

    /// The user after the groups that every user has were added.
    #[must_use]
    pub fn user(&self) -> UserInfo {
        let mut groups = self.groups.clone();
        if groups.is_empty()
            && let Some((namespace, _)) = &self.service_account
        {
            groups.push(Text::from_static("system:serviceaccounts"));
            groups.push(format!("system:serviceaccounts:{namespace}").into());
        }
        let has = |name: &str| groups.iter().any(|group| *group == name);
        if self.user == "system:anonymous" {
            if !has(UNAUTHENTICATED) {
                groups.push(Text::from_static(UNAUTHENTICATED));
            }
        } else if !has(AUTHENTICATED) && !has(UNAUTHENTICATED) {
            groups.push(Text::from_static(AUTHENTICATED));
        }
        UserInfo {
            username: self.user.clone(),
            uid: self.uid.clone(),
            groups: Some(groups),
            extra: self
                .extra
                .iter()
                .map(|(key, values)| (key.clone(), Some(values.clone())))
                .collect(),
        }
    }

    /// Asks for each part whether `user` may impersonate it, by the verb `impersonate`.
    ///
    /// # Errors
    ///
    /// 403 with the first part that is refused, or about which there is no answer.
    pub async fn authorize(&self, user: &UserInfo, authorizer: &dyn Authorizer) -> Result<(), StatusError> {
        let authentication = "authentication.k8s.io";
        match &self.service_account {
            Some((namespace, name)) => {
                let account = part(user, ["", "serviceaccounts", "", namespace], name.as_bytes());
                may(user, authorizer, account).await?;
            }
            None => {
                let users = part(user, ["", "users", "", ""], self.user.as_bytes());
                may(user, authorizer, users).await?;
            }
        }
        for group in &self.groups {
            let groups = part(user, ["", "groups", "", ""], group.as_bytes());
            may(user, authorizer, groups).await?;
        }
        for (key, values) in &self.extra {
            let key = key.to_string_lossy();
            for value in values {
                let extra = part(user, [authentication, "userextras", &key, ""], value.as_bytes());
                may(user, authorizer, extra).await?;
            }
        }
        if !self.uid.is_empty() {
            let uids = part(user, [authentication, "uids", "", ""], self.uid.as_bytes());
            may(user, authorizer, uids).await?;
        }
        Ok(())
    }
}

/// The question about one part of a user.
fn part<'a>(
    user: &'a UserInfo,
    [group, resource, subresource, namespace]: [&'a str; 4],
    name: &'a [u8],
) -> Attributes<'a> {
    Attributes {
        user: Some(user),
        verb: b"impersonate",
        is_resource_request: true,
        api_group: group.as_bytes(),
        api_version: b"v1",
        resource: resource.as_bytes(),
        subresource: subresource.as_bytes(),
        namespace: namespace.as_bytes(),
        name,
        path: b"",
    }
}

async fn may(
    user: &UserInfo,
    authorizer: &dyn Authorizer,
    attributes: Attributes<'_>,
) -> Result<(), StatusError> {
    let decided = authorizer.authorize(AuthorizationRequest { user, attributes });
    let reason = match decided.await {
        Ok(Authorization {
            decision: Decision::Allow,
            ..
        }) => return Ok(()),
        Ok(Authorization { reason, .. }) => reason,
        Err(error) => error,
    };
    Err(forbidden_by(&attributes, &reason))
}

/// The key of an extra header: lower-case already, percent escapes decoded where they are valid.
pub(crate) fn unescape(key: &str) -> Text {
    let mut out = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: &u8| {
            char::from(*byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        match after {
            [high, low, after @ ..] if digit(high).is_some() && digit(low).is_some() => {
                out.push(digit(high).unwrap_or_default() << 4 | digit(low).unwrap_or_default());
                rest = after;
            }
            // One bad escape and the key stays as it is.
            _ => return Text::copy_from_slice(key.as_bytes()),
        }
    }
    Text::from(out)
}

/// Namespace and name of a service account's user name.
///
/// Source: k8s.io/apiserver pkg/authentication/serviceaccount/util.go, SplitUsername.
fn service_account(user: &Text) -> Option<(String, String)> {
    let user = user.to_string_lossy();
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let is_name = |part: &str| !part.is_empty() && !part.contains(':');
    (is_name(namespace) && is_name(name)).then(|| (namespace.to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t06_what_is_asked_without_a_user_is_told_as_go_prints_it() {
        let lines = [
            ("impersonate-group", "g1"),
            ("impersonate-group", "g2"),
            ("impersonate-extra-scopes", "a"),
            ("impersonate-uid", "7"),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value.parse().unwrap());
        }
        let refused = Request::from_headers(&headers).unwrap_err();
        assert_eq!(
            refused.status.message.to_string_lossy(),
            "requested [{Group  g1    } {Group  g2    } {UserExtra  a  authentication.k8s.io/v1  scopes} \
             {UID  7  authentication.k8s.io/v1  }] without impersonating a user"
        );
    }
}
