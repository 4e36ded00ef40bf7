//! Proxies that tell in headers who asks.
//!
//! Source: k8s.io/apiserver pkg/authentication/request/headerrequest/requestheader.go.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::InvalidHeaderName;
use http::{HeaderMap, HeaderName};
use kaudit_event::{Extra, Text, UserInfo};

use super::certificate::{ClientAuthority, certificate_user};
use crate::impersonation::unescape;

/// A proxy that tells in headers who asks.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "the settings of kube-apiserver, put together by whoever has them"
)]
pub struct FrontProxy {
    /// Who signs its certificates.
    pub authority: ClientAuthority,
    /// Common names of its certificates; empty allows any.
    pub names: Vec<String>,
    /// The headers.
    pub headers: FrontProxyHeaders,
}

/// Headers in which a front proxy tells who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontProxyHeaders {
    user: Vec<HeaderName>,
    uid: Vec<HeaderName>,
    groups: Vec<HeaderName>,
    /// In lower case.
    extra: Vec<String>,
}

impl Default for FrontProxyHeaders {
    /// `X-Remote-User`, `X-Remote-Uid`, `X-Remote-Group` and `X-Remote-Extra-`.
    fn default() -> Self {
        Self {
            user: vec![HeaderName::from_static("x-remote-user")],
            uid: vec![HeaderName::from_static("x-remote-uid")],
            groups: vec![HeaderName::from_static("x-remote-group")],
            extra: vec!["x-remote-extra-".to_owned()],
        }
    }
}

impl FrontProxyHeaders {
    /// Headers by other names; `extra` are prefixes.
    ///
    /// # Errors
    ///
    /// [`InvalidHeaderName`] for what cannot be a header's name, or its beginning.
    pub fn new(
        user: &[String],
        uid: &[String],
        groups: &[String],
        extra: &[String],
    ) -> Result<Self, InvalidHeaderName> {
        let names = |names: &[String]| {
            names
                .iter()
                .map(|name| HeaderName::from_bytes(name.as_bytes()))
                .collect::<Result<Vec<_>, _>>()
        };
        let prefixes = names(extra)?;
        Ok(Self {
            user: names(user)?,
            uid: names(uid)?,
            groups: names(groups)?,
            extra: prefixes.iter().map(|prefix| prefix.as_str().to_owned()).collect(),
        })
    }

    /// Whether a header is one of these, also where underscores are taken for dashes.
    #[must_use]
    pub fn include(&self, name: &HeaderName) -> bool {
        let alike = |a: &str, b: &str| {
            let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
            a.bytes().map(dashed).eq(b.bytes().map(dashed))
        };
        let name = name.as_str();
        let mut names = self.user.iter().chain(&self.uid).chain(&self.groups);
        names.any(|ours| alike(name, ours.as_str()))
            || self
                .extra
                .iter()
                .any(|prefix| name.get(..prefix.len()).is_some_and(|start| alike(start, prefix)))
    }

    /// The user that the headers name, whoever sent them.
    #[must_use]
    pub fn user(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let first = |names: &[HeaderName]| {
            names.iter().find_map(|name| {
                let value = headers.get(name)?.as_bytes();
                (!value.is_empty()).then(|| Text::copy_from_slice(value))
            })
        };
        let username = first(&self.user)?;
        let groups = self
            .groups
            .iter()
            .flat_map(|name| headers.get_all(name))
            .filter(|value| !value.is_empty())
            .map(|value| Text::copy_from_slice(value.as_bytes()))
            .collect();
        let mut extra = Extra::new();
        for name in headers.keys() {
            let key = self
                .extra
                .iter()
                .find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()));
            let Some(key) = key else {
                continue;
            };
            let key = unescape(key);
            let values = headers
                .get_all(name)
                .iter()
                .map(|value| Text::copy_from_slice(value.as_bytes()));
            match extra.iter_mut().find(|(present, _)| *present == key) {
                Some((_, present)) => present.get_or_insert_default().extend(values),
                None => extra.push((key, Some(values.collect()))),
            }
        }
        extra.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
        Some(UserInfo {
            username,
            uid: first(&self.uid).unwrap_or_default(),
            groups: Some(groups),
            extra,
        })
    }
}

impl FrontProxy {
    /// Whether a chain of certificates in DER, leaf first, is the proxy's at `now`.
    #[must_use]
    pub fn shows(&self, chain: &[Bytes], now: SystemTime) -> bool {
        let Some(leaf) = chain.first() else {
            return false;
        };
        if !self.authority.signed(chain, now) {
            return false;
        }
        let is_named = || {
            let user = certificate_user(leaf);
            user.is_some_and(|user| {
                self.names
                    .iter()
                    .any(|name| name.as_bytes() == user.username.as_bytes())
            })
        };
        self.names.is_empty() || is_named()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn headers_name_a_user_with_groups_uid_and_extra() {
        let user = FrontProxyHeaders::default()
            .user(&headers(&[
                ("x-remote-user", "carol"),
                ("x-remote-group", "a"),
                ("x-remote-group", ""),
                ("x-remote-group", "b"),
                ("x-remote-uid", "7"),
                ("x-remote-extra-example.com%2fscope", "read"),
                ("x-remote-extra-example.com%2fscope", "write"),
                ("x-remote-extra-broken%2", "kept"),
            ]))
            .unwrap();
        assert_eq!((&user.username, &user.uid), (&"carol".into(), &"7".into()));
        assert_eq!(user.groups.unwrap(), ["a", "b"].map(Text::from_static));
        let keys: Vec<_> = user.extra.iter().map(|(key, _)| key.to_string()).collect();
        assert_eq!(keys, ["broken%2", "example.com/scope"]);
        assert_eq!(user.extra[1].1.as_ref().unwrap().len(), 2);
    }

    #[test]
    fn the_first_header_with_a_value_names_the_user() {
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|&name| name.to_owned()).collect() };
        let ours = FrontProxyHeaders::new(&names(&["X-A", "X-B"]), &[], &names(&["X-G"]), &names(&["X-E-"]))
            .unwrap();
        let user = ours
            .user(&headers(&[("x-a", ""), ("x-b", "bob"), ("x-e-k", "v")]))
            .unwrap();
        assert_eq!(user.username, "bob");
        assert_eq!(user.extra[0].0, "k");
        assert_eq!(ours.user(&headers(&[("x-remote-user", "root")])), None);
        assert!(FrontProxyHeaders::new(&names(&["no name"]), &[], &[], &[]).is_err());
    }

    #[test]
    fn t04_underscores_make_no_other_header() {
        let ours = FrontProxyHeaders::default();
        let includes = |name: &str| ours.include(&HeaderName::from_bytes(name.as_bytes()).unwrap());
        for name in [
            "X-Remote-User",
            "x_remote_user",
            "X-Remote_Group",
            "x_remote-extra_scopes",
        ] {
            assert!(includes(name), "{name}");
        }
        for name in ["x-remote-users", "x-remot", "x-remote"] {
            assert!(!includes(name), "{name}");
        }
    }
}
