//! A user as `Impersonate-*` headers.
//!
//! Source: k8s.io/client-go transport/round_trippers.go, impersonatingRoundTripper.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use kaudit_dial::escaped_extra_key;
use kaudit_event::{Text, UserInfo};

use crate::headers::is_impersonation;
use crate::review::{SUBPROTOCOL, SUBPROTOCOL_TOKEN};

/// A user that headers cannot name without naming another: the cluster would trim it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} of the user cannot stand in a header as it is")]
pub(crate) struct Unspeakable(&'static str);

/// Takes all credentials and all impersonation out of a request's headers and puts `user` there, on the
/// word of whoever `own` is; without `own` the connection says who that is.
pub(crate) fn impersonate(
    headers: &mut HeaderMap,
    user: &UserInfo,
    own: Option<HeaderValue>,
) -> Result<(), Unspeakable> {
    let named: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_impersonation(name))
        .cloned()
        .collect();
    for name in &named {
        headers.remove(name);
    }
    headers.remove(AUTHORIZATION);
    strip_protocol_token(headers);
    if let Some(own) = own {
        headers.insert(AUTHORIZATION, own);
    }
    headers.insert("impersonate-user", value(&user.username, "name")?);
    for group in user.groups.iter().flatten() {
        headers.append("impersonate-group", value(group, "group")?);
    }
    if !user.uid.is_empty() {
        headers.insert("impersonate-uid", value(&user.uid, "uid")?);
    }
    for (key, values) in &user.extra {
        let name = extra_name(key)?;
        for value_of_key in values.iter().flatten() {
            headers.append(&name, value(value_of_key, "extra value")?);
        }
    }
    Ok(())
}

/// Servers trim what surrounds a value, and take an empty one for none.
fn value(text: &Text, what: &'static str) -> Result<HeaderValue, Unspeakable> {
    let bytes = text.as_bytes();
    if bytes.is_empty() || bytes.trim_ascii() != bytes {
        return Err(Unspeakable(what));
    }
    HeaderValue::from_bytes(bytes).map_err(|_| Unspeakable(what))
}

fn extra_name(key: &Text) -> Result<HeaderName, Unspeakable> {
    if key.is_empty() {
        return Err(Unspeakable("extra key"));
    }
    let name = format!("impersonate-extra-{}", escaped_extra_key(key.as_bytes()));
    HeaderName::try_from(name).map_err(|_| Unspeakable("extra key"))
}

/// A browser's token among its subprotocols is a credential like any other.
fn strip_protocol_token(headers: &mut HeaderMap) {
    let has_token = |value: &HeaderValue| {
        value
            .as_bytes()
            .windows(SUBPROTOCOL_TOKEN.len())
            .any(|window| window == SUBPROTOCOL_TOKEN)
    };
    if !headers.get_all(SUBPROTOCOL).iter().any(has_token) {
        return;
    }
    let kept: Vec<&[u8]> = headers
        .get_all(SUBPROTOCOL)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|protocol| !protocol.starts_with(SUBPROTOCOL_TOKEN))
        .collect();
    let line = HeaderValue::from_bytes(&kept.join(b", ".as_slice())).ok();
    headers.remove(SUBPROTOCOL);
    if let Some(line) = line.filter(|line| !line.is_empty()) {
        headers.insert(SUBPROTOCOL, line);
    }
}

#[cfg(test)]
mod tests {
    use kaudit_tower::ImpersonationRequest;

    use super::*;

    fn user(name: &str) -> UserInfo {
        UserInfo {
            username: Text::copy_from_slice(name.as_bytes()),
            groups: Some(vec![
                Text::from_static("ops"),
                Text::from_static("system:authenticated"),
            ]),
            ..UserInfo::default()
        }
    }

    #[test]
    fn t05_nothing_that_a_client_said_of_itself_is_left() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer client"),
            ("impersonate-user", "root"),
            ("impersonate-group", "system:masters"),
            ("impersonate-extra-scopes", "all"),
            ("impersonate-uid", "0"),
            ("impersonate-something", "new"),
            ("impersonate_user", "root"),
            ("accept", "application/json"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        impersonate(
            &mut headers,
            &user("bob"),
            Some(HeaderValue::from_static("Bearer own")),
        )
        .unwrap();
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "accept: application/json",
                "authorization: Bearer own",
                "impersonate-group: ops",
                "impersonate-group: system:authenticated",
                "impersonate-user: bob",
            ]
        );
    }

    #[test]
    fn t08_any_extra_key_comes_back_as_it_was() {
        for key in [
            "scopes",
            "example.com/Scope",
            "a%2fb",
            "über",
            "with space",
            "_x-",
            "a:b",
        ] {
            let mut ours = user("bob");
            ours.extra = vec![(
                Text::from(key),
                Some(vec![Text::from_static("v"), Text::from_static("w")]),
            )];
            let mut headers = HeaderMap::new();
            impersonate(&mut headers, &ours, None).unwrap();
            let theirs = ImpersonationRequest::from_headers(&headers)
                .unwrap()
                .unwrap()
                .user();
            assert_eq!(theirs, ours, "{key}");
        }
    }

    #[test]
    fn t08_a_user_that_would_become_another_is_refused() {
        for name in ["", " root", "root ", "root\t", "a\nb", "a\rb", "a\0b"] {
            let result = impersonate(&mut HeaderMap::new(), &user(name), None);
            assert_eq!(result, Err(Unspeakable("name")), "{name:?}");
        }
    }

    #[test]
    fn t10_a_token_among_subprotocols_ends_at_the_gateway() {
        let mut headers = HeaderMap::new();
        headers.insert(
            SUBPROTOCOL,
            HeaderValue::from_static(
                "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.dG9rZW4,v4.channel.k8s.io",
            ),
        );
        impersonate(&mut headers, &user("bob"), None).unwrap();
        assert_eq!(
            headers.get(SUBPROTOCOL).unwrap(),
            "v5.channel.k8s.io, v4.channel.k8s.io"
        );
        headers.insert(
            SUBPROTOCOL,
            HeaderValue::from_static("base64url.bearer.authorization.k8s.io.dG9rZW4"),
        );
        impersonate(&mut headers, &user("bob"), None).unwrap();
        assert!(headers.get(SUBPROTOCOL).is_none());
    }
}
