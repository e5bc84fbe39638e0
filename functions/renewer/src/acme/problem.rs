//! What a CA answers instead (RFC 8555, 6.7): the problem's type, its text for people, and what it
//! means for a renewal.

use std::collections::BTreeSet;

use instant_acme::{Problem, Subproblem};
use neverlapse::text::printable;
use neverlapse::timestamp::Timestamp;

use crate::error::Error;

/// The type of a problem (RFC 8555, 6.7; RFC 9773, 7.4; `invalidProfile` is of the ACME profiles
/// draft).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProblemType {
    AccountDoesNotExist,
    AlreadyReplaced,
    AlreadyRevoked,
    BadCsr,
    BadNonce,
    BadPublicKey,
    BadRevocationReason,
    BadSignatureAlgorithm,
    Caa,
    Compound,
    Connection,
    Dns,
    ExternalAccountRequired,
    IncorrectResponse,
    InvalidContact,
    InvalidProfile,
    Malformed,
    OrderNotReady,
    RateLimited,
    RejectedIdentifier,
    ServerInternal,
    Tls,
    Unauthorized,
    UnsupportedContact,
    UnsupportedIdentifier,
    UserActionRequired,
    /// Another URI, or none.
    Unknown(Option<String>),
}

impl ProblemType {
    pub(crate) fn of(problem: &Problem) -> Self {
        Self::parse(problem.r#type.as_deref())
    }

    fn parse(uri: Option<&str>) -> Self {
        match uri.and_then(|uri| uri.strip_prefix(NAMESPACE)) {
            Some("accountDoesNotExist") => Self::AccountDoesNotExist,
            Some("alreadyReplaced") => Self::AlreadyReplaced,
            Some("alreadyRevoked") => Self::AlreadyRevoked,
            Some("badCSR") => Self::BadCsr,
            Some("badNonce") => Self::BadNonce,
            Some("badPublicKey") => Self::BadPublicKey,
            Some("badRevocationReason") => Self::BadRevocationReason,
            Some("badSignatureAlgorithm") => Self::BadSignatureAlgorithm,
            Some("caa") => Self::Caa,
            Some("compound") => Self::Compound,
            Some("connection") => Self::Connection,
            Some("dns") => Self::Dns,
            Some("externalAccountRequired") => Self::ExternalAccountRequired,
            Some("incorrectResponse") => Self::IncorrectResponse,
            Some("invalidContact") => Self::InvalidContact,
            Some("invalidProfile") => Self::InvalidProfile,
            Some("malformed") => Self::Malformed,
            Some("orderNotReady") => Self::OrderNotReady,
            Some("rateLimited") => Self::RateLimited,
            Some("rejectedIdentifier") => Self::RejectedIdentifier,
            Some("serverInternal") => Self::ServerInternal,
            Some("tls") => Self::Tls,
            Some("unauthorized") => Self::Unauthorized,
            Some("unsupportedContact") => Self::UnsupportedContact,
            Some("unsupportedIdentifier") => Self::UnsupportedIdentifier,
            Some("userActionRequired") => Self::UserActionRequired,
            _ => Self::Unknown(uri.map(str::to_owned)),
        }
    }

    /// Whether the CA says that it cannot answer now, and not that the request is wrong.
    fn is_temporary(&self) -> bool {
        matches!(self, Self::RateLimited | Self::ServerInternal | Self::BadNonce)
    }

    /// What to do about it, where there is something that most people have to do.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::AccountDoesNotExist => Some(
                "the CA does not know our account: if it has forgotten it for good, delete accounts/ISSUER/account.json, and the next run makes one",
            ),
            Self::BadCsr => {
                Some("the CA does not take this kind of key or these names: check key_type and identifiers")
            }
            Self::Caa => Some("the domain's CAA records must name this CA; look with: dig CAA example.com"),
            Self::Dns => Some(
                "the CA's look-up failed: check the delegation (NS at the registrar) and DNSSEC (DS must match the zone's keys)",
            ),
            Self::ExternalAccountRequired => {
                Some("set eab = true for this issuer and put accounts/ISSUER/eab.json into the bucket")
            }
            Self::IncorrectResponse => {
                Some("the CA saw another TXT value than ours: is the zone that we write the one that the world sees?")
            }
            Self::InvalidContact | Self::UnsupportedContact => Some("check `contact` of this issuer in the inventory"),
            Self::InvalidProfile => Some("the CA does not know this profile: check `profile` in the inventory"),
            Self::RateLimited => Some(
                "the CA's limits: https://letsencrypt.org/docs/rate-limits/; nothing is tried before the time that it named",
            ),
            Self::RejectedIdentifier => {
                Some("the CA does not issue for this name: check its spelling, and whether it is a public name")
            }
            Self::Unauthorized => Some(
                "the CA saw another TXT value: is the public zone that we write the one that the domain is delegated to?",
            ),
            Self::UserActionRequired => Some("the CA's terms changed: open the link in its message"),
            Self::AlreadyReplaced
            | Self::AlreadyRevoked
            | Self::BadNonce
            | Self::BadPublicKey
            | Self::BadRevocationReason
            | Self::BadSignatureAlgorithm
            | Self::Compound
            | Self::Connection
            | Self::Malformed
            | Self::OrderNotReady
            | Self::ServerInternal
            | Self::Tls
            | Self::UnsupportedIdentifier
            | Self::Unknown(_) => None,
        }
    }
}

