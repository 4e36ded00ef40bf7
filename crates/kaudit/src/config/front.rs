//! What the gateway's listener takes from the network.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::go;

/// A certificate for clients that ask for certain names; both files are watched and reloaded.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SniCertificate {
    /// PEM, leaf first.
    pub(crate) cert_file: PathBuf,
    /// PEM.
    pub(crate) key_file: PathBuf,
    /// Domain names, whose first label may be `*`; without any, those in the certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) names: Vec<String>,
}

impl FromStr for SniCertificate {
    type Err = String;

    /// As kube-apiserver's `--tls-sni-cert-key`: `cert,key` or `cert,key:name,...`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (files, names) = text.split_once(':').unwrap_or((text, ""));
        let (cert_file, key_file) = files
            .split_once(',')
            .filter(|(certificate, key)| !certificate.is_empty() && !key.is_empty() && !key.contains(','))
            .ok_or("write `tls.crt,tls.key` or `tls.crt,tls.key:audit.example.com,*.example.com`")?;
        let names = names.split(',').filter(|name| !name.is_empty());
        Ok(Self {
            cert_file: cert_file.into(),
            key_file: key_file.into(),
            names: names.map(str::to_owned).collect(),
        })
    }
}

/// The oldest TLS that is spoken, in kube-apiserver's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
pub(crate) enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "VersionTLS12")]
    #[value(name = "VersionTLS12")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "VersionTLS13")]
    #[value(name = "VersionTLS13")]
    Tls13,
}

impl From<TlsVersion> for kaudit_listen::TlsVersion {
    fn from(version: TlsVersion) -> Self {
        match version {
            TlsVersion::Tls12 => Self::Tls12,
            TlsVersion::Tls13 => Self::Tls13,
        }
    }
}

/// What the gateway takes before it refuses.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Limits {
    /// Connections at once; further ones wait in the kernel's queue. 10000 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<NonZeroU32>,
    /// Connections at once of one client, an address of IPv4 or a /64 of IPv6; further ones are closed. 1000 unless
    /// given. There is no bound for the networks of `trustedProxies`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connections_per_address: Option<NonZeroU32>,
    /// Requests answered at once, without watches, sessions and logs; further ones are answered 429. Without a number
    /// the cluster's own bounds are all there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) requests_in_flight: Option<NonZeroU32>,
    /// How long nothing may come of a request's body while the cluster would take it, as a Go duration such as `30s`,
    /// which is also the default; then the request ends, with 408 if it has no answer yet. Watches and sessions have no
    /// such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body_idle_timeout: Option<go::Duration>,
}

/// Proxies that pass bytes on and say first whose they are.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ProxyProtocol {
    /// Networks of proxies whose connections begin with a header of the PROXY protocol, version 1 or 2, for example
    /// `10.0.0.0/24`. The address in it is the client's. A connection from there without one is closed, and one from
    /// elsewhere has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_for_names_is_written_as_for_kube_apiserver() {
        for (text, names) in [
            ("a.crt,a.key", &[][..]),
            ("a.crt,a.key:", &[]),
            ("a.crt,a.key:a.example", &["a.example"]),
            ("a.crt,a.key:a.example,*.example", &["a.example", "*.example"]),
        ] {
            let parsed: SniCertificate = text.parse().unwrap();
            assert_eq!(parsed.cert_file, PathBuf::from("a.crt"), "{text}");
            assert_eq!(parsed.key_file, PathBuf::from("a.key"), "{text}");
            assert_eq!(parsed.names, names, "{text}");
        }
        for text in ["", "a.crt", "a.crt,", ",a.key", "a,b,c", ":a.example"] {
            assert!(text.parse::<SniCertificate>().is_err(), "{text}");
        }
    }
}
