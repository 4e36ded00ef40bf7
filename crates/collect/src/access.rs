//! Who may bring events of which source.

use std::fmt;

use kaudit_listen::ConnectionInfo;
use subtle::{Choice, ConstantTimeEq as _};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::source::Name;

/// A longer token is none.
const MAX_TOKEN_BYTES: usize = 4096;

/// The shortest token that cannot be guessed.
const MIN_TOKEN_BYTES: usize = 16;

/// Clusters or instances: a name, or a name's beginning and `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    beginning: String,
    is_open: bool,
}

/// Why a text is no [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a name nor the beginning of names with a `*` behind it")]
pub struct InvalidPattern(String);

impl std::str::FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let (beginning, is_open) = text
            .strip_suffix('*')
            .map_or((text, false), |start| (start, true));
        let is_valid = (is_open && beginning.is_empty()) || beginning.parse::<Name>().is_ok();
        if !is_valid {
            return Err(InvalidPattern(text.chars().take(300).collect()));
        }
        Ok(Self {
            beginning: beginning.to_owned(),
            is_open,
        })
    }
}

impl Pattern {
    fn matches(&self, name: &Name) -> bool {
        if self.is_open {
            name.as_str().starts_with(&self.beginning)
        } else {
            name.as_str() == self.beginning
        }
    }
}

/// What a sender shows to prove who it is.
#[derive(Clone)]
#[expect(clippy::exhaustive_enums, reason = "a certificate or a token")]
pub enum Credential {
    /// A client certificate that the listener verified, with this as its common name or as one of its DNS or
    /// URI names.
    CertificateName(String),
    /// A bearer token; only its hash is kept.
    Token(TokenHash),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CertificateName(name) => f.debug_tuple("CertificateName").field(name).finish(),
            Self::Token(_) => f.write_str("Token"),
        }
    }
}

/// A bearer token's hash, which is compared in constant time.
#[derive(Clone)]
pub struct TokenHash([u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

/// Why bytes are no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has {MIN_TOKEN_BYTES} to {MAX_TOKEN_BYTES} bytes without blanks, not {0}")]
pub struct InvalidToken(usize);

impl TokenHash {
    /// Of a token file's content; blanks around the token are left out.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`] when it is too short, too long or has blanks in it.
    pub fn of(token: &[u8]) -> Result<Self, InvalidToken> {
        let token = token.trim_ascii();
        let is_valid = (MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&token.len())
            && token.iter().all(u8::is_ascii_graphic);
        if is_valid {
            Ok(Self(*blake3::hash(token).as_bytes()))
        } else {
            Err(InvalidToken(token.len()))
        }
    }
}

/// One right: who may bring events of which clusters and instances.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "who and what")]
pub struct Grant {
    /// Which clusters.
    pub cluster: Pattern,
    /// Which instances of them.
    pub instance: Pattern,
    /// Who.
    pub credential: Credential,
}

/// All rights.
#[derive(Clone, Debug, Default)]
pub struct Access {
    grants: Vec<Grant>,
}

/// Who a request comes from, as far as the rights know.
#[derive(Clone, Debug)]
pub(crate) struct Sender<'a> {
    grants: Vec<&'a Grant>,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It shows nothing that is known.
    Unknown,
    /// It shows something that is known and has no right to this source.
    OtherSource,
}

impl Access {
    /// These rights and no others.
    #[must_use]
    pub const fn new(grants: Vec<Grant>) -> Self {
        Self { grants }
    }

    /// Who comes with this connection and this `Authorization` header.
    pub(crate) fn sender(
        &self,
        names: &[String],
        authorization: Option<&[u8]>,
    ) -> Result<Sender<'_>, Denied> {
        let token = authorization.and_then(bearer).map(blake3::hash);
        // Every token is compared, so that time does not tell which one was nearly right.
        let grants: Vec<&Grant> = self
            .grants
            .iter()
            .filter(|grant| match &grant.credential {
                Credential::CertificateName(name) => names.contains(name),
                Credential::Token(hash) => {
                    let equal = token
                        .as_ref()
                        .map_or(Choice::from(0), |token| token.as_bytes().ct_eq(&hash.0));
                    bool::from(equal)
                }
            })
            .collect();
        if grants.is_empty() {
            Err(Denied::Unknown)
        } else {
            Ok(Sender { grants })
        }
    }
}