/// What an error of the library means for a renewal: whether the CA refuses what we ask for, or
/// cannot be used for now. `retry_after` is the time that its last answer named.
pub(crate) fn error(error: instant_acme::Error, retry_after: Option<Timestamp>) -> Error {
    let problem = match error {
        instant_acme::Error::Api(problem) if !is_temporary(&problem) => return Error::CaRefused(describe(&problem)),
        instant_acme::Error::Api(problem) => describe(&problem),
        instant_acme::Error::Unsupported(what) => {
            return Error::CaRefused(format!("the CA does not support what the inventory asks for: {what}"));
        }
        instant_acme::Error::Timeout(_) => "the CA did not finish the order in time".to_owned(),
        other => other.to_string(),
    };
    Error::CaUnavailable { problem, retry_after }
}

/// A whole problem document in words: type, detail, subproblems, and a hint for each of the usual
/// types.
pub(crate) fn describe(problem: &Problem) -> String {
    let mut text = detail(problem.detail.as_deref(), problem.r#type.as_deref());

    let mut hints = BTreeSet::from_iter(ProblemType::of(problem).hint());
    for sub in &problem.subproblems {
        text.push_str(&format!("\n  - {}", describe_sub(sub)));
        hints.extend(ProblemType::parse(sub.r#type.as_deref()).hint());
    }

    for hint in hints {
        text.push_str(&format!("\n  hint: {hint}"));
    }
    text
}

fn describe_sub(sub: &Subproblem) -> String {
    let detail = detail(sub.detail.as_deref(), sub.r#type.as_deref());
    match &sub.identifier {
        Some(identifier) => format!("{}: {detail}", printable(&identifier.authorized(false).to_string())),
        None => format!("no identifier: {detail}"),
    }
}

/// Made printable, because terminals and mail show it and another server wrote it.
fn detail(detail: Option<&str>, uri: Option<&str>) -> String {
    let detail = detail.unwrap_or("no detail");
    let uri = uri.unwrap_or("no type");
    printable(&format!("{detail} ({uri})"))
}

fn is_temporary(problem: &Problem) -> bool {
    let by_status = problem.status.is_some_and(|status| status >= 500 || status == 429);
    by_status || ProblemType::of(problem).is_temporary()
}

const NAMESPACE: &str = "urn:ietf:params:acme:error:";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// RFC 8555, 6.7.1.
    const COMPOUND: &str = r#"{"type": "urn:ietf:params:acme:error:malformed", "detail": "Some of the identifiers requested were rejected",
        "subproblems": [
          {"type": "urn:ietf:params:acme:error:malformed", "detail": "Invalid underscore in DNS name \"_example.org\"",
           "identifier": {"type": "dns", "value": "_example.org"}},
          {"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "This CA will not issue for \"example.net\"",
           "identifier": {"type": "dns", "value": "example.net"}}]}"#;

    #[test]
    fn a_problem_is_said_whole() {
        let problem = serde_json::from_str(COMPOUND).unwrap();
        let expected = "Some of the identifiers requested were rejected (urn:ietf:params:acme:error:malformed)\n\
            \x20 - _example.org: Invalid underscore in DNS name \"_example.org\" (urn:ietf:params:acme:error:malformed)\n\
            \x20 - example.net: This CA will not issue for \"example.net\" (urn:ietf:params:acme:error:rejectedIdentifier)\n\
            \x20 hint: the CA does not issue for this name: check its spelling, and whether it is a public name";
        assert_eq!(describe(&problem), expected);
    }

    #[test]
    fn only_the_issuers_fault_is_the_issuers() {
        for (kind, status, theirs) in [
            ("rateLimited", 429, true),
            ("serverInternal", 500, true),
            ("caa", 403, false),
            ("rejectedIdentifier", 400, false),
            ("dns", 400, false),
        ] {
            let problem =
                serde_json::from_value(json!({ "type": format!("{NAMESPACE}{kind}"), "status": status })).unwrap();
            assert_eq!(
                matches!(
                    error(instant_acme::Error::Api(problem), None),
                    Error::CaUnavailable { .. }
                ),
                theirs,
                "{kind}"
            );
        }
    }
}
