//! What some clients refuse in a path that others accept.

use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::Oid;
use x509_parser::x509::{X509Name, X509Version};

use super::builders::{Material, misled};
use super::issuer::{DEPTH, KeyMatch, Sent};
use super::path::key_usage;
use super::{constraints, policy};
use crate::der;
use crate::distinguished_name::text;
use crate::finding::Kind;

/// The differences between clients about one path.
pub(super) fn differences(material: &Material<'_>) -> Vec<Kind> {
    let (leaf, path) = (material.leaf, material.path);
    let (issuers, root) = (&path.issuers, path.root);
    let issuers_and_root: Vec<_> = path.above_leaf().collect();
    let below_root: Vec<_> = std::iter::once(leaf)
        .chain(issuers.iter().map(|(_, issuer)| issuer))
        .collect();
    let root = root.map(|(_, root)| root);

    let mut found = Vec::new();
    for certificate in below_root.iter().copied().chain(root) {
        found.extend(in_its_encoding(certificate));
    }
    found.extend(of_the_leaf(leaf));
    for (_, issuer) in issuers {
        found.extend(allows_any_use_only(issuer).then(|| {
            let reason = format!("{} is for any use, and does not name servers", text(issuer.subject()));
            (&["OpenSSL", "curl", "GnuTLS", "Firefox"][..], reason)
        }));
    }
    found.extend(root.into_iter().flat_map(of_the_root));

    let above = below_root.iter().skip(1).copied().chain(root);
    for (certificate, issuer) in below_root.iter().zip(above) {
        let is_root = root.is_some_and(|root| std::ptr::eq(root, issuer));
        found.extend(between(certificate, issuer, is_root));
    }
    found.extend(by_constraints(leaf, &issuers_and_root));
    let wanted: Vec<_> = issuers_and_root
        .iter()
        .flat_map(|(_, issuer)| tls_features(issuer))
        .collect();
    if wanted.iter().any(|feature| !tls_features(leaf).contains(feature)) {
        found.push((
            &["GnuTLS", "Firefox"],
            "an issuer has a TLS feature that the leaf lacks".to_owned(),
        ));
    }

    let promises_staple = tls_features(leaf).iter().any(|feature| feature == STATUS_REQUEST);
    if promises_staple && material.has_staple == Some(false) {
        found.push((
            &["GnuTLS", "Firefox"],
            "the leaf promises an OCSP response with every handshake (TLS feature), and the server sends none"
                .to_owned(),
        ));
    }

    // A public root is known by name and key only.
    if root.is_none() && !may_have_timestamps(leaf, material.has_staple) {
        found.push((
            &["Chrome", "Safari", "Firefox"],
            "the leaf has no timestamps of Certificate Transparency logs, which they want under a public root"
                .to_owned(),
        ));
    }

    let from_the_root: Vec<_> = below_root.iter().rev().copied().collect();
    if !policy::are_satisfied(&from_the_root) {
        found.push((
            &["Go", "Chrome"],
            "an issuer requires a certificate policy, and the chain has none that is valid".to_owned(),
        ));
    }
    found.extend(in_number(issuers, material.sent));
    found.extend(in_size(material));
    for (clients, issuer) in misled(material) {
        found.push((
            clients,
            format!("there are several certificates of the issuer {issuer}, and they take a wrong one"),
        ));
    }

    found
        .into_iter()
        .map(|(clients, reason)| Kind::refused_by(clients, reason))
        .collect()
}

/// Clients that refuse, and why.
type Refusal = (&'static [&'static str], String);

/// What some clients do not read in a certificate, wherever it stands.
fn in_its_encoding(certificate: &X509Certificate<'_>) -> Vec<Refusal> {
    let subject = text(certificate.subject());
    let mut found: Vec<Refusal> = Vec::new();
    for (clients, extension) in critical_extensions(certificate) {
        found.push((clients, format!("the extension {extension} of {subject} is critical")));
    }
    if has_repeated_extension(certificate) {
        found.push((&["Go", "GnuTLS", "Chrome"], format!("{subject} has an extension twice")));
    }

    if certificate.raw_serial().first().is_some_and(|first| *first >= 0x80) {
        found.push((&["Go"], format!("the serial number of {subject} is negative")));
    }
    if [certificate.subject(), certificate.issuer()]
        .into_iter()
        .any(has_universal_string)
    {
        found.push((
            &["Go"],
            format!("a name in the certificate of {subject} is a UniversalString"),
        ));
    }
    found
}

