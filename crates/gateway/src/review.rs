//! Questions to the cluster, asked with the client's credentials or with the gateway's own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kaudit_dial::{SendError, Upstream, with_causes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::own::{CredentialProblem, OwnCredential};

/// An answer larger than this is not one.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Time for one question with its answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Questions in flight; more wait, within their time.
const MAX_IN_FLIGHT: usize = 128;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReviewError {
    #[error("the cluster cannot be asked: {}", with_causes(.0))]
    Send(#[from] SendError),
    #[error("the cluster's answer broke off: {0}")]
    Body(String),
    #[error("the cluster took longer than {} s to answer", TIMEOUT.as_secs())]
    Timeout,
    #[error("the cluster answered {0}")]
    Code(StatusCode),
    #[error("the cluster's answer is not a review: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the gateway has no credential to ask with: {0}")]
    Credential(#[from] CredentialProblem),
    #[error("the cluster does not know the gateway's own credential")]
    OwnRefused,
}

/// Asks questions, so many at once.
#[derive(Clone, Debug)]
pub(crate) struct Reviewer {
    upstream: Upstream,
    in_flight: Arc<Semaphore>,
}

impl Reviewer {
    pub(crate) fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
        }
    }

    /// Posts `review` to `path` with `credentials` and reads the answer to a success.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        path: &'static str,
        credentials: HeaderMap,
        review: &(impl Serialize + Sync),
    ) -> Result<T, ReviewError> {
        self.ask_over(&self.upstream, path, credentials, review).await
    }

    /// The same with the gateway's own credential.
    pub(crate) async fn ask_as<T: DeserializeOwned>(
        &self,
        own: &OwnCredential,
        path: &'static str,
        review: &(impl Serialize + Sync),
    ) -> Result<T, ReviewError> {
        let mut headers = HeaderMap::new();
        if let Some(value) = own.authorization().await? {
            headers.insert(header::AUTHORIZATION, value);
        }
        match self.ask_over(own.upstream(), path, headers, review).await {
            Err(ReviewError::Code(StatusCode::UNAUTHORIZED)) => {
                own.refused().await;
                Err(ReviewError::OwnRefused)
            }
            answer => answer,
        }
    }

    /// The same over other connections.
    pub(crate) async fn ask_over<T: DeserializeOwned>(
        &self,
        upstream: &Upstream,
        path: &'static str,
        credentials: HeaderMap,
        review: &(impl Serialize + Sync),
    ) -> Result<T, ReviewError> {
        let question = serde_json::to_vec(review)?;
        let asked = async {
            // The semaphore is never closed.
            let _room = self.in_flight.acquire().await;
            // Boxed: who finds the answer known carries none of this.
            Box::pin(exchange(upstream, path, credentials, question)).await
        };
        let answer = tokio::time::timeout(TIMEOUT, asked)
            .await
            .unwrap_or(Err(ReviewError::Timeout))?;
        Ok(serde_json::from_slice(&answer)?)
    }
}

async fn exchange(
    upstream: &Upstream,
    path: &'static str,
    credentials: HeaderMap,
    question: Vec<u8>,
) -> Result<Bytes, ReviewError> {
    let mut request = Request::new(Bytes::from(question));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    *request.headers_mut() = credentials;
    let headers = request.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json.clone());
    headers.insert(header::ACCEPT, json);
    headers.insert(
        header::USER_AGENT,
        HeaderValue::from_static(concat!("kaudit-gateway/", env!("CARGO_PKG_VERSION"))),
    );
    let response = upstream.send_question(request).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES)
        .collect()
        .await
        .map_err(|error| ReviewError::Body(error.to_string()))?
        .to_bytes();
    if head.status.is_success() {
        Ok(body)
    } else {
        Err(ReviewError::Code(head.status))
    }
}

/// A client's credentials: who it is, without whom it wants to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    authorization: Option<HeaderValue>,
    /// A bearer token in a WebSocket subprotocol, the way of browsers.
    protocol: Option<HeaderValue>,
}

