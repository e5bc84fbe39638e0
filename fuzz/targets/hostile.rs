//! A CA that signs whatever the fuzzer wants: a signature keeps no one from hostile contents.

#![allow(dead_code, reason = "each target uses a part")]

use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use data_encoding::BASE64;
use neverlapse::chain::roots::Roots;
use neverlapse::timestamp;
use neverlapse::timestamp::Timestamp;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, CrlDistributionPoint, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
    SerialNumber,
};
use tokio_rustls::rustls::pki_types::CertificateDer;

pub const NOW: Timestamp = timestamp!(2026-11-24 06:00 UTC);

/// The root that the chains lead to, with its key.
pub fn root() -> &'static CertifiedIssuer<'static, KeyPair> {
    static ROOT: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();
    ROOT.get_or_init(|| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a root")
    })
}

/// The roots that are trusted: that one.
pub fn roots() -> &'static Roots {
    static ROOTS: OnceLock<Roots> = OnceLock::new();
    ROOTS.get_or_init(|| {
        Roots::public()
            .with_pem(root().pem().as_bytes())
            .expect("a root in PEM")
    })
}

/// Keys, made once: a signature costs enough.
pub fn keys() -> &'static [KeyPair; 4] {
    static KEYS: OnceLock<[KeyPair; 4]> = OnceLock::new();
    KEYS.get_or_init(|| std::array::from_fn(|_| KeyPair::generate().expect("a key")))
}

