//! Who asks: a front proxy's word, a client certificate, a bearer token, or nobody in particular.
//!
//! Source: kubernetes pkg/kubeapiserver/authenticator/config.go, Config.New.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;
use kaudit_event::UserInfo;
use kaudit_tower::{
    Anonymous, AuditContext, Authentication, Authenticator, BoxFuture, ClientAuthority, ClientCertificates,
    FrontProxy, certificate_user, with_authenticated_group,
};

use crate::state::State;

/// The server's own authenticator.
#[derive(Debug)]
pub(crate) struct Identities {
    pub(crate) state: Arc<State>,
    pub(crate) client_authority: Option<ClientAuthority>,
    pub(crate) front_proxy: Option<FrontProxy>,
}

/// What one way to authenticate found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    User(UserInfo),
    /// Credentials of this kind were not presented.
    Nothing,
    /// They were, and are not good; another kind may still be.
    Bad,
}

impl Authenticator for Identities {
    fn authenticate<'a>(&'a self, parts: &'a Parts, _: &'a AuditContext) -> BoxFuture<'a, Authentication> {
        let authentication = match self.find(parts) {
            Found::User(user) => Authentication::User(Arc::new(with_authenticated_group(user))),
            Found::Nothing => Authentication::User(Arc::new(Anonymous::user())),
            Found::Bad => Authentication::Failed,
        };
        Box::pin(std::future::ready(authentication))
    }
}

impl Identities {
    /// The first kind of credentials that is good counts; bad ones only when none is good.
    fn find(&self, parts: &Parts) -> Found {
        let none = ClientCertificates::default();
        let chain = &parts.extensions.get::<ClientCertificates>().unwrap_or(&none).0;
        let mut bad = false;
        let ways: [&dyn Fn() -> Found; 3] = [
            &|| self.front_proxy(&parts.headers, chain),
            &|| self.certificate(chain),
            &|| self.bearer(&parts.headers),
        ];
        for way in ways {
            match way() {
                Found::Nothing => {}
                Found::Bad => bad = true,
                user @ Found::User(_) => return user,
            }
        }
        if bad { Found::Bad } else { Found::Nothing }
    }

    fn now(&self) -> SystemTime {
        self.state.now().into()
    }

    fn front_proxy(&self, headers: &HeaderMap, chain: &[Bytes]) -> Found {
        let Some(proxy) = self.front_proxy.as_ref().filter(|_| !chain.is_empty()) else {
            return Found::Nothing;
        };
        if !proxy.shows(chain, self.now()) {
            return Found::Bad;
        }
        proxy.headers.user(headers).map_or(Found::Nothing, Found::User)
    }

    /// Source: k8s.io/apiserver pkg/authentication/request/x509/x509.go, AuthenticateRequest.
    fn certificate(&self, chain: &[Bytes]) -> Found {
        let Some(authority) = &self.client_authority else {
            return Found::Nothing;
        };
        let Some(leaf) = chain.first() else {
            return Found::Nothing;
        };
        if !authority.signed(chain, self.now()) {
            return Found::Bad;
        }
        certificate_user(leaf).map_or(Found::Nothing, Found::User)
    }

    fn bearer(&self, headers: &HeaderMap) -> Found {
        match bearer_token(headers).or_else(|| protocol_token(headers)) {
            None => Found::Nothing,
            Some(token) => self.state.token_user(&token).map_or(Found::Bad, Found::User),
        }
    }
}

/// The token in the header for it.
///
/// Source: k8s.io/apiserver pkg/authentication/request/bearertoken/bearertoken.go.
fn bearer_token(headers: &HeaderMap) -> Option<String> {
    let header = headers.get(http::header::AUTHORIZATION)?;
    let header = String::from_utf8_lossy(header.as_bytes());
    let mut parts = header.trim().splitn(3, ' ');
    let (scheme, token) = (parts.next()?, parts.next()?);
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// The token among the protocols that a WebSocket asks for: browsers can send no other header.
///
/// Source: k8s.io/apiserver pkg/authentication/request/websocket/protocol.go.
fn protocol_token(headers: &HeaderMap) -> Option<String> {
    const PREFIX: &[u8] = b"base64url.bearer.authorization.k8s.io.";
    let is_websocket = headers
        .get(http::header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let token = headers
        .get_all(http::header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .find_map(|protocol| protocol.trim_ascii().strip_prefix(PREFIX))
        .filter(|_| is_websocket)?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()
}

#[cfg(test)]
mod tests;
