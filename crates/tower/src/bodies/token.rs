//! The token that a TokenRequest is answered with.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kaudit_policy::RequestInfo;
use serde::Deserialize;

/// Whether the request is answered with a token.
pub(crate) fn issues_token(info: &RequestInfo) -> bool {
    info.verb() == b"create"
        && info.api_group().is_empty()
        && info.resource() == b"serviceaccounts"
        && info.subresource() == b"token"
}

#[derive(Deserialize)]
struct TokenRequest {
    status: TokenRequestStatus,
}

#[derive(Deserialize)]
struct TokenRequestStatus {
    token: String,
}

#[derive(Deserialize)]
struct Claims {
    jti: String,
}

/// How the credential that was issued is called where it is used, from the TokenRequest in JSON. The token is
/// the cluster's own, so its signature is not looked at; nothing else of it is kept.
///
/// Source: k8s.io/kubernetes pkg/registry/core/serviceaccount/storage/token.go; k8s.io/apiserver
/// pkg/authentication/token/jwt (CredentialIDForJTI).
pub(crate) fn credential_id(json: &[u8]) -> Option<String> {
    let TokenRequest { status } = serde_json::from_slice(json).ok()?;
    let payload = status.token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let Claims { jti } = serde_json::from_slice(&payload).ok()?;
    (!jti.is_empty()).then(|| format!("JTI={jti}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(claims: &str) -> Vec<u8> {
        let payload = URL_SAFE_NO_PAD.encode(claims);
        format!(r#"{{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","status":{{"token":"e30.{payload}.c2ln"}}}}"#)
            .into_bytes()
    }

    #[test]
    fn a_credential_is_called_by_the_identifier_in_its_token() {
        let id = credential_id(&answer(r#"{"aud":["a"],"jti":"7c5a"}"#));
        assert_eq!(id.as_deref(), Some("JTI=7c5a"));
    }

    #[test]
    fn an_answer_without_such_a_token_has_none() {
        assert_eq!(credential_id(&answer(r#"{"aud":["a"]}"#)), None);
        assert_eq!(credential_id(&answer(r#"{"jti":""}"#)), None);
        assert_eq!(credential_id(br#"{"status":{"token":"opaque"}}"#), None);
        assert_eq!(credential_id(br#"{"status":{"token":"a.!.c"}}"#), None);
        assert_eq!(credential_id(br#"{"kind":"Status"}"#), None);
    }
}
