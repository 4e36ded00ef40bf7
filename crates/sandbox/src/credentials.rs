//! Bearer tokens: those that were given to the server, and those it issues to service accounts.
//!
//! An issued token has the shape of a JWT, signed with a key that lives as long as the server does.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use kaudit_event::{Text, UserInfo};
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use crate::object::{items, random, text};

/// Who the server's own tokens are for, unless their request says otherwise.
pub(crate) const AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";
/// Bytes of a token that are looked at.
const TOKEN_LIMIT: usize = 16 * 1024;
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// What tokens are checked against.
pub(crate) struct Credentials {
    /// By digest, so that the time of a lookup says nothing of the token.
    given: HashMap<[u8; 32], (String, UserInfo)>,
    key: hmac::Key,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("given", &self.given.len())
            .finish_non_exhaustive()
    }
}

/// What a service account's token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) namespace: String,
    pub(crate) account: String,
    pub(crate) uid: String,
    pub(crate) id: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) issued: i64,
    pub(crate) expires: i64,
    /// The object whose end is the token's.
    pub(crate) bound: Option<Bound>,
}

/// The object a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// `pod`, `secret` or `node`, as the claim is named.
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Name and uid of a pod's node.
    pub(crate) node: Option<(String, String)>,
}

impl Credentials {
    pub(crate) fn new(given: impl IntoIterator<Item = (String, UserInfo)>) -> Self {
        let given = given
            .into_iter()
            .map(|(token, user)| (sha256(token.as_bytes()), (token, user)))
            .collect();
        Self {
            given,
            key: hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()),
        }
    }

    /// The user of a token that the server was given.
    pub(crate) fn given(&self, token: &str) -> Option<&UserInfo> {
        let (known, user) = self.given.get(&sha256(token.as_bytes()))?;
        bool::from(known.as_bytes().ct_eq(token.as_bytes())).then_some(user)
    }

    /// A token that says what the claims say.
    pub(crate) fn issue(&self, claims: &Claims) -> String {
        let header = json!({"alg": "HS256", "typ": "JWT"});
        let body = claims.to_value();
        let mut out = URL_SAFE_NO_PAD.encode(header.to_string());
        out.push('.');
        out.push_str(&URL_SAFE_NO_PAD.encode(body.to_string()));
        let tag = hmac::sign(&self.key, out.as_bytes());
        out.push('.');
        out.push_str(&URL_SAFE_NO_PAD.encode(tag));
        out
    }

    /// The claims of a token that this server issued and that is valid at `now`.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Option<Claims> {
        if token.len() > TOKEN_LIMIT {
            return None;
        }
        let (signed, tag) = token.rsplit_once('.')?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&self.key, signed.as_bytes(), &tag).ok()?;
        let (_, body) = signed.split_once('.')?;
        let body: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
        let claims = Claims::of(&body)?;
        let now = now.as_second();
        (claims.issued <= now && now < claims.expires).then_some(claims)
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let digest = digest::digest(&digest::SHA256, bytes);
    for (to, from) in out.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    out
}

impl Claims {
    /// Source: kubernetes pkg/serviceaccount/claims.go, Claims.
    fn to_value(&self) -> Value {
        let mut private = json!({
            "namespace": self.namespace,
            "serviceaccount": {"name": self.account, "uid": self.uid},
        });
        if let Value::Object(private) = &mut private
            && let Some(bound) = &self.bound
        {
            private.insert(
                bound.kind.to_owned(),
                json!({"name": bound.name, "uid": bound.uid}),
            );
            if let Some((name, uid)) = &bound.node {
                private.insert("node".to_owned(), json!({"name": name, "uid": uid}));
            }
        }
        json!({
            "aud": self.audiences,
            "exp": self.expires,
            "iat": self.issued,
            "iss": AUDIENCE,
            "jti": self.id,
            "kubernetes.io": private,
            "nbf": self.issued,
            "sub": self.username(),
        })
    }