fn of_the_leaf(leaf: &X509Certificate<'_>) -> Vec<Refusal> {
    let mut found: Vec<Refusal> = Vec::new();
    if allows_any_use_only(leaf) {
        found.push((
            &["OpenSSL", "curl", "Firefox"],
            format!("{} is for any use, and does not name servers", text(leaf.subject())),
        ));
    }
    if leaf.is_ca() {
        found.push((&["Firefox", "rustls"], "the leaf is a CA certificate".to_owned()));
    }
    if netscape_type(leaf).is_some_and(|bits| bits & NETSCAPE_SERVER == 0) {
        found.push((
            &["OpenSSL", "curl"],
            "the leaf is not for servers (Netscape certificate type)".to_owned(),
        ));
    }
    if has_empty_name(leaf) {
        found.push((&["GnuTLS"], "one of the leaf's alternative names is empty".to_owned()));
    }
    found
}

/// What some clients want of a private root. Others take only its name and key.
fn of_the_root(root: &X509Certificate<'_>) -> Vec<Refusal> {
    let subject = text(root.subject());
    let mut found: Vec<Refusal> = Vec::new();

    let is_version_3 = root.version() == X509Version::V3;
    if is_version_3 && root.basic_constraints().is_ok_and(|constraints| constraints.is_none()) {
        // To OpenSSL, a key usage says it, too.
        let clients: &[_] = if key_usage(root).is_some() {
            &["Go"]
        } else {
            &["OpenSSL", "curl", "Go"]
        };
        found.push((clients, format!("the root {subject} does not say that it is a CA")));
    }

    let usage = root.extended_key_usage().ok().flatten();
    if let Some(usage) = usage
        && !usage.value.server_auth
    {
        let clients: &[_] = if usage.value.any {
            &["OpenSSL", "curl"]
        } else {
            &["OpenSSL", "curl", "Go"]
        };
        found.push((
            clients,
            format!("the root {subject} is not for servers (extended key usage)"),
        ));
    }

    if KeyMatch::of(root, root) == KeyMatch::Other || names_another_issuer_certificate(root, root) {
        found.push((
            &["OpenSSL", "curl"],
            format!("the root {subject} names another root than itself as its issuer (key identifiers)"),
        ));
    }
    found
}

/// What some clients do not like between a certificate and its issuer.
fn between(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>, is_root: bool) -> Vec<Refusal> {
    let (subject, above) = (text(certificate.subject()), text(issuer.subject()));
    let mut found: Vec<Refusal> = Vec::new();
    if certificate.issuer().as_raw() != issuer.subject().as_raw() {
        let named = text(certificate.issuer());
        let clients: &[_] = if named != above || is_root {
            &["Go", "GnuTLS"]
        } else {
            &["Go"]
        };
        found.push((
            clients,
            format!("{subject} names its issuer {named} in another encoding or letter case than the issuer itself"),
        ));
    }

    match KeyMatch::of(certificate, issuer) {
        KeyMatch::Other => found.push((
            &["OpenSSL", "curl", "GnuTLS"],
            format!("{subject} names another key of its issuer than {above} has (key identifiers)"),
        )),
        _ if names_another_issuer_certificate(certificate, issuer) => found.push((
            &["OpenSSL", "curl"],
            format!("{subject} names another certificate of its issuer than that of {above} (serial number)"),
        )),
        _ => {}
    }
    found
}

/// What some clients refuse because of name constraints, and others do not compare.
fn by_constraints(leaf: &X509Certificate<'_>, above: &[&Sent<'_>]) -> Vec<Refusal> {
    let mut found: Vec<Refusal> = Vec::new();
    if constraints::of_other_forms_are_violated(leaf, above) {
        found.push((
            &["OpenSSL", "curl", "Go", "Chrome", "Firefox"],
            "an issuer may not issue for the subject or a URI of it (name constraints)".to_owned(),
        ));
    }

    if constraints::exclude_other_forms(above) {
        found.push((
            &["GnuTLS"],
            "an issuer excludes directory names or URIs (name constraints), and it takes all of them to be excluded"
                .to_owned(),
        ));
    }
    if constraints::of_common_name_are_violated(leaf, above) {
        found.push((
            &["OpenSSL", "curl", "GnuTLS"],
            "an issuer may not issue for its common name (name constraints)".to_owned(),
        ));
    }
    found
}

/// Whether a leaf has signed certificate timestamps (RFC 6962, 3.3), or they may be in the OCSP
/// response that came with it.
fn may_have_timestamps(leaf: &X509Certificate<'_>, has_staple: Option<bool>) -> bool {
    let mut extensions = leaf.extensions().iter();
    has_staple == Some(true) || extensions.any(|extension| is_oid(&extension.oid, TIMESTAMPS))
}

