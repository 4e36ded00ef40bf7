//! Tokens of service accounts: JWTs that only this process can make and check.
//!
//! Source: kubernetes pkg/serviceaccount/claims.go for what they claim; upstream signs with a key pair.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use kaudit_event::{Text, UserInfo};
use serde_json::{Value, json};

use crate::object::{random, text};

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Makes and checks tokens.
pub(crate) struct Signer(hmac::Key);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

/// The account that a token was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// The token's own ID.
    pub(crate) token_id: String,
}

impl Signer {
    /// A signer with a new key.
    pub(crate) fn new() -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()))
    }

    pub(crate) fn sign(&self, account: &Account, now: Timestamp, expires: Timestamp) -> String {
        let claims = json!({
            "aud": [ISSUER], "exp": expires.as_second(), "iat": now.as_second(), "iss": ISSUER,
            "jti": account.token_id, "nbf": now.as_second(),
            "kubernetes.io": {
                "namespace": account.namespace,
                "serviceaccount": {"name": account.name, "uid": account.uid},
            },
            "sub": format!("system:serviceaccount:{}:{}", account.namespace, account.name),
        });
        let signed = format!("{}.{}", BASE64.encode(HEADER), BASE64.encode(claims.to_string()));
        let tag = hmac::sign(&self.0, signed.as_bytes());
        format!("{signed}.{}", BASE64.encode(tag))
    }

    /// The account of a token that this signer made and that has not expired.
    pub(crate) fn verify(&self, token: &[u8], now: Timestamp) -> Option<Account> {
        let token = std::str::from_utf8(token).ok()?;
        let (signed, tag) = token.rsplit_once('.')?;
        let tag = BASE64.decode(tag).ok()?;
        hmac::verify(&self.0, signed.as_bytes(), &tag).ok()?;
        let (_, claims) = signed.split_once('.')?;
        let claims: Value = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
        if claims.get("exp")?.as_i64()? <= now.as_second() {
            return None;
        }
        let of = |pointer: &str| text(&claims, pointer).to_owned();
        Some(Account {
            namespace: of("/kubernetes.io/namespace"),
            name: of("/kubernetes.io/serviceaccount/name"),
            uid: of("/kubernetes.io/serviceaccount/uid"),
            token_id: of("/jti"),
        })
    }
}

impl Account {
    /// The user that stands for the account.
    pub(crate) fn user(&self) -> UserInfo {
        let Self {
            namespace,
            name,
            uid,
            token_id,
        } = self;
        UserInfo {
            username: format!("system:serviceaccount:{namespace}:{name}").into(),
            uid: uid.clone().into(),
            groups: Some(vec![
                Text::from_static("system:serviceaccounts"),
                format!("system:serviceaccounts:{namespace}").into(),
            ]),
            extra: vec![(
                Text::from_static("authentication.kubernetes.io/credential-id"),
                Some(vec![format!("JTI={token_id}").into()]),
            )],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_it_expires_and_only_for_its_signer() {
        let account = Account {
            namespace: "a".to_owned(),
            name: "b".to_owned(),
            uid: "u".to_owned(),
            token_id: "j".to_owned(),
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        let signer = Signer::new();
        let token = signer.sign(&account, at(0), at(10));
        assert_eq!(signer.verify(token.as_bytes(), at(9)), Some(account));
        assert_eq!(signer.verify(token.as_bytes(), at(10)), None);
        assert_eq!(Signer::new().verify(token.as_bytes(), at(9)), None);
        let mut forged = token.into_bytes();
        forged[40] ^= 1;
        assert_eq!(signer.verify(&forged, at(9)), None);
        assert_eq!(signer.verify(b"x", at(0)), None);
    }
}
