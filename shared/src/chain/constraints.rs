//! Name constraints (RFC 5280, 4.2.1.10) of the forms that webpki does not compare.

use std::fmt;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree};

use super::issuer::Sent;
use crate::der;
use crate::distinguished_name::canonical_name;

/// What is wrong between the names of a path and the constraints in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// An issuer may not issue for a name below it.
    Name,
    /// The product of names and constraints is more than [`COMPARISONS`], so nobody has compared
    /// them.
    TooMany,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "an issuer may not issue for this name (name constraints)",
            Self::TooMany => "it has too many names and name constraints to compare",
        })
    }
}

/// Whether an address of mail of the leaf is outside of what an issuer above it may issue for.
/// `issuers` are those of the path, from the leaf upwards.
pub(super) fn violation(leaf: &X509Certificate<'_>, issuers: &[&Sent<'_>]) -> Option<Violation> {
    violation_of(leaf, issuers, |name| matches!(name, Name::Email(_)))
}

/// The same for URIs and directory names, the subjects of the issuers included. GnuTLS compares
/// neither.
pub(super) fn of_other_forms_are_violated(leaf: &X509Certificate<'_>, issuers: &[&Sent<'_>]) -> bool {
    violation_of(leaf, issuers, |name| matches!(name, Name::Directory(_) | Name::Uri(_))).is_some()
}

/// Whether an issuer excludes some URIs or directory names.
pub(super) fn exclude_other_forms(issuers: &[&Sent<'_>]) -> bool {
    issuers.iter().any(|(_, issuer)| {
        let constraints = issuer.name_constraints().ok().flatten();
        let excluded = constraints.and_then(|constraints| constraints.value.excluded_subtrees.as_deref());
        excluded.is_some_and(|excluded| {
            let mut forms = excluded.iter().map(|subtree| &subtree.base);
            forms.any(|form| matches!(form, GeneralName::DirectoryName(_) | GeneralName::URI(_)))
        })
    })
}

/// Whether the common name of a leaf without DNS names is a DNS name outside of what an issuer may
/// issue for: some clients compare that one then.
pub(super) fn of_common_name_are_violated(leaf: &X509Certificate<'_>, issuers: &[&Sent<'_>]) -> bool {
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    let has_dns_name = alternatives.is_some_and(|alternatives| {
        let mut names = alternatives.value.general_names.iter();
        names.any(|name| matches!(name, GeneralName::DNSName(_)))
    });
    !has_dns_name && violation_of(leaf, issuers, |name| matches!(name, Name::Common(_))).is_some()
}

