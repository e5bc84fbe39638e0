//! CAA records (RFC 8659, RFC 8657): whether they let a CA issue for a name.

use std::fmt;

use hickory_resolver::proto::rr::{RData, RecordType};

use super::Dns;

/// The CAA records that count for a name: those of the name itself, or of the nearest domain above
/// it that has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// The domain that has them.
    pub domain: String,
    /// In no order.
    pub properties: Vec<Property>,
}

/// One CAA record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Whether a CA that does not know the tag must not issue.
    pub is_critical: bool,
    /// Such as `issue`.
    pub tag: String,
    /// Such as `letsencrypt.org; validationmethods=dns-01`.
    pub value: String,
}

/// Who is to issue, and how control of the name is proved.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The domains by which CAA records name the CA (`caaIdentities` of its directory).
    pub identities: &'a [String],
    /// URL of our account there, if it is known.
    pub account: Option<&'a str>,
    /// Whether a wildcard is asked for.
    pub is_wildcard: bool,
}

/// Why a CA must not issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A critical record has a tag that no CA knows.
    UnknownCriticalTag(String),
    /// No record names the CA.
    NotNamed {
        /// The tag that counts: `issue`, or `issuewild` for a wildcard.
        tag: &'static str,
        /// The values that there are.
        values: Vec<String>,
    },
    /// Each record that names the CA asks for another account or another method.
    Restricted(Vec<String>),
}

/// Looks up the records that count for a name, which may be a wildcard's. None if no domain on the
/// way to the root has any; an error if one of them cannot be looked up, which lets no CA issue.
pub async fn look_up(name: &str, dns: &Dns) -> Result<Option<Records>, String> {
    let mut domain = name.trim_start_matches("*.");
    loop {
        let properties = properties(domain, dns).await?;
        if !properties.is_empty() {
            return Ok(Some(Records {
                domain: domain.to_owned(),
                properties,
            }));
        }
        match domain.split_once('.') {
            Some((_, parent)) => domain = parent,
            None => return Ok(None),
        }
    }
}

async fn properties(domain: &str, dns: &Dns) -> Result<Vec<Property>, String> {
    let found = dns.any(domain, RecordType::CAA).await;
    let found = found.map_err(|reason| format!("the CAA records of {domain}: {reason}"))?;
    let properties = found.into_iter().filter_map(|record| match record.data {
        RData::CAA(caa) => Some(Property {
            is_critical: caa.issuer_critical,
            tag: caa.tag.to_ascii_lowercase(),
            value: String::from_utf8_lossy(&caa.value).into_owned(),
        }),
        _ => None,
    });
    Ok(properties.collect())
}

impl Records {
    /// The properties with one tag.
    fn tagged(&self, tag: &str) -> Vec<&Property> {
        let properties = self.properties.iter();
        properties.filter(|property| property.tag == tag).collect()
    }

    /// Whether they let a CA issue by DNS-01.
    pub fn allow(&self, asking: &Asking<'_>) -> Result<(), Refusal> {
        let unknown = self
            .properties
            .iter()
            .find(|property| property.is_critical && !KNOWN.contains(&property.tag.as_str()));
        if let Some(Property { tag, .. }) = unknown {
            return Err(Refusal::UnknownCriticalTag(tag.clone()));
        }

        // For a wildcard, `issue` counts only where there is no `issuewild` (RFC 8659, 4.3).
        let wild = self.tagged(ISSUE_WILD);
        let (tag, counting) = if asking.is_wildcard && !wild.is_empty() {
            (ISSUE_WILD, wild)
        } else {
            (ISSUE, self.tagged(ISSUE))
        };
        if counting.is_empty() {
            return Ok(());
        }

        let naming: Vec<_> = counting
            .iter()
            .filter_map(|property| Issuer::parse(&property.value))
            .filter(|issuer| {
                asking
                    .identities
                    .iter()
                    .any(|identity| identity.eq_ignore_ascii_case(issuer.domain))
            })
            .collect();
        if naming.is_empty() {
            let values = counting.iter().map(|property| property.value.clone()).collect();
            return Err(Refusal::NotNamed { tag, values });
        }
        if naming.iter().any(|issuer| issuer.allows(asking.account)) {
            return Ok(());
        }
        Err(Refusal::Restricted(
            naming.iter().map(|issuer| issuer.value.to_owned()).collect(),
        ))
    }
}

/// The value of an `issue` record that names a CA.
struct Issuer<'v> {
    value: &'v str,
    domain: &'v str,
    parameters: Vec<(&'v str, &'v str)>,
}

impl<'v> Issuer<'v> {
    /// None for a value that names nobody, or that breaks the grammar: both let nobody issue (RFC
    /// 8659, 4.2).
    fn parse(value: &'v str) -> Option<Self> {
        let (domain, rest) = value.split_once(';').unwrap_or((value, ""));
        let parameters: Option<Vec<_>> = rest
            .split(';')
            .map(str::trim)
            .filter(|parameter| !parameter.is_empty())
            .map(|parameter| {
                let (tag, value) = parameter.split_once('=')?;
                Some((tag.trim_end(), value.trim_start()))
            })
            .collect();
        let domain = domain.trim();
        (!domain.is_empty()).then_some(())?;
        Some(Self {
            value,
            domain,
            parameters: parameters?,
        })
    }

