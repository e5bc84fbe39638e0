//! Certificate policies (RFC 5280, 6.1, as RFC 9618 simplified it), for clients that want none.

use std::collections::HashSet;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

/// Whether a path has a policy where one of its issuers requires one. `path` goes from the root's
/// child down to the leaf.
///
/// Go and Chrome process policies; OpenSSL does only when it is asked to.
pub(super) fn are_satisfied(path: &[&X509Certificate<'_>]) -> bool {
    let unlimited = path.len() + 1;
    let mut explicit = unlimited;
    let mut mapping = unlimited;
    let mut any = unlimited;
    let mut valid = HashSet::from([ANY.to_owned()]);

    for (index, certificate) in path.iter().enumerate() {
        let is_last = index + 1 == path.len();
        let is_self_issued = certificate.subject().as_raw() == certificate.issuer().as_raw();
        let extensions = PolicyExtensions::of(certificate);

        let allows_any = extensions.policies.contains(ANY) && (any > 0 || (!is_last && is_self_issued));
        let inherited = valid.contains(ANY);
        let mut next: HashSet<_> = extensions
            .policies
            .iter()
            .filter(|policy| *policy != ANY && (inherited || valid.contains(*policy)))
            .cloned()
            .collect();
        if allows_any {
            next.extend(valid.iter().cloned());
        }
        valid = next;
        if explicit == 0 && valid.is_empty() {
            return false;
        }

        if is_last {
            // RFC 5280, 6.1.5 (a) and (b).
            explicit = match extensions.require_explicit {
                Some(0) => 0,
                _ => explicit.saturating_sub(1),
            };
        } else {
            valid = extensions.mapped(&valid, mapping > 0);
            if !is_self_issued {
                explicit = explicit.saturating_sub(1);
                mapping = mapping.saturating_sub(1);
                any = any.saturating_sub(1);
            }
            explicit = explicit.min(extensions.require_explicit.unwrap_or(explicit));
            mapping = mapping.min(extensions.inhibit_mapping.unwrap_or(mapping));
            any = any.min(extensions.inhibit_any.unwrap_or(any));
        }
    }

    explicit > 0 || !valid.is_empty()
}

/// What a certificate says about policies, as OIDs in dotted form.
#[derive(Default)]
struct PolicyExtensions {
    policies: HashSet<String>,
    /// From the issuer's to the subject's.
    mappings: Vec<(String, String)>,
    require_explicit: Option<usize>,
    inhibit_mapping: Option<usize>,
    inhibit_any: Option<usize>,
}

impl PolicyExtensions {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut extensions = Self::default();
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::CertificatePolicies(policies) => {
                    extensions.policies = policies.iter().map(|policy| policy.policy_id.to_id_string()).collect();
                }
                ParsedExtension::PolicyMappings(mappings) => {
                    extensions.mappings = mappings
                        .mappings
                        .iter()
                        .map(|mapping| {
                            (
                                mapping.issuer_domain_policy.to_id_string(),
                                mapping.subject_domain_policy.to_id_string(),
                            )
                        })
                        .collect();
                }
                ParsedExtension::PolicyConstraints(constraints) => {
                    extensions.require_explicit = constraints.require_explicit_policy.map(skip);
                    extensions.inhibit_mapping = constraints.inhibit_policy_mapping.map(skip);
                }
                ParsedExtension::InhibitAnyPolicy(inhibit) => extensions.inhibit_any = Some(skip(inhibit.skip_certs)),
                _ => {}
            }
        }
        extensions
    }

    /// The policies that are expected below it (RFC 5280, 6.1.4 b).
    fn mapped(&self, valid: &HashSet<String>, is_allowed: bool) -> HashSet<String> {
        let mut expected: HashSet<_> = valid
            .iter()
            .filter(|policy| !self.mappings.iter().any(|(from, _)| from == *policy))
            .cloned()
            .collect();
        if is_allowed {
            let mappings = self.mappings.iter();
            let mapped = mappings.filter(|(from, _)| valid.contains(from) || valid.contains(ANY));
            expected.extend(mapped.map(|(_, to)| to.clone()));
        }
        expected
    }
}

fn skip(certificates: u32) -> usize {
    usize::try_from(certificates).unwrap_or(usize::MAX)
}

const ANY: &str = "2.5.29.32.0";
