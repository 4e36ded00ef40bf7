//! Who asks: front proxy, client certificate, token, or nobody in particular, in kube-apiserver's order.
//!
//! Source: k8s.io/apiserver pkg/authentication/authenticatorfactory/delegating.go.

mod certificate;
mod token;

use std::collections::HashMap;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, header};
use kaudit_event::{Text, UserInfo};
use kaudit_tower::{Anonymous, AuditContext, Authentication, Authenticator, BoxFuture, ClientCertificates};

pub(crate) use certificate::Authority;
pub use certificate::AuthorityError;
pub(crate) use token::{Account, Signer};

use crate::object::text;
use crate::state::State;
use crate::store::Key;

const AUTHENTICATED: &str = "system:authenticated";

/// What credentials a server knows.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    /// Static tokens by their hash, so that looking one up takes the same time for every wrong one.
    tokens: HashMap<[u8; 32], Arc<UserInfo>>,
    pub(crate) clients: Option<Authority>,
    pub(crate) front_proxy: Option<FrontProxy>,
}

/// The proxy that may say who asks.
#[derive(Debug)]
pub(crate) struct FrontProxy {
    pub(crate) authority: Authority,
    /// Common names of its certificate; empty means any.
    pub(crate) names: Vec<String>,
}

fn hash(token: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token);
    for (to, from) in hash.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    hash
}

impl Credentials {
    pub(crate) fn add_token(&mut self, token: &str, user: UserInfo) {
        self.tokens
            .insert(hash(token.as_bytes()), Arc::new(authenticated(user)));
    }
}

/// Adds the group of everybody who is known.
fn authenticated(mut user: UserInfo) -> UserInfo {
    let groups = user.groups.get_or_insert_default();
    if !groups.iter().any(|group| *group == AUTHENTICATED) {
        groups.push(Text::from_static(AUTHENTICATED));
    }
    user
}

/// The server's authenticator.
#[derive(Debug)]
pub(crate) struct StateAuthenticator(pub(crate) Arc<State>);

impl Authenticator for StateAuthenticator {
    fn authenticate<'a>(&'a self, parts: &'a Parts, _: &'a AuditContext) -> BoxFuture<'a, Authentication> {
        Box::pin(std::future::ready(self.0.authenticate(parts)))
    }
}

impl State {
    fn authenticate(&self, parts: &Parts) -> Authentication {
        let none = ClientCertificates::default();
        let certificates = parts.extensions.get::<ClientCertificates>().unwrap_or(&none);
        if let Some(proxy) = &self.credentials.front_proxy
            && let Some(user) = proxy.user(&parts.headers, certificates)
        {
            return Authentication::User(Arc::new(authenticated(user)));
        }
        if let Some(clients) = &self.credentials.clients
            && let Some(user) = clients.user(certificates)
        {
            return Authentication::User(Arc::new(authenticated(user)));
        }
        match bearer(&parts.headers) {
            Some(token) => self
                .user_of_token(&token)
                .map_or(Authentication::Failed, Authentication::User),
            None => Authentication::User(Arc::new(Anonymous::user())),
        }
    }

    /// The user that a token stands for.
    pub(crate) fn user_of_token(&self, token: &[u8]) -> Option<Arc<UserInfo>> {
        if let Some(user) = self.credentials.tokens.get(&hash(token)) {
            return Some(Arc::clone(user));
        }
        let account = self.signer.verify(token, self.now())?;
        let key = Key::new(&self.service_accounts, &account.namespace, &account.name);
        let current = self.store.read(&key)?;
        (text(&current, "/metadata/uid") == account.uid).then(|| Arc::new(authenticated(account.user())))
    }
}

/// The token of a request: in its header, or in a WebSocket's subprotocols.
fn bearer(headers: &HeaderMap) -> Option<Vec<u8>> {
    use base64::Engine as _;
    const SUBPROTOCOL: &[u8] = b"base64url.bearer.authorization.k8s.io.";
    let in_header = headers.get(header::AUTHORIZATION).and_then(|value| {
        let value = value.as_bytes().trim_ascii();
        let (scheme, token) = value.split_at_checked(7)?;
        let token = token.trim_ascii();
        (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then(|| token.to_vec())
    });
    in_header.or_else(|| {
        headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .find_map(|protocol| protocol.trim_ascii().strip_prefix(SUBPROTOCOL))
            .and_then(|token| {
                base64::engine::general_purpose::URL_SAFE_NO_PAD
                    .decode(token)
                    .ok()
            })
    })
}

impl FrontProxy {
    /// The user that the proxy names, if it is the proxy.
    ///
    /// Source: k8s.io/apiserver pkg/authentication/request/headerrequest/requestheader.go.
    fn user(&self, headers: &HeaderMap, certificates: &ClientCertificates) -> Option<UserInfo> {
        let name = self.authority.common_name(certificates)?;
        if !self.names.is_empty() && !self.names.contains(&name) {
            return None;
        }
        let texts = |name: &str| -> Vec<Text> {
            headers
                .get_all(name)
                .iter()
                .map(|value| Text::copy_from_slice(value.as_bytes()))
                .collect()
        };
        let username = texts("x-remote-user").into_iter().find(|name| !name.is_empty())?;
        let mut extra: Vec<(Text, Option<Vec<Text>>)> = headers
            .keys()
            .filter_map(|name| Some((name, name.as_str().strip_prefix("x-remote-extra-")?)))
            .map(|(name, key)| (Text::copy_from_slice(key.as_bytes()), Some(texts(name.as_str()))))
            .collect();
        extra.sort_by(|a, b| a.0.cmp(&b.0));
        Some(UserInfo {
            username,
            uid: texts("x-remote-uid").into_iter().next().unwrap_or_default(),
            groups: Some(texts("x-remote-group")),
            extra,
        })
    }
}
