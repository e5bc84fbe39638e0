//! Whether a leaf is for the name that a client asks for.

use std::net::IpAddr;

use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use webpki::EndEntityCert;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::AttributeTypeAndValue;

use super::{Criteria, critical, rewrite};
use crate::certificate::Certificate;
use crate::endpoint::is_for;
use crate::finding::{Finding, Kind, Severity};

/// What is wrong with the names of a leaf.
pub(super) fn finding(
    der: &CertificateDer<'_>,
    parsed: &X509Certificate<'_>,
    leaf: &Certificate,
    criteria: &Criteria<'_>,
) -> Option<Finding> {
    // The verifier does not read a leaf with certain critical extensions, which say nothing of
    // names.
    let is_for_name = |leaf: EndEntityCert<'_>| leaf.verify_is_valid_for_subject_name(criteria.name).is_ok();
    let rewritten = rewrite::leaf(der);
    let mut readable = rewritten
        .iter()
        .filter_map(|leaf| EndEntityCert::try_from(leaf).ok())
        .peekable();
    let is_valid = match EndEntityCert::try_from(der) {
        Ok(leaf) => is_for_name(leaf),
        Err(_) if readable.peek().is_some() => readable.any(is_for_name),
        // The path has a finding that the verifier cannot read it.
        Err(_) => !leaf.names.is_empty(),
    };
    if is_valid {
        return None;
    }

    let expected = criteria.name.to_str().into_owned();
    if let Some((clients, reason)) = refusal(parsed, criteria.name) {
        let kind = Kind::refused_by(clients, reason);
        return Some(Finding::new(kind, Severity::Warning, criteria.now));
    }
    let names = leaf.some_names(&expected);
    let kind = Kind::NameMismatch { expected, names };
    Some(critical(kind, criteria.now))
}

/// Who refuses a leaf that has a name in a form which others take; none if nobody takes it.
fn refusal(leaf: &X509Certificate<'_>, name: &ServerName<'_>) -> Option<(&'static [&'static str], String)> {
    let text = name.to_str();
    let by_common_name = || {
        let clients = refusing_common_name(leaf, name)?;
        let reason = format!("{text} is its common name only, and none of its alternative names");
        Some((clients, reason))
    };
    let names = alternative_names(leaf)?;
    let by_alternative = names.iter().find_map(|alternative| match (name, alternative) {
        (ServerName::DnsName(_), GeneralName::DNSName(presented)) => {
            let clients = refusing_odd_name(presented, &text)?;
            Some((clients, format!("{presented} in it stands for {text} to some only")))
        }
        _ => None,
    });
    by_alternative.or_else(by_common_name)
}

/// Who refuses a DNS name in a certificate that stands for the name of a host to others only.
fn refusing_odd_name(presented: &str, name: &str) -> Option<&'static [&'static str]> {
    // Absolute, which RFC 5280, 4.2.1.6, does not have. Chromium was asked by hand.
    if let Some(relative) = presented.strip_suffix('.') {
        return is_for(relative, name).then_some(&["OpenSSL", "Go", "GnuTLS", "Firefox"]);
    }
    // Of a whole top-level domain.
    if is_for(presented, name) && presented.matches('.').count() == 1 {
        return Some(&["OpenSSL", "curl", "GnuTLS", "Chrome", "Firefox"]);
    }

    // RFC 9525, 6.3: a wildcard is a whole label. OpenSSL lets it be a part of the first one.
    let (label, parent) = name.split_once('.')?;
    let (pattern, suffix) = presented.split_once('.')?;
    let (before, after) = pattern.split_once('*')?;
    let is_part = pattern != "*" && !after.contains('*');
    let label = label.to_ascii_lowercase();
    let is_match = label.len() >= before.len() + after.len()
        && label.starts_with(&before.to_ascii_lowercase())
        && label.ends_with(&after.to_ascii_lowercase())
        && !label.starts_with("xn--");
    let is_right = is_part && is_match && suffix.contains('.') && suffix.eq_ignore_ascii_case(parent);
    is_right.then_some(&["curl", "Go", "GnuTLS", "Chrome", "Firefox"])
}

/// Who refuses a leaf that has a name as its common name only; none if it does not have it, or if
/// no client would look at it. RFC 9525, 6.3, has no common names any more, but old clients do.
fn refusing_common_name(leaf: &X509Certificate<'_>, name: &ServerName<'_>) -> Option<&'static [&'static str]> {
    let common_names: Vec<_> = leaf.subject().iter_common_name().collect();
    let is_right = |common: &&AttributeTypeAndValue<'_>| match (name, common.as_str()) {
        (ServerName::DnsName(name), Ok(text)) => is_for(text, name.as_ref()),
        (ServerName::IpAddress(address), Ok(text)) => text.parse() == Ok(IpAddr::from(*address)),
        _ => false,
    };
    if !common_names.iter().any(is_right) {
        return None;
    }

    let names = alternative_names(leaf)?;
    let has = |is_of_form: fn(&GeneralName<'_>) -> bool| names.iter().any(is_of_form);
    let has_dns_name = has(|name| matches!(name, GeneralName::DNSName(_)));
    let has_address = has(|name| matches!(name, GeneralName::IPAddress(_)));
    let is_last_wrong = !common_names.last().is_some_and(is_right);
    if matches!(name, ServerName::IpAddress(_)) {
        let is_taken = !has_dns_name && !has_address && !is_last_wrong;
        return is_taken.then_some(&["OpenSSL", "Go", "GnuTLS", "Chrome", "Firefox"]);
    }
    if has_dns_name {
        None
    } else if has_address || is_last_wrong {
        // Of several common names, curl takes the last, and GnuTLS takes none.
        Some(&["curl", "Go", "GnuTLS", "Chrome", "Firefox"])
    } else if has(|name| matches!(name, GeneralName::URI(_))) || common_names.len() > 1 {
        Some(&["Go", "GnuTLS", "Chrome", "Firefox"])
    } else {
        Some(&["Go", "Chrome", "Firefox"])
    }
}

/// The alternative names of a leaf, of which there may be none; nothing if they cannot be read.
fn alternative_names<'a>(leaf: &'a X509Certificate<'a>) -> Option<&'a [GeneralName<'a>]> {
    let alternatives = leaf.subject_alternative_name().ok()?;
    Some(alternatives.map_or(&[], |alternatives| &alternatives.value.general_names))
}
