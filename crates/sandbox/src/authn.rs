//! Who asks: a front proxy's word, a client certificate, a bearer token, or nobody in particular.
//!
//! Source: kubernetes pkg/kubeapiserver/authenticator/config.go, Config.New.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;
use kaudit_event::{Extra, Text, UserInfo};
use kaudit_tower::{Anonymous, AuditContext, Authentication, Authenticator, BoxFuture, ClientCertificates};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::credentials::certificate_id;
use crate::state::State;

const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
/// A subject's part that is the user's uid.
///
/// Source: k8s.io/apiserver pkg/authentication/request/x509/x509.go, CommonNameUserConversion.
const UID: &str = "1.3.6.1.4.1.57683.2";

/// Certificate authorities that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The text is not PEM.
    #[error("the certificate authorities are not PEM text")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// A certificate is none that can sign.
    #[error("a certificate authority cannot be used")]
    Certificate(#[source] rustls::Error),
    /// There is no certificate, or none to verify with.
    #[error("the certificate authorities make no verifier")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// Authorities whose client certificates are believed.
#[derive(Clone)]
pub(crate) struct Authority(Arc<dyn ClientCertVerifier>);

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// # Errors
    ///
    /// [`AuthorityError`] for a text without usable certificates.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, AuthorityError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots
                .add(certificate.map_err(AuthorityError::Pem)?)
                .map_err(AuthorityError::Certificate)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(AuthorityError::Verifier)?;
        Ok(Self(verifier))
    }

    /// Whether a chain, leaf first, is of this authority at `now`.
    fn signed(&self, chain: &[Bytes], now: UnixTime) -> bool {
        let chain: Vec<CertificateDer<'_>> = chain
            .iter()
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        chain
            .split_first()
            .is_some_and(|(leaf, rest)| self.0.verify_client_cert(leaf, rest, now).is_ok())
    }
}

/// A proxy that tells in headers who asks.
#[derive(Clone, Debug)]
pub(crate) struct FrontProxy {
    pub(crate) authority: Authority,
    /// Common names of its certificates; empty allows any.
    pub(crate) names: Vec<String>,
}

/// The server's own authenticator.
#[derive(Debug)]
pub(crate) struct Identities {
    pub(crate) state: Arc<State>,
    pub(crate) client_authority: Option<Authority>,
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
            Found::User(user) => Authentication::User(Arc::new(with_group(user))),
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

    fn now(&self) -> UnixTime {
        let seconds = u64::try_from(self.state.now().as_second()).unwrap_or(0);
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    /// Source: k8s.io/apiserver pkg/authentication/request/headerrequest/requestheader.go.
    fn front_proxy(&self, headers: &HeaderMap, chain: &[Bytes]) -> Found {
        let Some(proxy) = &self.front_proxy else {
            return Found::Nothing;
        };
        let Some(leaf) = chain.first() else {
            return Found::Nothing;
        };
        if !proxy.authority.signed(chain, self.now()) {
            return Found::Bad;
        }
        let name = subject(leaf).map(|subject| subject.username);
        let allowed = |name: &Text| {
            proxy
                .names
                .iter()
                .any(|allowed| allowed.as_bytes() == name.as_bytes())
        };
        if !proxy.names.is_empty() && !name.as_ref().is_some_and(allowed) {
            return Found::Bad;
        }
        from_headers(headers).map_or(Found::Nothing, Found::User)
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
        subject(leaf).map_or(Found::Nothing, Found::User)
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

/// The user that a certificate's subject names; nobody without a common name.
fn subject(der: &[u8]) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    // Of several common names Go keeps the last.
    let name = subject.iter_common_name().last()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let groups = subject
        .iter_organization()
        .filter_map(|organization| organization.as_str().ok())
        .map(owned)
        .collect();
    let uid = subject
        .iter_attributes()
        .filter(|attribute| attribute.attr_type().to_id_string() == UID)
        .find_map(|attribute| attribute.as_str().ok())
        .map(owned)
        .unwrap_or_default();
    Some(UserInfo {
        username: owned(name),
        uid,
        groups: Some(groups),
        extra: vec![certificate_id(der)],
    })
}

fn owned(text: &str) -> Text {
    Text::copy_from_slice(text.as_bytes())
}

const EXTRA_PREFIX: &str = "x-remote-extra-";

/// The user that a front proxy's headers name.
fn from_headers(headers: &HeaderMap) -> Option<UserInfo> {
    let first = |name: &str| {
        let value = headers.get(name)?.as_bytes().trim_ascii();
        (!value.is_empty()).then(|| Text::copy_from_slice(value))
    };
    let username = first("x-remote-user")?;
    let groups = headers
        .get_all("x-remote-group")
        .iter()
        .map(|value| Text::copy_from_slice(value.as_bytes()))
        .collect();
    let mut extra: Extra = headers
        .keys()
        .filter_map(|name| {
            let key = name.as_str().strip_prefix(EXTRA_PREFIX)?;
            let values = headers.get_all(name).iter();
            let values = values
                .map(|value| Text::copy_from_slice(value.as_bytes()))
                .collect();
            Some((Text::from(unescape(key)), Some(values)))
        })
        .collect();
    extra.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    Some(UserInfo {
        username,
        uid: first("x-remote-uid").unwrap_or_default(),
        groups: Some(groups),
        extra,
    })
}

/// `%2f` as `/`; a key with a broken escape is left as it is.
fn unescape(key: &str) -> Vec<u8> {
    fn decode(key: &str) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(key.len());
        let mut bytes = key.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'%' {
                out.push(byte);
                continue;
            }
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        }
        Some(out)
    }
    decode(key).unwrap_or_else(|| key.as_bytes().to_vec())
}

/// Adds the group of everybody who is known.
///
/// Source: k8s.io/apiserver pkg/authentication/group/authenticated_group_adder.go.
pub(crate) fn with_group(mut user: UserInfo) -> UserInfo {
    let groups = user.groups.get_or_insert_default();
    let is_known = groups
        .iter()
        .any(|group| *group == AUTHENTICATED || *group == UNAUTHENTICATED);
    if user.username != "system:anonymous" && !is_known {
        groups.push(Text::from_static(AUTHENTICATED));
    }
    user
}

#[cfg(test)]
mod tests;