/// The bits of Netscape's certificate type, which OpenSSL still looks at.
fn netscape_type(certificate: &X509Certificate<'_>) -> Option<u8> {
    let mut extensions = certificate.extensions().iter();
    let kind = extensions.find(|extension| is_oid(&extension.oid, NETSCAPE_TYPE))?;
    // The first octet is the number of unused bits.
    der::only(kind.value)?.contents.get(1).copied()
}

/// The numbers of the TLS extensions that a certificate promises (RFC 7633).
fn tls_features(certificate: &X509Certificate<'_>) -> Vec<Vec<u8>> {
    let feature = certificate
        .extensions()
        .iter()
        .find(|extension| is_oid(&extension.oid, TLS_FEATURE));
    let features = feature.and_then(|feature| der::only(feature.value));
    features.map_or_else(Vec::new, |features| {
        der::elements(features.contents)
            .map(|number| number.contents.to_vec())
            .collect()
    })
}

/// What is more than some clients take.
fn in_number(issuers: &[&Sent<'_>], sent: &[Sent<'_>]) -> Vec<Refusal> {
    let mut found: Vec<Refusal> = Vec::new();
    if issuers.len() > DEPTH {
        found.push((
            &["Firefox", "rustls"],
            format!(
                "it has {} issuers in a row below the root, more than {DEPTH}",
                issuers.len()
            ),
        ));
    }
    // GnuTLS puts no more than so many in order.
    let is_in_order = issuers.iter().zip(sent).all(|(issuer, sent)| issuer.0 == sent.0);
    if sent.len() >= GNUTLS_SORTS && !is_in_order {
        found.push((
            &["GnuTLS"],
            format!("it is one of more than {GNUTLS_SORTS} certificates, which are not in order"),
        ));
    }
    found
}

/// A Certificate message that is longer than some clients take.
fn in_size(material: &Material<'_>) -> Option<Refusal> {
    let sent = material.sent.iter().map(|(der, _)| der.len());
    // Each certificate has its length before it, and so has the whole list (RFC 5246, 7.4.2).
    let bytes = sent
        .chain([material.leaf.as_ref().len()])
        .map(|length| length + 3)
        .sum::<usize>()
        + 3;
    let clients: &[_] = if bytes > GNUTLS_READS {
        &["rustls", "OpenSSL", "curl", "Chrome", "Firefox", "GnuTLS"]
    } else if bytes > OPENSSL_READS {
        &["rustls", "OpenSSL", "curl", "Chrome"]
    } else if bytes > RUSTLS_READS {
        &["rustls"]
    } else {
        return None;
    };
    Some((clients, format!("the certificates in it have {bytes} bytes together")))
}

/// The critical extensions that not every client accepts, with those that do not.
fn critical_extensions<'a>(certificate: &'a X509Certificate<'_>) -> Vec<(&'static [&'static str], &'a str)> {
    let critical = certificate.extensions().iter().filter(|extension| extension.critical);
    critical
        .filter_map(|extension| {
            let known = REFUSED.iter().find(|(oid, ..)| is_oid(&extension.oid, oid));
            match (known, extension.parsed_extension()) {
                (Some((_, name, clients)), _) => Some((*clients, *name)),
                (None, ParsedExtension::NameConstraints(constraints)) => {
                    let subtrees = [&constraints.permitted_subtrees, &constraints.excluded_subtrees];
                    let is_unknown_to_go = subtrees.into_iter().flatten().flatten().any(|subtree| {
                        !matches!(
                            subtree.base,
                            GeneralName::DNSName(_)
                                | GeneralName::IPAddress(_)
                                | GeneralName::RFC822Name(_)
                                | GeneralName::URI(_)
                        )
                    });
                    is_unknown_to_go.then_some((&["Go"][..], "name constraints (for other names than DNS names)"))
                }
                _ => None,
            }
        })
        .collect()
}

/// Whether the serial number in an authority key identifier is not the issuer's (RFC 5280,
/// 4.2.1.1).
fn names_another_issuer_certificate(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    certificate.extensions().iter().any(|extension| {
        matches!(extension.parsed_extension(), ParsedExtension::AuthorityKeyIdentifier(identifier)
            if identifier.authority_cert_serial.is_some_and(|serial| serial != issuer.raw_serial()))
    })
}

fn has_repeated_extension(certificate: &X509Certificate<'_>) -> bool {
    let extensions = certificate.extensions();
    (extensions.iter().enumerate())
        .any(|(index, extension)| extensions[..index].iter().any(|earlier| earlier.oid == extension.oid))
}