impl Sender<'_> {
    pub(crate) fn may_bring(&self, cluster: &Name, instance: &Name) -> Result<(), Denied> {
        let may = self
            .grants
            .iter()
            .any(|grant| grant.cluster.matches(cluster) && grant.instance.matches(instance));
        if may { Ok(()) } else { Err(Denied::OtherSource) }
    }
}

fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case(b"Bearer ") && token.len() <= MAX_TOKEN_BYTES).then(|| token.trim_ascii())
}

/// A client certificate, as far as senders and reports need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerCertificate {
    /// Its common name and its DNS and URI names.
    pub(crate) names: Vec<String>,
    /// When it ends, seconds since 1970.
    pub(crate) not_after: Option<i64>,
}

impl PeerCertificate {
    /// Of a connection whose handshake verified it; nothing if none was shown.
    pub(crate) fn of(connection: &ConnectionInfo) -> Self {
        connection
            .peer_certificates
            .first()
            .and_then(|leaf| Self::parse(leaf))
            .unwrap_or_default()
    }

    fn parse(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let common = certificate
            .subject()
            .iter_common_name()
            .filter_map(|name| name.as_str().ok());
        let mut names: Vec<String> = common.map(str::to_owned).collect();
        if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
            names.extend(
                alternatives
                    .value
                    .general_names
                    .iter()
                    .filter_map(|name| match name {
                        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
                        _ => None,
                    }),
            );
        }
        Some(Self {
            names,
            not_after: Some(certificate.validity().not_after.timestamp()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn grant(cluster: &str, instance: &str, credential: Credential) -> Grant {
        Grant {
            cluster: cluster.parse().unwrap(),
            instance: instance.parse().unwrap(),
            credential,
        }
    }

    #[test]
    fn a_sender_may_bring_what_its_credential_was_granted() {
        let access = Access::new(vec![
            grant("prod-*", "cp-1", Credential::CertificateName("audit".to_owned())),
            grant(
                "dev",
                "*",
                Credential::Token(TokenHash::of(b" 0123456789abcdef\n").unwrap()),
            ),
        ]);
        let certificate = ["audit".to_owned()];
        let token = &b"bearer 0123456789abcdef"[..];
        let may = |names: &[String], header: Option<&[u8]>, cluster: &str, instance: &str| {
            access
                .sender(names, header)?
                .may_bring(&name(cluster), &name(instance))
        };
        assert_eq!(may(&certificate, None, "prod-1", "cp-1"), Ok(()));
        assert_eq!(
            may(&certificate, None, "prod-1", "cp-2"),
            Err(Denied::OtherSource)
        );
        assert_eq!(may(&certificate, None, "dev", "cp-1"), Err(Denied::OtherSource));
        assert_eq!(may(&certificate, Some(token), "dev", "x"), Ok(()));
        assert_eq!(may(&[], Some(token), "dev", "x"), Ok(()));
        for header in [
            None,
            Some(&b"Bearer 0123456789abcdeF"[..]),
            Some(b"Basic x"),
            Some(b"Bearer"),
            Some(b""),
        ] {
            assert_eq!(may(&[], header, "dev", "x"), Err(Denied::Unknown), "{header:?}");
        }
        assert_eq!(
            may(&["other".to_owned()], None, "prod-1", "cp-1"),
            Err(Denied::Unknown)
        );
    }

    #[test]
    fn patterns_and_tokens_are_checked() {
        for bad in ["", "**", "a*b", "/", "-*"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
        assert!("*".parse::<Pattern>().unwrap().matches(&name("a")));
        assert!(TokenHash::of(b"short").is_err());
        assert!(TokenHash::of(b"0123456789 abcdef").is_err());
    }
}