/// One block of PEM.
pub fn pem(label: &str, der: &[u8]) -> String {
    let body = BASE64.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// A leaf and up to eight issuers, in an order that may be wrong, each validly signed by the next.
pub fn chain(wish: &mut Unstructured<'_>) -> Result<Vec<CertificateDer<'static>>> {
    let mut chain = Vec::new();
    let mut issuer: Option<(CertificateParams, &KeyPair)> = None;
    for level in (0..=wish.int_in_range(0..=8u8)?).rev() {
        let key = wish.choose(keys())?;
        let params = params(wish, level > 0)?;
        let signed = match &issuer {
            None => params.clone().signed_by(key, root()),
            Some((issuer, issuer_key)) => {
                let issuer = Issuer::from_params(issuer, *issuer_key);
                params.clone().signed_by(key, &issuer)
            }
        };
        // Some wishes cannot be encoded.
        let Ok(signed) = signed else { continue };
        chain.push(signed.der().clone());
        issuer = Some((params, key));
    }
    chain.reverse();
    if wish.ratio(1, 4)? && chain.len() > 1 {
        let (one, other) = (wish.choose_index(chain.len())?, wish.choose_index(chain.len())?);
        chain.swap(one, other);
    }
    Ok(chain)
}

/// What a certificate says.
pub fn params(wish: &mut Unstructured<'_>, is_ca: bool) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    for _ in 0..wish.int_in_range(0..=3)? {
        let kinds = [DnType::CommonName, DnType::OrganizationName, DnType::CountryName];
        let kind = wish.choose(&kinds)?.clone();
        params.distinguished_name.push(kind, text(wish)?);
    }
    params.serial_number = Some(SerialNumber::from_slice(bytes(wish, 24)?));
    let day =
        |wish: &mut Unstructured<'_>| Ok(i64::from(wish.arbitrary::<i16>()?) * i64::from(wish.int_in_range(1..=60u8)?));
    params.not_before = (NOW - time::Duration::days(day(wish)?)).into();
    params.not_after = (NOW + time::Duration::days(day(wish)?)).into();

    params
        .subject_alt_names
        .push(SanType::DnsName(Ia5String::try_from("a.test").expect("a name")));
    for _ in 0..wish.int_in_range(0..=4)? {
        let name = match wish.int_in_range(0..=4)? {
            0 => SanType::IpAddress(wish.arbitrary::<[u8; 16]>()?.into()),
            1 => match Ia5String::try_from(text(wish)?) {
                Ok(name) => SanType::DnsName(name),
                Err(_) => continue,
            },
            2 => match Ia5String::try_from(ascii(wish)?) {
                Ok(name) => SanType::Rfc822Name(name),
                Err(_) => continue,
            },
            3 => match Ia5String::try_from(ascii(wish)?) {
                Ok(name) => SanType::URI(name),
                Err(_) => continue,
            },
            _ => SanType::OtherName((oid(wish)?, text(wish)?.into())),
        };
        let times = often(wish)?;
        params.subject_alt_names.extend(std::iter::repeat_n(name, times));
    }

    params.is_ca = match wish.int_in_range(0..=9)? {
        0 => IsCa::NoCa,
        1 => IsCa::Ca(BasicConstraints::Constrained(wish.arbitrary()?)),
        2 => IsCa::ExplicitNoCa,
        _ if is_ca => IsCa::Ca(BasicConstraints::Unconstrained),
        _ => IsCa::NoCa,
    };
    if wish.ratio(1, 3)? {
        let usages = [
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::CrlSign,
        ];
        params.key_usages.push(*wish.choose(&usages)?);
        let purposes = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::EmailProtection,
        ];
        params.extended_key_usages.push(wish.choose(&purposes)?.clone());
    }
    if wish.ratio(1, 3)? {
        let subtree = |wish: &mut Unstructured<'_>| {
            Ok(match wish.int_in_range(0..=2)? {
                0 => GeneralSubtree::DnsName(ascii(wish)?),
                1 => GeneralSubtree::Rfc822Name(ascii(wish)?),
                _ => GeneralSubtree::IpAddress(CidrSubnet::V4(wish.arbitrary()?, wish.arbitrary()?)),
            })
        };
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![subtree(wish)?],
            excluded_subtrees: vec![subtree(wish)?; often(wish)?],
        });
    }
    for _ in 0..wish.int_in_range(0..=2)? {
        let uris = vec![ascii(wish)?];
        params.crl_distribution_points.push(CrlDistributionPoint { uris });
    }
    for _ in 0..wish.int_in_range(0..=3)? {
        let known = *wish.choose(&KNOWN)?;
        let oid = if wish.arbitrary()? {
            vec![2, 5, 29, known]
        } else {
            oid(wish)?
        };
        let mut extension = CustomExtension::from_oid_content(&oid, bytes(wish, 200)?.to_vec());
        extension.set_criticality(wish.arbitrary()?);
        params.custom_extensions.push(extension);
    }
    Ok(params)
}

fn oid(wish: &mut Unstructured<'_>) -> Result<Vec<u64>> {
    let mut oid = vec![wish.int_in_range(0..=2)?, wish.int_in_range(0..=39)?];
    for _ in 0..wish.int_in_range(1..=5)? {
        oid.push(wish.arbitrary()?);
    }
    Ok(oid)
}

fn text(wish: &mut Unstructured<'_>) -> Result<String> {
    let bytes = bytes(wish, 300)?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Once, or so often that names and constraints are more than are compared.
fn often(wish: &mut Unstructured<'_>) -> Result<usize> {
    Ok(if wish.ratio(1, 64)? { 600 } else { 1 })
}

/// An IA5String has nothing else, and rcgen panics at it.
fn ascii(wish: &mut Unstructured<'_>) -> Result<String> {
    let text = text(wish)?;
    Ok(text.chars().filter(char::is_ascii).collect())
}

fn bytes<'w>(wish: &mut Unstructured<'w>, longest: usize) -> Result<&'w [u8]> {
    let length = wish.int_in_range(0..=longest)?.min(wish.len());
    wish.bytes(length)
}

/// Extensions under 2.5.29 that judges read: names, constraints, usages, lists, policies.
const KNOWN: [u64; 14] = [14, 15, 17, 18, 19, 28, 30, 31, 32, 33, 35, 36, 37, 54];