fn violation_of(
    leaf: &X509Certificate<'_>,
    issuers: &[&Sent<'_>],
    counts: impl Fn(&Name<'_>) -> bool,
) -> Option<Violation> {
    let constrains = |(_, issuer): &&Sent<'_>| matches!(issuer.name_constraints(), Ok(Some(_)));
    let last = issuers.iter().rposition(constrains)?;
    let mut left = COMPARISONS;
    // Of the certificates below the issuer at hand.
    let mut below: Vec<_> = names(leaf).into_iter().filter(&counts).collect();
    for (_, issuer) in &issuers[..=last] {
        if let Ok(Some(constraints)) = issuer.name_constraints() {
            let permitted = subtrees(constraints.value.permitted_subtrees.as_deref());
            let excluded = subtrees(constraints.value.excluded_subtrees.as_deref());
            let comparisons = below.len().saturating_mul(permitted.len() + excluded.len());
            let Some(rest) = left.checked_sub(comparisons) else {
                return Some(Violation::TooMany);
            };
            left = rest;
            let is_outside = |name: &Name<'_>| {
                !is_permitted(name, &permitted) || excluded.iter().any(|subtree| name.is_within(subtree))
            };
            if below.iter().any(is_outside) {
                return Some(Violation::Name);
            }
        }
        if issuer.subject().as_raw() != issuer.issuer().as_raw() {
            below.extend(names(issuer).into_iter().filter(&counts));
        }
    }
    None
}

/// A name of a form that is judged here.
enum Name<'a> {
    /// In canonical form.
    Directory(Vec<u8>),
    /// One that looks like a DNS name.
    Common(&'a str),
    Email(&'a str),
    /// The host, if it has one.
    Uri(Option<String>),
}

/// What a constraint is about.
enum Subtree<'a> {
    /// In canonical form.
    Directory(Vec<u8>),
    Dns(&'a str),
    Email(&'a str),
    Uri(&'a str),
}

fn names<'a>(certificate: &'a X509Certificate<'a>) -> Vec<Name<'a>> {
    let subject = certificate.subject();
    let mut names = Vec::new();
    if subject.iter_rdn().next().is_some() {
        names.push(Name::Directory(contents(subject.as_raw())));
    }
    let common_names = subject.iter_common_name().filter_map(|name| name.as_str().ok());
    names.extend(common_names.filter(|name| is_dns_name(name)).map(Name::Common));
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        names.extend(alternatives.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DirectoryName(name) => Some(Name::Directory(contents(name.as_raw()))),
            GeneralName::RFC822Name(name) => Some(Name::Email(name)),
            GeneralName::URI(name) => Some(Name::Uri(host_of(name))),
            _ => None,
        }));
    }
    names
}

fn subtrees<'a>(subtrees: Option<&'a [GeneralSubtree<'a>]>) -> Vec<Subtree<'a>> {
    let subtrees = subtrees.unwrap_or_default().iter();
    subtrees
        .filter_map(|subtree| match &subtree.base {
            GeneralName::DirectoryName(base) => Some(Subtree::Directory(contents(base.as_raw()))),
            GeneralName::DNSName(base) => Some(Subtree::Dns(base)),
            GeneralName::RFC822Name(base) => Some(Subtree::Email(base)),
            GeneralName::URI(base) => Some(Subtree::Uri(base)),
            _ => None,
        })
        .collect()
}

/// Without a subtree of its form, a name is not constrained.
fn is_permitted(name: &Name<'_>, permitted: &[Subtree<'_>]) -> bool {
    let mut of_its_form = permitted.iter().filter(|subtree| name.has_form_of(subtree)).peekable();
    of_its_form.peek().is_none() || of_its_form.any(|subtree| name.is_within(subtree))
}

impl Name<'_> {
    fn has_form_of(&self, subtree: &Subtree<'_>) -> bool {
        matches!(
            (self, subtree),
            (Self::Directory(_), Subtree::Directory(_))
                | (Self::Common(_), Subtree::Dns(_))
                | (Self::Email(_), Subtree::Email(_))
                | (Self::Uri(_), Subtree::Uri(_))
        )
    }

    fn is_within(&self, subtree: &Subtree<'_>) -> bool {
        match (self, subtree) {
            (Self::Directory(name), Subtree::Directory(base)) => name.starts_with(base),
            (Self::Common(name), Subtree::Dns(base)) => {
                let base = base.strip_prefix('.').unwrap_or(base);
                base.is_empty() || is_host_within(name, base) || is_below(name, base)
            }
            (Self::Email(name), Subtree::Email(base)) if base.contains('@') => name.eq_ignore_ascii_case(base),
            (Self::Email(name), Subtree::Email(base)) => name
                .rsplit_once('@')
                .is_some_and(|(_, host)| is_host_within(host, base)),
            (Self::Uri(host), Subtree::Uri(base)) => host.as_deref().is_some_and(|host| is_host_within(host, base)),
            _ => false,
        }
    }
}

fn is_dns_name(name: &str) -> bool {
    name.contains('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// The contents of a Name in canonical form: a subtree is a prefix of the names in it.
fn contents(name: &[u8]) -> Vec<u8> {
    let name = canonical_name(name);
    der::only(&name).map_or_else(Vec::new, |name| name.contents.to_vec())
}

fn host_of(uri: &str) -> Option<String> {
    reqwest::Url::parse(uri).ok()?.host_str().map(str::to_owned)
}

/// `.example` are the hosts below it, `example` is that host alone.
fn is_host_within(host: &str, base: &str) -> bool {
    match base.strip_prefix('.') {
        Some(base) => is_below(host, base),
        None => host.eq_ignore_ascii_case(base),
    }
}

/// Whether the host is below `base`, which has no dot at its beginning.
fn is_below(host: &str, base: &str) -> bool {
    let (host, base) = (host.as_bytes(), base.as_bytes());
    let Some(at) = host.len().checked_sub(base.len()) else {
        return false;
    };
    let (above, end) = host.split_at(at);
    above.ends_with(b".") && end.eq_ignore_ascii_case(base)
}

/// Of names with constraints, for one path: more are refused, as by webpki for the forms that it
/// compares (OpenSSL and Chromium refuse 2^20).
const COMPARISONS: usize = 250_000;
