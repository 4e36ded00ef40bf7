//! Certificates and keys that stand in a kubeconfig.

use std::net::IpAddr;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Code, Position, Report};

/// Days before its end from which on a certificate is told about.
const EXPIRES_SOON_DAYS: i64 = 30;
const DAY: i64 = 86_400;

/// What a certificate is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Usage<'a> {
    /// To trust the server at `host` by.
    Authority { host: Option<&'a str> },
    /// To show to the server.
    Client,
}

pub(super) fn check(pem: &[u8], usage: Usage<'_>, now: i64, at: Position, report: &mut Report) {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = match chain {
        Ok(chain) if !chain.is_empty() => chain,
        _ => {
            not_pem(at, "certificate", report);
            return;
        }
    };
    // Of a client's chain the leaf is looked at, of authorities every one is: any of them may be the one.
    let looked_at = match usage {
        Usage::Authority { .. } => chain.len(),
        Usage::Client => 1,
    };
    let mut parsed = Vec::new();
    for der in chain.iter().take(looked_at) {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            not_pem(at, "certificate", report);
            return;
        };
        parsed.push(certificate);
    }
    let is_valid = |certificate: &&X509Certificate<'_>| {
        let validity = certificate.validity();
        validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp()
    };
    // One authority that is valid is enough; the others may be left from a rotation.
    let told = parsed.iter().find(is_valid).or(parsed.first());
    let Some(certificate) = told else { return };
    validity(certificate, now, at, report);
    match usage {
        Usage::Authority { host: Some(host) } => pinned(&parsed, host, at, report),
        Usage::Authority { host: None } => {}
        Usage::Client => client_usage(certificate, at, report),
    }
}

/// A key, and whether it is the certificate's.
pub(super) fn check_key(pem: &[u8], certificate: Option<&[u8]>, at: Position, report: &mut Report) {
    let Ok(key) = PrivateKeyDer::from_pem_slice(pem) else {
        not_pem(at, "private key", report);
        return;
    };
    let chain: Vec<CertificateDer<'static>> = certificate
        .map(|pem| {
            CertificateDer::pem_slice_iter(pem)
                .filter_map(Result::ok)
                .collect()
        })
        .unwrap_or_default();
    if chain.is_empty() {
        return;
    }
    let outcome = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
    if matches!(outcome, Err(rustls::Error::InconsistentKeys(_))) {
        report.add(
            Code::HalfCertificate,
            at,
            "the client key is not that of the client certificate".to_owned(),
            "take both from the same place",
        );
    }
}

fn not_pem(at: Position, what: &str, report: &mut Report) {
    report.add(
        Code::BadPem,
        at,
        format!("the value is no {what} in PEM form"),
        format!(
            "encode the file that begins with `-----BEGIN`: `base64 -w0 < {}`",
            what.replace(' ', "-")
        ),
    );
}

fn subject(certificate: &X509Certificate<'_>) -> String {
    certificate.subject().to_string()
}

fn validity(certificate: &X509Certificate<'_>, now: i64, at: Position, report: &mut Report) {
    let date = |seconds: i64| {
        jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
    };
    let (start, end) = (
        certificate.validity().not_before.timestamp(),
        certificate.validity().not_after.timestamp(),
    );
    let subject = subject(certificate);
    if now > end {
        report.add(
            Code::CertificateTime,
            at,
            format!("the certificate of `{subject}` expired at {}", date(end)),
            "issue a new one",
        );
    } else if now < start {
        report.add(
            Code::CertificateTime,
            at,
            format!("the certificate of `{subject}` is valid from {} on", date(start)),
            "wait, or look at the clock of the machine that issued it",
        );
    } else if end - now < EXPIRES_SOON_DAYS * DAY {
        report.add(
            Code::ExpiresSoon,
            at,
            format!("the certificate of `{subject}` expires at {}", date(end)),
            "issue a new one, and restart the API server with it",
        );
    }
}

/// Where no authority is among them, the certificates are those of servers: one has to be the host's.
fn pinned(certificates: &[X509Certificate<'_>], host: &str, at: Position, report: &mut Report) {
    if certificates.iter().any(|one| one.is_ca()) || certificates.iter().any(|one| is_for(one, host)) {
        return;
    }
    let subject = certificates.first().map(subject).unwrap_or_default();
    report.add(
        Code::OtherHost,
        at,
        format!(
            "`{subject}` is no certificate authority, and as a server's certificate it is not for `{host}`"
        ),
        "give the authority that issued the collector's certificate",
    );
}

fn is_for(certificate: &X509Certificate<'_>, host: &str) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    let ip: Option<IpAddr> = host.parse().ok();
    names.value.general_names.iter().any(|name| match name {
        GeneralName::DNSName(pattern) => ip.is_none() && matches_host(pattern, host),
        GeneralName::IPAddress(bytes) => match ip {
            Some(IpAddr::V4(ip)) => ip.octets() == *bytes,
            Some(IpAddr::V6(ip)) => ip.octets() == *bytes,
            None => false,
        },
        _ => false,
    })
}

fn matches_host(pattern: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.');
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    match (pattern.strip_prefix("*."), host.split_once('.')) {
        (Some(rest), Some((_, parent))) => rest.eq_ignore_ascii_case(parent),
        _ => false,
    }
}

fn client_usage(certificate: &X509Certificate<'_>, at: Position, report: &mut Report) {
    let is_client = match certificate.extended_key_usage() {
        Ok(Some(usage)) => usage.value.any || usage.value.client_auth,
        _ => true,
    };
    if !is_client {
        report.add(
            Code::WrongUsage,
            at,
            format!(
                "the certificate of `{}` has no client authentication among its usages",
                subject(certificate)
            ),
            "issue one with the extended key usage clientAuth",
        );
    }
}
