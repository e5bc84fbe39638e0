//! Name constraints (RFC 5280, 4.2.1.10) of the forms that webpki does not compare.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree};

use super::issuer::Sent;
use crate::der;
use crate::distinguished_name::canonical_name;

/// Whether an address of mail of the leaf is outside of what an issuer above it may issue for.
/// `issuers` are those of the path, from the leaf upwards.
pub(super) fn are_violated(leaf: &X509Certificate<'_>, issuers: &[&Sent<'_>]) -> bool {
    are_violated_by(leaf, issuers, |name| matches!(name, Name::Email(_)))
}

/// The same for URIs and directory names, the subjects of the issuers included. GnuTLS compares
/// neither.
pub(super) fn of_other_forms_are_violated(leaf: &X509Certificate<'_>, issuers: &[&Sent<'_>]) -> bool {
    are_violated_by(leaf, issuers, |name| matches!(name, Name::Directory(_) | Name::Uri(_)))
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
    !has_dns_name && are_violated_by(leaf, issuers, |name| matches!(name, Name::Common(_)))
}

fn are_violated_by(leaf: &X509Certificate<'_>, issuers: &[&Sent<'_>], counts: impl Fn(&Name<'_>) -> bool) -> bool {
    issuers.iter().enumerate().any(|(height, (_, issuer))| {
        let Ok(Some(constraints)) = issuer.name_constraints() else {
            return false;
        };
        let below = issuers[..height]
            .iter()
            .map(|(_, certificate)| certificate)
            .filter(|certificate| certificate.subject().as_raw() != certificate.issuer().as_raw());
        let permitted = constraints.value.permitted_subtrees.as_deref().unwrap_or_default();
        let excluded = constraints.value.excluded_subtrees.as_deref().unwrap_or_default();
        std::iter::once(leaf)
            .chain(below)
            .flat_map(names)
            .filter(&counts)
            .any(|name| !is_permitted(&name, permitted) || excluded.iter().any(|subtree| name.is_within(subtree)))
    })
}

/// A name of a form that is judged here.
enum Name<'a> {
    /// As DER.
    Directory(&'a [u8]),
    /// One that looks like a DNS name.
    Common(&'a str),
    Email(&'a str),
    Uri(&'a str),
}

fn names<'a>(certificate: &'a X509Certificate<'a>) -> Vec<Name<'a>> {
    let subject = certificate.subject();
    let mut names = Vec::new();
    if subject.iter_rdn().next().is_some() {
        names.push(Name::Directory(subject.as_raw()));
    }
    let common_names = subject.iter_common_name().filter_map(|name| name.as_str().ok());
    names.extend(common_names.filter(|name| is_dns_name(name)).map(Name::Common));
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        names.extend(alternatives.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DirectoryName(name) => Some(Name::Directory(name.as_raw())),
            GeneralName::RFC822Name(name) => Some(Name::Email(name)),
            GeneralName::URI(name) => Some(Name::Uri(name)),
            _ => None,
        }));
    }
    names
}

/// Without a subtree of its form, a name is not constrained.
fn is_permitted(name: &Name<'_>, permitted: &[GeneralSubtree<'_>]) -> bool {
    let mut of_its_form = permitted.iter().filter(|subtree| name.has_form_of(subtree)).peekable();
    of_its_form.peek().is_none() || of_its_form.any(|subtree| name.is_within(subtree))
}

impl Name<'_> {
    fn has_form_of(&self, subtree: &GeneralSubtree<'_>) -> bool {
        matches!(
            (self, &subtree.base),
            (Self::Directory(_), GeneralName::DirectoryName(_))
                | (Self::Common(_), GeneralName::DNSName(_))
                | (Self::Email(_), GeneralName::RFC822Name(_))
                | (Self::Uri(_), GeneralName::URI(_))
        )
    }

    fn is_within(&self, subtree: &GeneralSubtree<'_>) -> bool {
        match (self, &subtree.base) {
            (Self::Directory(name), GeneralName::DirectoryName(base)) => {
                contents(name).starts_with(&contents(base.as_raw()))
            }
            (Self::Common(name), GeneralName::DNSName(base)) => {
                let base = base.strip_prefix('.').unwrap_or(base);
                base.is_empty() || is_host_within(name, base) || is_host_within(name, &format!(".{base}"))
            }
            (Self::Email(name), GeneralName::RFC822Name(base)) if base.contains('@') => name.eq_ignore_ascii_case(base),
            (Self::Email(name), GeneralName::RFC822Name(base)) => name
                .rsplit_once('@')
                .is_some_and(|(_, host)| is_host_within(host, base)),
            (Self::Uri(name), GeneralName::URI(base)) => {
                reqwest::Url::parse(name).is_ok_and(|url| url.host_str().is_some_and(|host| is_host_within(host, base)))
            }
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

/// `.example` are the hosts below it, `example` is that host alone.
fn is_host_within(host: &str, base: &str) -> bool {
    let (host, base) = (host.to_ascii_lowercase(), base.to_ascii_lowercase());
    if base.starts_with('.') {
        host.ends_with(&base)
    } else {
        host == base
    }
}