    fn of(body: &Value) -> Option<Self> {
        let private = body.get("kubernetes.io")?;
        let named = |key: &str| {
            let object = private.get(key)?;
            Some((text(object, "/name").to_owned(), text(object, "/uid").to_owned()))
        };
        let (account, uid) = named("serviceaccount")?;
        let bound = ["pod", "secret", "node"].into_iter().find_map(|kind| {
            let (name, uid) = named(kind)?;
            let node = if kind == "pod" { named("node") } else { None };
            Some(Bound {
                kind,
                name,
                uid,
                node,
            })
        });
        Some(Self {
            namespace: text(private, "/namespace").to_owned(),
            account,
            uid,
            id: text(body, "/jti").to_owned(),
            audiences: items(body, "/aud")
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            issued: body.get("nbf")?.as_i64()?,
            expires: body.get("exp")?.as_i64()?,
            bound,
        })
    }

    fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.account)
    }

    /// Source: kubernetes pkg/serviceaccount/util.go, ServiceAccountInfo.UserInfo.
    pub(crate) fn user(&self) -> UserInfo {
        let mut extra = vec![extra(CREDENTIAL_ID, format!("JTI={}", self.id))];
        let mut named = |kind: &str, name: &str, uid: &str| {
            extra.push(self::extra(
                &format!("authentication.kubernetes.io/{kind}-name"),
                name.to_owned(),
            ));
            extra.push(self::extra(
                &format!("authentication.kubernetes.io/{kind}-uid"),
                uid.to_owned(),
            ));
        };
        if let Some(bound) = self.bound.as_ref().filter(|bound| bound.kind != "secret") {
            named(bound.kind, &bound.name, &bound.uid);
            if let Some((name, uid)) = &bound.node {
                named("node", name, uid);
            }
        }
        // Go prints maps in the order of their keys.
        extra.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
        UserInfo {
            username: Text::from(self.username()),
            uid: Text::from(self.uid.clone()),
            groups: Some(vec![
                Text::from_static("system:serviceaccounts"),
                Text::from(format!("system:serviceaccounts:{}", self.namespace)),
            ]),
            extra,
        }
    }
}

/// One extra fact with one value.
pub(crate) fn extra(key: &str, value: String) -> (Text, Option<Vec<Text>>) {
    (
        Text::copy_from_slice(key.as_bytes()),
        Some(vec![Text::from(value)]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            namespace: "team".to_owned(),
            account: "robot".to_owned(),
            uid: "u-1".to_owned(),
            id: "j-1".to_owned(),
            audiences: vec![AUDIENCE.to_owned()],
            issued: 1000,
            expires: 4600,
            bound: Some(Bound {
                kind: "pod",
                name: "p".to_owned(),
                uid: "p-1".to_owned(),
                node: Some(("n".to_owned(), "n-1".to_owned())),
            }),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_issued_token_says_what_it_was_issued_for_until_it_expires() {
        let credentials = Credentials::new([]);
        let token = credentials.issue(&claims());
        assert_eq!(credentials.verify(&token, at(1000)), Some(claims()));
        assert_eq!(credentials.verify(&token, at(4600)), None);
        assert_eq!(credentials.verify(&token, at(999)), None);
        assert_eq!(Credentials::new([]).verify(&token, at(1000)), None);
    }

    #[test]
    fn a_changed_token_is_no_token() {
        let credentials = Credentials::new([]);
        let token = credentials.issue(&claims());
        for index in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(credentials.verify(&changed, at(1000)), None, "{index}");
        }
        for text in ["", ".", "..", "a.b.c", &"x".repeat(20_000)] {
            assert_eq!(credentials.verify(text, at(1000)), None);
        }
    }

    #[test]
    fn a_bound_token_names_its_pod_and_node_in_order() {
        let user = claims().user();
        let keys: Vec<String> = user.extra.iter().map(|(key, _)| key.to_string()).collect();
        assert_eq!(
            keys,
            ["credential-id", "node-name", "node-uid", "pod-name", "pod-uid"]
                .map(|key| format!("authentication.kubernetes.io/{key}"))
        );
        assert_eq!(user.username, "system:serviceaccount:team:robot");
    }

    #[test]
    fn only_the_whole_of_a_given_token_is_known() {
        let user = UserInfo {
            username: Text::from_static("ann"),
            ..UserInfo::default()
        };
        let credentials = Credentials::new([("secret".to_owned(), user.clone())]);
        assert_eq!(credentials.given("secret"), Some(&user));
        for wrong in ["", "secre", "secrets", "SECRET"] {
            assert_eq!(credentials.given(wrong), None);
        }
    }
}