pub(crate) const SUBPROTOCOL: HeaderName = header::SEC_WEBSOCKET_PROTOCOL;
pub(crate) const SUBPROTOCOL_TOKEN: &[u8] = b"base64url.bearer.authorization.k8s.io.";

impl Credentials {
    /// The credentials among a request's headers.
    ///
    /// Source: k8s.io/apiserver pkg/authentication/request/websocket/protocol.go.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let authorization = headers
            .get(header::AUTHORIZATION)
            .filter(|value| token_of(value).is_some())
            .cloned();
        let protocol = headers
            .get_all(SUBPROTOCOL)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .find(|protocol| protocol.starts_with(SUBPROTOCOL_TOKEN))
            .filter(|_| authorization.is_none())
            .and_then(bearer_of);
        Self {
            authorization,
            protocol,
        }
    }

    /// Whether there are none.
    pub(crate) const fn is_none(&self) -> bool {
        self.authorization.is_none() && self.protocol.is_none()
    }

    /// The bearer token.
    pub(crate) fn token(&self) -> Option<&[u8]> {
        token_of(self.authorization.as_ref().or(self.protocol.as_ref())?)
    }

    /// What tells these credentials from others.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.authorization
            .iter()
            .chain(&self.protocol)
            .map(HeaderValue::as_bytes)
    }

    /// The headers that carry them; a token from a subprotocol travels as what it is.
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(value) = self.authorization.as_ref().or(self.protocol.as_ref()) {
            let mut value = value.clone();
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        headers
    }
}

/// The bearer token in a value of `Authorization`. Behind two blanks there is none for the cluster, which takes such a
/// request for one without credentials.
///
/// Source: k8s.io/apiserver pkg/authentication/request/bearertoken/bearertoken.go.
fn token_of(authorization: &HeaderValue) -> Option<&[u8]> {
    let mut parts = authorization.as_bytes().trim_ascii().split(|byte| *byte == b' ');
    let (scheme, token) = (parts.next()?, parts.next()?);
    (scheme.eq_ignore_ascii_case(b"bearer") && !token.is_empty()).then_some(token)
}

fn bearer_of(protocol: &[u8]) -> Option<HeaderValue> {
    use base64::Engine as _;
    let encoded = protocol.strip_prefix(SUBPROTOCOL_TOKEN)?;
    let token = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(encoded)
        .ok()?;
    let mut line = b"Bearer ".to_vec();
    line.extend_from_slice(&token);
    HeaderValue::from_bytes(&line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t10_a_token_in_a_subprotocol_is_found_unless_there_is_a_bearer_header() {
        let mut headers = HeaderMap::new();
        headers.insert(
            SUBPROTOCOL,
            HeaderValue::from_static("v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.dG9rZW4"),
        );
        let credentials = Credentials::of(&headers);
        assert_eq!(
            credentials.headers().get(header::AUTHORIZATION).unwrap(),
            "Bearer token"
        );
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("bearer other"));
        let credentials = Credentials::of(&headers);
        assert_eq!(
            credentials.headers().get(header::AUTHORIZATION).unwrap(),
            "bearer other"
        );
    }

    #[test]
    fn what_is_no_bearer_token_is_no_credential() {
        for authorization in [
            "Basic eDp5",
            "Bearer",
            "Bearer ",
            "Bearer  token",
            "Bearer\ttoken",
            "Bearertoken x",
            "",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(authorization));
            assert!(Credentials::of(&headers).is_none(), "{authorization:?}");
            headers.insert(
                SUBPROTOCOL,
                HeaderValue::from_static("base64url.bearer.authorization.k8s.io.dG9rZW4"),
            );
            assert_eq!(
                Credentials::of(&headers).token(),
                Some(&b"token"[..]),
                "{authorization:?}"
            );
        }
    }
}
