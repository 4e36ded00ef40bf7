//! Certificates for the names that clients ask for.
//!
//! Source: k8s.io/apiserver pkg/server/options/serving.go (`--tls-sni-cert-key`) and
//! pkg/server/dynamiccertificates/named_certificates.go.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// A certificate for clients that ask for certain names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SniCertificate {
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// Domain names, whose first label may be `*`; without any, those in the certificate.
    pub names: Vec<String>,
}

impl SniCertificate {
    /// The certificate in these files for `names`, or for those in it if there are none.
    #[must_use]
    pub const fn new(certificate: PathBuf, key: PathBuf, names: Vec<String>) -> Self {
        Self {
            certificate,
            key,
            names,
        }
    }
}

/// Chooses by name: the whole name before one with `*`, names that were given before those that certificates
/// have, certificates that were named first before others, and the default for whatever is left.
#[derive(Debug)]
pub(super) struct ByName {
    names: HashMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

impl ByName {
    pub(super) fn new(default: CertifiedKey) -> Self {
        Self {
            names: HashMap::new(),
            default: Arc::new(default),
        }
    }

    /// Adds a certificate for names that nobody has yet.
    pub(super) fn add<'a>(&mut self, names: impl IntoIterator<Item = &'a str>, key: &Arc<CertifiedKey>) {
        for name in names {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            self.names.entry(name).or_insert_with(|| Arc::clone(key));
        }
    }

    fn choose(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let named = || {
            let name = name?.trim_end_matches('.').to_ascii_lowercase();
            let of_wildcard = || self.names.get(&format!("*.{}", name.split_once('.')?.1));
            self.names.get(&name).or_else(of_wildcard)
        };
        if self.names.is_empty() {
            return &self.default;
        }
        named().unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.choose(hello.server_name())))
    }
}

/// The domain names that a certificate is for: its common name, if it can be one, and its alternative names.
pub(super) fn names_of(key: &CertifiedKey) -> Vec<String> {
    let Some(Ok((_, leaf))) = key.cert.first().map(|der| X509Certificate::from_der(der)) else {
        return Vec::new();
    };
    let common = leaf.subject().iter_common_name().last();
    let common = common.and_then(|name| name.as_str().ok());
    let mut names: Vec<String> = common
        .filter(|name| is_domain(name))
        .map(str::to_owned)
        .into_iter()
        .collect();
    if let Ok(Some(alternatives)) = leaf.subject_alternative_name() {
        names.extend(
            alternatives
                .value
                .general_names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some((*name).to_owned()),
                    _ => None,
                }),
        );
    }
    names
}

/// Whether clients can ask for this: for an address they name nothing.
pub(super) fn is_domain(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(is_good)
    };
    name.len() <= 253 && name.parse::<IpAddr>().is_err() && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_told_from_what_nobody_can_ask_for() {
        for name in ["a", "a.example", "*.example.com", "A-b.example", "xn--a.example"] {
            assert!(is_domain(name), "{name}");
        }
        for name in [
            "",
            "*",
            "*.",
            "a..b",
            "192.0.2.1",
            "::1",
            "a b",
            "a.*.b",
            "-a",
            "kube apiserver",
            "a_b",
        ] {
            assert!(!is_domain(name), "{name}");
        }
    }
}