fn has_empty_name(leaf: &X509Certificate<'_>) -> bool {
    let names = leaf.subject_alternative_name().ok().flatten();
    names.is_some_and(|names| {
        let mut names = names.value.general_names.iter();
        names.any(|name| {
            matches!(
                name,
                GeneralName::DNSName("") | GeneralName::RFC822Name("") | GeneralName::URI("")
            )
        })
    })
}

fn has_universal_string(name: &X509Name<'_>) -> bool {
    name.iter_attributes()
        .any(|attribute| attribute.attr_value().tag() == Tag::UniversalString)
}

fn is_oid(oid: &Oid<'_>, dotted: &str) -> bool {
    oid.to_id_string() == dotted
}

/// Whether its extended key usage has anyExtendedKeyUsage, but not serverAuth (RFC 5280, 4.2.1.12).
fn allows_any_use_only(certificate: &X509Certificate<'_>) -> bool {
    let usage = certificate.extended_key_usage().ok().flatten();
    usage.is_some_and(|usage| usage.value.any && !usage.value.server_auth)
}

/// Most bytes of a Certificate message: rustls's limit of a handshake message;
/// SSL_MAX_CERT_LIST_DEFAULT of OpenSSL and BoringSSL; MAX_HANDSHAKE_DATA_SIZE of GnuTLS, and about
/// the same in NSS.
const RUSTLS_READS: usize = 0xffff;
const OPENSSL_READS: usize = 100 * 1_024;
const GNUTLS_READS: usize = 128 * 1_024;
/// DEFAULT_MAX_VERIFY_DEPTH of GnuTLS 3.7.
const GNUTLS_SORTS: usize = 16;
const TIMESTAMPS: &str = "1.3.6.1.4.1.11129.2.4.2";
const NETSCAPE_TYPE: &str = "2.16.840.1.113730.1.1";
const NETSCAPE_SERVER: u8 = 0x40;
const TLS_FEATURE: &str = "1.3.6.1.5.5.7.1.24";
/// The TLS extension of that number (RFC 6066, 8).
const STATUS_REQUEST: &[u8] = &[5];

/// Critical extensions that some clients refuse. tests/judge asks OpenSSL, Go and GnuTLS about
/// them; Chromium 156 was asked once, by hand, and Firefox never.
const REFUSED: [(&str, &str, &[&str]); 10] = [
    (
        "2.5.29.18",
        "issuerAltName",
        &["OpenSSL", "curl", "Go", "Chrome", "Firefox"],
    ),
    (
        "2.5.29.14",
        "subjectKeyIdentifier",
        &["OpenSSL", "curl", "Go", "Chrome", "Firefox"],
    ),
    (
        "2.5.29.35",
        "authorityKeyIdentifier",
        &["OpenSSL", "curl", "Go", "Chrome", "Firefox"],
    ),
    ("2.5.29.33", "policyMappings", &["GnuTLS"]),
    ("2.5.29.36", "policyConstraints", &["GnuTLS"]),
    ("2.5.29.31", "cRLDistributionPoints", &["Chrome"]),
    (
        "1.3.6.1.5.5.7.1.1",
        "authorityInfoAccess",
        &["OpenSSL", "curl", "Go", "Chrome"],
    ),
    (
        "1.3.6.1.5.5.7.1.24",
        "TLS feature",
        &["OpenSSL", "curl", "Go", "Chrome"],
    ),
    ("1.3.6.1.5.5.7.48.1.5", "OCSP no check", &["Go", "GnuTLS", "Chrome"]),
    (
        "2.16.840.1.113730.1.1",
        "Netscape certificate type",
        &["Go", "GnuTLS", "Chrome", "Firefox"],
    ),
];

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, KeyPair};
    use x509_parser::prelude::FromDer;

    use super::*;

    /// ACM and others let a customer keep a certificate out of the logs, and browsers refuse it.
    #[test]
    fn a_public_leaf_without_timestamps_is_noticed() {
        let timestamps = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2], vec![4, 2, 0, 0]);
        for (extensions, has_staple, expected) in [
            (vec![], None, false),
            (vec![], Some(false), false),
            (vec![], Some(true), true),
            (vec![timestamps], Some(false), true),
        ] {
            let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
            params.custom_extensions = extensions;
            let leaf = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let (_, leaf) = X509Certificate::from_der(leaf.der()).unwrap();
            assert_eq!(may_have_timestamps(&leaf, has_staple), expected);
        }
    }
}