    /// The values of one parameter.
    fn values(&self, wanted: &str) -> Vec<&'v str> {
        (self.parameters.iter())
            .filter(|(tag, _)| tag.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| *value)
            .collect()
    }

    /// Whether it allows our account, if that is known, and DNS-01 (RFC 8657, 3 and 4).
    fn allows(&self, account: Option<&str>) -> bool {
        let is_account_fine = match self.values("accounturi").as_slice() {
            [] => true,
            [uri] => account.is_none_or(|account| account == *uri),
            _ => false,
        };
        let is_method_fine = match self.values("validationmethods").as_slice() {
            [] => true,
            [methods] => methods.split(',').any(|method| method.trim() == "dns-01"),
            _ => false,
        };
        is_account_fine && is_method_fine
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCriticalTag(tag) => write!(f, "a critical record has the unknown tag {tag:?}"),
            Self::NotNamed { tag, values } => {
                let values: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
                write!(f, "{tag} allows only {}", values.join(", "))
            }
            Self::Restricted(values) => {
                let values: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
                write!(
                    f,
                    "only another account, or another method than dns-01, is allowed: {}",
                    values.join(", ")
                )
            }
        }
    }
}

const ISSUE: &str = "issue";
const ISSUE_WILD: &str = "issuewild";
/// RFC 8659, 4.1, and what CAs know besides: RFC 9495, and the CA/Browser Forum's contacts.
const KNOWN: [&str; 6] = [ISSUE, ISSUE_WILD, "iodef", "issuemail", "contactemail", "contactphone"];

#[cfg(test)]
mod tests {
    use super::*;

    fn records(list: &[&str]) -> Records {
        let properties = list.iter().map(|text| {
            let mut words = text.splitn(3, ' ');
            Property {
                is_critical: words.next() == Some("128"),
                tag: words.next().unwrap().to_owned(),
                value: words.next().unwrap_or_default().to_owned(),
            }
        });
        Records {
            domain: "example.com".to_owned(),
            properties: properties.collect(),
        }
    }

    /// RFC 8659, 4.2 to 4.5, and RFC 8657, 5.
    #[test]
    fn who_may_issue() {
        let ours = "accounturi=https://ca.example/acct/1";
        let other = "accounturi=https://ca.example/acct/2";
        for (list, plain, wildcard) in [
            (vec!["0 iodef mailto:security@example.com"], "yes", "yes"),
            (vec!["0 issue ca.example"], "yes", "yes"),
            (vec!["0 issue CA.example ; policy=ev"], "yes", "yes"),
            (vec!["0 issue ;"], "issue allows only \";\"", "issue allows only \";\""),
            (
                vec!["0 issue other.example"],
                "issue allows only \"other.example\"",
                "issue allows only \"other.example\"",
            ),
            (vec!["0 issue other.example", "0 issue ca.example"], "yes", "yes"),
            (
                vec!["0 issue ca.example", "0 issuewild ;"],
                "yes",
                "issuewild allows only \";\"",
            ),
            (
                vec!["0 issue other.example", "0 issuewild ca.example"],
                "issue allows only \"other.example\"",
                "yes",
            ),
            (
                vec!["0 issuewild other.example"],
                "yes",
                "issuewild allows only \"other.example\"",
            ),
            (
                vec!["0 issue ca.example; %%%%%"],
                "issue allows only \"ca.example; %%%%%\"",
                "issue allows only \"ca.example; %%%%%\"",
            ),
            (
                vec!["128 tbs unknown", "0 issue ca.example"],
                "the unknown tag \"tbs\"",
                "the unknown tag \"tbs\"",
            ),
            (vec!["0 tbs unknown", "0 issue ca.example"], "yes", "yes"),
            (vec!["128 issue ca.example"], "yes", "yes"),
            (vec![&format!("0 issue ca.example; {ours}")], "yes", "yes"),
            (
                vec![&format!("0 issue ca.example; {other}")],
                "only another account",
                "only another account",
            ),
            (
                vec![&format!("0 issue ca.example; {ours}; {other}")],
                "only another account",
                "only another account",
            ),
            (
                vec!["0 issue ca.example; validationmethods=http-01"],
                "another method",
                "another method",
            ),
            (
                vec!["0 issue ca.example; validationmethods=http-01,dns-01"],
                "yes",
                "yes",
            ),
        ] {
            for (is_wildcard, expected) in [(false, plain), (true, wildcard)] {
                let asking = Asking {
                    identities: &["ca.example".to_owned()],
                    account: Some("https://ca.example/acct/1"),
                    is_wildcard,
                };
                let allowed = records(&list).allow(&asking);
                let said = allowed.map_or_else(|refusal| refusal.to_string(), |()| "yes".to_owned());
                assert!(said.contains(expected), "{list:?} {is_wildcard}: {said}");
            }
        }
    }

    #[test]
    fn an_account_that_is_not_known_yet_may_be_the_right_one() {
        let asking = Asking {
            identities: &["ca.example".to_owned()],
            account: None,
            is_wildcard: false,
        };
        let records = records(&["0 issue ca.example; accounturi=https://ca.example/acct/1"]);
        assert_eq!(records.allow(&asking), Ok(()));
    }
}
