//! What some clients refuse in a path that others accept.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::Oid;

use super::issuer::{DEPTH, Sent, authority_key, subject_key};
use super::policy;
use crate::distinguished_name::text;
use crate::finding::Kind;

/// The differences between clients about one path: its issuers from the leaf's upwards, then the
/// root, if its certificate is known. `sent` is everything that the server sent besides the leaf.
pub(super) fn differences(
    leaf: &X509Certificate<'_>,
    issuers: &[&Sent<'_>],
    root: Option<&Sent<'_>>,
    sent: &[Sent<'_>],
) -> Vec<Kind> {
    let mut kinds = Vec::new();
    let mut refuse = |clients: &[&str], reason: String| {
        let clients = clients.iter().map(|client| (*client).to_owned()).collect();
        kinds.push(Kind::SomeClientsRefuse { clients, reason });
    };

    let below_root: Vec<_> = std::iter::once(leaf)
        .chain(issuers.iter().map(|(_, issuer)| issuer))
        .collect();
    for certificate in &below_root {
        for (clients, extension) in critical_extensions(certificate) {
            refuse(
                clients,
                format!(
                    "the extension {extension} of {} is critical",
                    text(certificate.subject())
                ),
            );
        }
        if certificate.raw_serial().first().is_some_and(|first| *first >= 0x80) {
            refuse(
                &["Go"],
                format!("the serial number of {} is negative", text(certificate.subject())),
            );
        }
        if allows_any_use_only(certificate) {
            refuse(
                &["OpenSSL", "curl", "Chrome", "Firefox"],
                format!(
                    "{} is for any use, and does not name servers",
                    text(certificate.subject())
                ),
            );
        }
    }
    if leaf.is_ca() {
        refuse(&["Firefox", "rustls"], "the leaf is a CA certificate".to_owned());
    }

    if issuers.len() > DEPTH {
        refuse(
            &["Firefox", "rustls"],
            format!(
                "it has {} issuers in a row below the root, more than {DEPTH}",
                issuers.len()
            ),
        );
    }

    let above = below_root.iter().skip(1).copied().chain(root.map(|(_, root)| root));
    for (certificate, issuer) in below_root.iter().zip(above) {
        let is_root = root.is_some_and(|(_, root)| std::ptr::eq(root, issuer));
        if certificate.issuer().as_raw() != issuer.subject().as_raw() {
            let is_by_case = text(certificate.issuer()) != text(issuer.subject());
            let clients: &[&str] = if is_by_case || is_root {
                &["Go", "GnuTLS"]
            } else {
                &["Go"]
            };
            refuse(
                clients,
                format!(
                    "{} names its issuer {} in another encoding or letter case than the issuer itself",
                    text(certificate.subject()),
                    text(certificate.issuer()),
                ),
            );
        }
        if let (Some(wanted), Some(found)) = (authority_key(certificate), subject_key(issuer))
            && wanted != found
        {
            refuse(
                &["OpenSSL", "curl"],
                format!(
                    "{} names another key of its issuer than {} has (key identifiers)",
                    text(certificate.subject()),
                    text(issuer.subject()),
                ),
            );
        }
    }

    let from_the_root: Vec<_> = below_root.iter().rev().copied().collect();
    if !policy::are_satisfied(&from_the_root) {
        refuse(
            &["Go", "Chrome"],
            "an issuer requires a certificate policy, and the chain has none that is valid".to_owned(),
        );
    }
    let last = sent
        .iter()
        .rposition(|(der, _)| issuers.iter().any(|(issuer, _)| issuer == der));
    if last.is_some_and(|last| last + 1 >= GNUTLS_READS) {
        refuse(
            &["GnuTLS"],
            format!("an issuer comes behind {GNUTLS_READS} other certificates"),
        );
    }
    kinds
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

fn is_oid(oid: &Oid<'_>, dotted: &str) -> bool {
    oid.to_id_string() == dotted
}

/// Whether its extended key usage has anyExtendedKeyUsage, but not serverAuth (RFC 5280, 4.2.1.12).
fn allows_any_use_only(certificate: &X509Certificate<'_>) -> bool {
    let usage = certificate.extended_key_usage().ok().flatten();
    usage.is_some_and(|usage| usage.value.any && !usage.value.server_auth)
}

/// GnuTLS 3.7 refuses an issuer far behind others (seen with 41); its limit is taken to be 16.
const GNUTLS_READS: usize = 16;

/// Critical extensions that some clients refuse. tests/judge.rs asks OpenSSL and Go about some of
/// them; what is said of GnuTLS, Chrome and Firefox is not measured there.
const REFUSED: [(&str, &str, &[&str]); 8] = [
    (
        "2.5.29.14",
        "subjectKeyIdentifier",
        &["OpenSSL", "curl", "Go", "Firefox"],
    ),
    (
        "2.5.29.35",
        "authorityKeyIdentifier",
        &["OpenSSL", "curl", "Go", "Firefox"],
    ),
    ("2.5.29.33", "policyMappings", &["GnuTLS"]),
    ("2.5.29.36", "policyConstraints", &["GnuTLS"]),
    ("1.3.6.1.5.5.7.1.1", "authorityInfoAccess", &["OpenSSL", "curl", "Go"]),
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
