//! Certificates of known and of other authorities, revoked ones, and what subjects say.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, DnValue,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::*;

struct Signer {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Signer {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn sign(&self, serial: u64, subject: &[(DnType, &str)]) -> Bytes {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from(serial));
        for (kind, value) in subject {
            params
                .distinguished_name
                .push(kind.clone(), DnValue::Utf8String((*value).to_owned()));
        }
        let certificate = params
            .signed_by(&KeyPair::generate().unwrap(), &self.issuer)
            .unwrap();
        Bytes::copy_from_slice(certificate.der())
    }

    fn revoke(&self, serial: u64) -> String {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2026, 1, 2),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

#[test]
fn a_chain_counts_only_with_its_own_authority() {
    let (ours, theirs) = (Signer::new("ours"), Signer::new("theirs"));
    let authority = ClientAuthority::from_pem(ours.pem.as_bytes()).unwrap();
    let subject = [(DnType::CommonName, "bob")];
    assert!(authority.signed(&[ours.sign(1, &subject)], now()));
    assert!(!authority.signed(&[theirs.sign(1, &subject)], now()));
    assert!(!authority.signed(&[Bytes::from_static(b"no certificate")], now()));
    assert!(!authority.signed(&[], now()));
}

#[test]
fn a_revoked_certificate_does_not_count() {
    let signer = Signer::new("ours");
    let authority =
        ClientAuthority::with_revocation(signer.pem.as_bytes(), signer.revoke(7).as_bytes()).unwrap();
    let subject = [(DnType::CommonName, "bob")];
    assert!(!authority.signed(&[signer.sign(7, &subject)], now()));
    assert!(authority.signed(&[signer.sign(8, &subject)], now()));
}

#[test]
fn certificates_of_an_authority_without_a_list_are_not_revoked() {
    let (with, without) = (Signer::new("ours"), Signer::new("theirs"));
    let pem = format!("{}{}", with.pem, without.pem);
    let authority = ClientAuthority::with_revocation(pem.as_bytes(), with.revoke(7).as_bytes()).unwrap();
    assert!(authority.signed(&[without.sign(7, &[(DnType::CommonName, "bob")])], now()));
}

#[test]
fn a_subject_names_user_groups_and_uid() {
    let signer = Signer::new("ours");
    let uid = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]);
    let der = signer.sign(
        1,
        &[
            (DnType::CommonName, "bob"),
            (DnType::OrganizationName, "team"),
            (uid, "u-1"),
        ],
    );
    let user = certificate_user(&der).unwrap();
    assert_eq!((&user.username, &user.uid), (&"bob".into(), &"u-1".into()));
    assert_eq!(user.groups, Some(vec![Text::from_static("team")]));
    let (key, values) = &user.extra[0];
    assert_eq!(*key, CREDENTIAL_ID);
    let value = values.as_ref().unwrap()[0].to_string();
    assert!(value.starts_with("X509SHA256=") && value.len() == 75, "{value}");
    assert_eq!(
        certificate_user(&signer.sign(1, &[(DnType::OrganizationName, "team")])),
        None
    );
}

#[test]
fn texts_without_certificates_or_lists_are_told_apart() {
    let signer = Signer::new("ours");
    let none = ClientAuthority::from_pem(b"");
    assert!(matches!(none, Err(AuthorityError::Verifier(_))));
    let none = ClientAuthority::with_revocation(signer.pem.as_bytes(), b"");
    assert!(matches!(none, Err(AuthorityError::NoRevocationList)));
}
