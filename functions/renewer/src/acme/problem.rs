//! What a CA answers instead (RFC 8555, 6.7): the problem's type, its text for people, and what it
//! means for a renewal.

use std::collections::BTreeSet;

use http::header::LINK;
use http::{HeaderMap, StatusCode};
use instant_acme::{Problem, Subproblem};
use neverlapse::text::{cut, printable};
use neverlapse::timestamp::Timestamp;

use serde_json::{Value, json};

use crate::error::Error;

/// Where in an order's life a CA answered: one type means different things at different steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The directory, a nonce, or the account.
    Account,
    /// The order, its authorizations and challenges.
    Order,
    /// What the CA found when it looked at a challenge.
    Validation,
    /// The certificate's request, and the certificate.
    Finalize,
    /// A revocation.
    Revocation,
}

/// What an answer means for the renewal. The next issuer is asked in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// The CA cannot answer now.
    Unavailable,
    /// The CA refuses. Another one may issue: each has its own accounts, terms, policies and
    /// look-ups.
    Declined,
}

/// The type of a problem (RFC 8555, 6.7; RFC 9773, 7.4; `invalidProfile` is of the ACME profiles
/// draft), as far as something depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProblemType {
    AccountDoesNotExist,
    AlreadyReplaced,
    AlreadyRevoked,
    BadCsr,
    BadNonce,
    Caa,
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
    Unauthorized,
    UserActionRequired,
    /// Another one.
    Other,
    /// None: not the CA answers, but something in front of it.
    Blank,
}

impl ProblemType {
    pub(crate) fn of(problem: &Problem) -> Self {
        Self::parse(problem.r#type.as_deref())
    }

    fn parse(uri: Option<&str>) -> Self {
        let Some(uri) = uri.filter(|uri| *uri != BLANK) else {
            return Self::Blank;
        };
        match uri.strip_prefix(NAMESPACE) {
            Some("accountDoesNotExist") => Self::AccountDoesNotExist,
            Some("alreadyReplaced") => Self::AlreadyReplaced,
            Some("alreadyRevoked") => Self::AlreadyRevoked,
            Some("badCSR") => Self::BadCsr,
            Some("badNonce") => Self::BadNonce,
            Some("caa") => Self::Caa,
            Some("dns") => Self::Dns,
            Some("externalAccountRequired") => Self::ExternalAccountRequired,
            Some("incorrectResponse") => Self::IncorrectResponse,
            Some("invalidContact" | "unsupportedContact") => Self::InvalidContact,
            Some("invalidProfile") => Self::InvalidProfile,
            Some("malformed") => Self::Malformed,
            Some("orderNotReady") => Self::OrderNotReady,
            Some("rateLimited") => Self::RateLimited,
            Some("rejectedIdentifier") => Self::RejectedIdentifier,
            Some("serverInternal") => Self::ServerInternal,
            Some("unauthorized") => Self::Unauthorized,
            Some("userActionRequired") => Self::UserActionRequired,
            _ => Self::Other,
        }
    }

    fn verdict(&self) -> Verdict {
        match self {
            Self::RateLimited | Self::ServerInternal | Self::BadNonce | Self::Blank => Verdict::Unavailable,
            _ => Verdict::Declined,
        }
    }

    /// What to do about it, where there is something that most people have to do.
    fn hint(&self, step: Step) -> Option<&'static str> {
        match self {
            Self::AccountDoesNotExist => Some(
                "the CA does not know our account: if it has forgotten it for good, delete accounts/ISSUER/account.json, and the next run makes one",
            ),
            Self::BadCsr => {
                Some("the CA does not take this kind of key or these names: check key_type and identifiers")
            }
            Self::Caa => Some("the domain's CAA records must name this CA; look with: dig CAA example.com"),
            Self::Dns if step == Step::Validation => Some(
                "the CA's look-up failed: check the delegation (NS at the registrar) and DNSSEC (DS must match the zone's keys)",
            ),
            Self::ExternalAccountRequired => {
                Some("set eab = true for this issuer and put accounts/ISSUER/eab.json into the bucket")
            }
            Self::IncorrectResponse => {
                Some("the CA saw another TXT value than ours: is the zone that we write the one that the world sees?")
            }
            Self::InvalidContact => Some("check `contact` of this issuer in the inventory"),
            Self::InvalidProfile => Some("the CA does not know this profile: check `profile` in the inventory"),
            Self::RateLimited => Some(
                "the CA's limits: https://letsencrypt.org/docs/rate-limits/; nothing is tried before the time that it named",
            ),
            Self::RejectedIdentifier => {
                Some("the CA does not issue for this name: check its spelling, and whether it is a public name")
            }
            Self::Unauthorized => match step {
                Step::Validation => Some(
                    "the CA saw another TXT value: is the public zone that we write the one that the domain is delegated to?",
                ),
                Step::Account | Step::Order => Some(
                    "the CA does not accept our account or its credentials: if the account is deactivated for good, delete accounts/ISSUER/account.json, and the next run makes one; with eab = true, put fresh credentials into accounts/ISSUER/eab.json first",
                ),
                Step::Finalize => Some(
                    "the CA does not let our account finish this order: its authorizations may have expired, or the account is deactivated; the next try orders anew",
                ),
                Step::Revocation => Some("the CA lets only the account that ordered a certificate revoke it"),
            },
            Self::UserActionRequired => Some(
                "the CA wants a person to do something, such as to agree to new terms: open the link in its message",
            ),
            Self::AlreadyReplaced
            | Self::AlreadyRevoked
            | Self::BadNonce
            | Self::Blank
            | Self::Dns
            | Self::Malformed
            | Self::OrderNotReady
            | Self::Other
            | Self::ServerInternal => None,
        }
    }
}

/// What an error of the library at this step means for a renewal: whether the CA declines or cannot
/// be used for now. `retry_after` is the time that its last answer named.
pub(crate) fn error(step: Step, error: instant_acme::Error, retry_after: Option<Timestamp>) -> Error {
    let problem = match error {
        instant_acme::Error::Api(problem) => {
            return of_verdict(verdict(&problem), describe(&problem, step), retry_after);
        }
        instant_acme::Error::Unsupported(what) => {
            return Error::CaDeclined(format!("the CA does not support what the inventory asks for: {what}"));
        }
        instant_acme::Error::Timeout(_) => "the CA did not finish the order in time".to_owned(),
        // The JSON library quotes what it cannot read, and the HTTP client the URL.
        other => cut(&printable(&other.to_string()), LONGEST),
    };
    Error::CaUnavailable { problem, retry_after }
}

/// The error for a verdict.
pub(crate) fn of_verdict(verdict: Verdict, problem: String, retry_after: Option<Timestamp>) -> Error {
    match verdict {
        Verdict::Unavailable => Error::CaUnavailable { problem, retry_after },
        Verdict::Declined => Error::CaDeclined(problem),
    }
}

/// Whether the CA refuses. HTTP's status decides first: a CA that is busy refuses nothing.
pub(crate) fn verdict(problem: &Problem) -> Verdict {
    if problem.status.is_some_and(|status| status >= 500 || status == 429) {
        return Verdict::Unavailable;
    }
    ProblemType::of(problem).verdict()
}

/// Whether an order was refused because it said which certificate it replaces (RFC 9773, 5), and
/// not for something that another order would meet too.
pub(crate) fn is_about_replaces(problem: &Problem) -> bool {
    match problem.status {
        Some(409) => return true,
        // A CA that stumbles over what is replaced would do so every night. Pebble does for one
        // serial number in 256. One that is out of order is asked once more, in vain.
        Some(500) => return ProblemType::of(problem) == ProblemType::ServerInternal,
        _ => {}
    }
    // `unauthorized` is what a CA answers when the certificate was issued to another account, which
    // is this order's fault alone. Where it is about our own account, the order without `replaces`
    // meets it again.
    let is_possible = matches!(
        ProblemType::of(problem),
        ProblemType::AlreadyReplaced | ProblemType::Malformed | ProblemType::Other | ProblemType::Unauthorized
    );
    is_possible && problem.subproblems.is_empty() && verdict(problem) == Verdict::Declined
}

/// Whether a CA that took no order would refuse any other one of ours as well: it is busy, or does
/// not accept our account. Limits of single names name them (RFC 8555, 6.7.1, or in their text),
/// and those of an account do not.
pub(crate) fn is_general(problem: &Problem, identifiers: &[String]) -> bool {
    let is_of_account = matches!(
        ProblemType::of(problem),
        ProblemType::AccountDoesNotExist
            | ProblemType::ExternalAccountRequired
            | ProblemType::Unauthorized
            | ProblemType::UserActionRequired
    );
    let is_named = problem.subproblems.iter().any(|sub| sub.identifier.is_some())
        || names_one_of(problem.detail.as_deref().unwrap_or_default(), identifiers);
    (is_of_account || verdict(problem) == Verdict::Unavailable) && !is_named
}

/// Whether a text names one of the identifiers, or a domain that one of them is in.
fn names_one_of(text: &str, identifiers: &[String]) -> bool {
    let text = text.to_ascii_lowercase();
    text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':')))
        .map(|word| word.trim_matches(['.', ':']))
        .filter(|word| word.contains(['.', ':']))
        .any(|word| {
            identifiers.iter().any(|identifier| {
                let name = identifier.trim_start_matches("*.");
                name == word || name.strip_suffix(word).is_some_and(|rest| rest.ends_with('.'))
            })
        })
}

/// An error's body as a problem document that the library reads (RFC 9457), whatever it is: HTTP's
/// status counts, links are in the text, and what is no problem document is shown by its start.
pub(crate) fn document(status: StatusCode, headers: &HeaderMap, body: &[u8], url: &str) -> String {
    let found: Value = serde_json::from_slice(body).unwrap_or_default();
    let kind = member(&found, "type").unwrap_or(BLANK);

    let mut detail = match member(&found, "detail") {
        Some(detail) => detail.to_owned(),
        None if kind != BLANK => member(&found, "title").unwrap_or("no detail").to_owned(),
        None => {
            let start = String::from_utf8_lossy(body);
            let start = start.split_whitespace().collect::<Vec<_>>().join(" ");
            match cut(&start, SHOWN).as_str() {
                "" => format!("HTTP {status} from {url}"),
                start => format!("HTTP {status}: {start}"),
            }
        }
    };
    if let Some(instance) = member(&found, "instance") {
        detail.push_str(&format!(" [instance: {instance}]"));
    }
    // A person may have to open them.
    for relation in SHOWN_LINKS {
        for target in links(headers, relation) {
            detail.push_str(&format!(" [{relation}: {target}]"));
        }
    }

    // One that the library cannot read must not hide the rest.
    let subproblems: Vec<_> = found
        .get("subproblems")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|sub| serde_json::from_value::<Subproblem>((*sub).clone()).is_ok())
        .collect();
    json!({ "type": kind, "detail": detail, "status": status.as_u16(), "subproblems": subproblems }).to_string()
}

/// A member of an object that is a text, and not empty.
fn member<'v>(object: &'v Value, name: &str) -> Option<&'v str> {
    object.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// The targets of the links of this relation (RFC 8288).
pub(super) fn links(headers: &HeaderMap, relation: &str) -> Vec<String> {
    let mut links = Vec::new();
    for header in headers.get_all(LINK) {
        let mut rest = header.to_str().unwrap_or_default();
        while let Some((target, after)) = rest.split_once('<').and_then(|(_, link)| link.split_once('>')) {
            let parameters = after.split('<').next().unwrap_or_default();
            rest = &after[parameters.len()..];

            let is_it = parameters
                .split([';', ','])
                .filter_map(|parameter| parameter.trim().strip_prefix("rel="))
                .any(|value| value.trim_matches('"').split_whitespace().any(|word| word == relation));
            if is_it {
                links.push(target.to_owned());
            }
        }
    }
    links
}

/// A problem document in words: type, detail, subproblems, and a hint for each of the usual types.
/// It is kept in the bucket, so what the CA said is cut to [`LONGEST`]; the hints stay.
pub(crate) fn describe(problem: &Problem, step: Step) -> String {
    let mut said = detail(problem.detail.as_deref(), problem.r#type.as_deref());

    let mut hints = BTreeSet::from_iter(ProblemType::of(problem).hint(step));
    for sub in &problem.subproblems {
        said.push_str(&format!("\n  - {}", describe_sub(sub)));
        hints.extend(ProblemType::parse(sub.r#type.as_deref()).hint(step));
    }

    let mut text = cut(&said, LONGEST);
    for hint in hints {
        text.push_str(&format!("\n  hint: {hint}"));
    }
    text
}

fn describe_sub(sub: &Subproblem) -> String {
    let detail = detail(sub.detail.as_deref(), sub.r#type.as_deref());
    match &sub.identifier {
        Some(identifier) => format!("{}: {detail}", part(&identifier.authorized(false).to_string())),
        None => format!("no identifier: {detail}"),
    }
}

fn detail(detail: Option<&str>, uri: Option<&str>) -> String {
    let detail = detail.unwrap_or("no detail");
    let uri = uri.unwrap_or("no type");
    format!("{} ({})", part(detail), part(uri))
}

/// One thing that a CA wrote, made printable and cut, because terminals and mail show it.
pub(super) fn part(text: &str) -> String {
    cut(&printable(text), LONGEST_PART)
}

const NAMESPACE: &str = "urn:ietf:params:acme:error:";
/// What a problem without a type of its own has (RFC 9457, 4.2.1).
const BLANK: &str = "about:blank";
/// Most characters of what a CA said about one thing, all parts together.
pub(super) const LONGEST: usize = 2_000;
const LONGEST_PART: usize = 1_000;
const SHOWN: usize = 200;
const SHOWN_LINKS: [&str; 2] = ["terms-of-service", "help"];

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
        assert_eq!(describe(&problem, Step::Order), expected);
    }

    /// A detail of a megabyte was kept whole, and the record was then too long to be read again.
    #[test]
    fn what_a_ca_says_is_cut_and_its_hint_is_not() {
        let long = "\u{7f}".repeat(1 << 20);
        let rejected = format!("{NAMESPACE}rejectedIdentifier");
        let sub =
            |text: &str| json!({ "type": rejected, "detail": text, "identifier": { "type": "dns", "value": text } });
        for problem in [
            json!({ "type": rejected, "detail": long }),
            json!({ "type": long, "detail": "no", "subproblems": [sub(&long)] }),
            json!({ "detail": "no", "subproblems": vec![sub("no"); 10_000] }),
        ] {
            let problem = serde_json::from_value(problem).unwrap();
            let text = describe(&problem, Step::Order);
            let (said, hint) = text.split_once("\n  hint: ").unwrap();
            assert!(said.chars().count() <= LONGEST + 1, "{}", said.len());
            assert!(hint.ends_with("whether it is a public name"), "{hint}");
        }
    }

    /// Parsers quote what they cannot read as it is.
    #[test]
    fn an_answer_that_cannot_be_read_is_quoted_in_part() {
        let status = json!("\u{1b}".repeat(1 << 20));
        let unread = serde_json::from_value::<instant_acme::OrderStatus>(status).unwrap_err();
        let text = error(Step::Order, unread.into(), None).to_string();
        assert!(
            text.contains("unknown variant `\\u{1b}\\u{1b}"),
            "{}",
            cut(&text, SHOWN)
        );
        assert!(text.chars().count() <= LONGEST + 1, "{}", text.len());
        assert!(!text.contains(char::is_control));
    }

    fn read(status: u16, headers: &HeaderMap, body: &str) -> Problem {
        let status = StatusCode::from_u16(status).unwrap();
        serde_json::from_str(&document(
            status,
            headers,
            body.as_bytes(),
            "https://ca.example/new-order",
        ))
        .unwrap()
    }

    #[test]
    fn https_status_decides_whatever_the_body_is() {
        for (status, body, verdict_of, words) in [
            (
                429,
                r#"{"message": "Too Many Requests"}"#,
                Verdict::Unavailable,
                r#"HTTP 429 Too Many Requests: {"message": "Too Many Requests"} (about:blank)"#,
            ),
            (
                429,
                r#"{"error": {"code": 429, "message": "Quota exceeded"}}"#,
                Verdict::Unavailable,
                "Quota exceeded",
            ),
            (
                503,
                r#"{"message": "Service Unavailable"}"#,
                Verdict::Unavailable,
                "HTTP 503 Service Unavailable: {",
            ),
            (
                500,
                r#"{"type": "about:blank", "title": "Internal Server Error"}"#,
                Verdict::Unavailable,
                "HTTP 500 Internal Server Error: {",
            ),
            (
                503,
                r#"{"type": "urn:ietf:params:acme:error:malformed", "detail": "backend is down"}"#,
                Verdict::Unavailable,
                "backend is down (urn",
            ),
            (
                429,
                r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many", "status": "429"}"#,
                Verdict::Unavailable,
                "too many (urn",
            ),
            (
                503,
                r#"{"type": "urn:ietf:params:acme:error:malformed", "status": 400}"#,
                Verdict::Unavailable,
                "no detail",
            ),
            (
                403,
                "<h1>Access denied | error\n 1020</h1>",
                Verdict::Unavailable,
                "HTTP 403 Forbidden: <h1>Access denied | error 1020</h1> (about:blank)",
            ),
            (401, r#"{"message": "Unauthorized"}"#, Verdict::Unavailable, "HTTP 401"),
            (
                502,
                "",
                Verdict::Unavailable,
                "HTTP 502 Bad Gateway from https://ca.example/new-order",
            ),
            (500, "[1, 2]", Verdict::Unavailable, "[1, 2]"),
            (
                500,
                r#"{"detail": ["no", "text"]}"#,
                Verdict::Unavailable,
                r#"{"detail": ["no", "text"]}"#,
            ),
            (
                400,
                r#"{"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "no", "subproblems": "none"}"#,
                Verdict::Declined,
                "no (urn",
            ),
            (
                400,
                r#"{"type": "https://ca.example/errors/7", "title": "seven"}"#,
                Verdict::Declined,
                "seven (https",
            ),
        ] {
            let problem = read(status, &HeaderMap::new(), body);
            let text = describe(&problem, Step::Order);
            assert_eq!(verdict(&problem), verdict_of, "{body}");
            assert!(text.contains(words), "{body}: {text}");
        }
    }

    #[test]
    fn links_that_a_person_has_to_open_are_shown() {
        let mut headers = HeaderMap::new();
        headers.append(
            LINK,
            r#"<https://ca.example/dir>;rel="index", <https://ca.example/tos,2.pdf>;rel="terms-of-service""#
                .parse()
                .unwrap(),
        );
        headers.append(LINK, "<https://ca.example/help>; rel=help".parse().unwrap());
        let body = r#"{"type": "urn:ietf:params:acme:error:userActionRequired", "detail": "Terms changed", "instance": "https://ca.example/agree?token=1"}"#;
        let problem = read(403, &headers, body);
        assert_eq!(
            problem.detail.as_deref(),
            Some(
                "Terms changed [instance: https://ca.example/agree?token=1] [terms-of-service: https://ca.example/tos,2.pdf] [help: https://ca.example/help]"
            )
        );
        assert_eq!(verdict(&problem), Verdict::Declined);
    }

    #[test]
    fn one_type_has_another_hint_at_another_step() {
        let deactivated = read(
            403,
            &HeaderMap::new(),
            r#"{"type": "urn:ietf:params:acme:error:unauthorized", "detail": "Account is deactivated"}"#,
        );
        assert!(describe(&deactivated, Step::Order).contains("delete accounts/ISSUER/account.json"));
        assert!(describe(&deactivated, Step::Validation).contains("another TXT value"));
    }

    #[test]
    fn only_a_ca_that_is_busy_is_asked_again_for_the_same_order() {
        for (kind, status, expected) in [
            ("rateLimited", 429, Verdict::Unavailable),
            ("rateLimited", 403, Verdict::Unavailable),
            ("serverInternal", 500, Verdict::Unavailable),
            ("serverInternal", 400, Verdict::Unavailable),
            ("malformed", 502, Verdict::Unavailable),
            ("malformed", 400, Verdict::Declined),
            ("caa", 403, Verdict::Declined),
            ("unauthorized", 403, Verdict::Declined),
            ("rejectedIdentifier", 400, Verdict::Declined),
            ("somethingNew", 400, Verdict::Declined),
        ] {
            let kind = format!("{NAMESPACE}{kind}");
            let problem = read(status, &HeaderMap::new(), &json!({ "type": kind }).to_string());
            assert_eq!(verdict(&problem), expected, "{kind} {status}");
        }
    }

    /// Let's Encrypt's words for its limits; each of the six certificates that were due had an
    /// alert of its own about the account's.
    #[test]
    fn a_limit_that_names_no_name_is_the_accounts() {
        for (kind, status, detail, expected) in [
            (
                "rateLimited",
                429,
                "too many new orders (300) from this account in the last 3h0m0s, retry after 2026-11-26 01:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/#new-orders-per-account",
                true,
            ),
            (
                "rateLimited",
                429,
                "too many certificates (50) already issued for \"example.com\" in the last 168h0m0s, retry after 2026-11-26 01:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/",
                false,
            ),
            (
                "rateLimited",
                429,
                "too many failed authorizations (5) for \"www.example.com\" in the last 1h0m0s",
                false,
            ),
            ("serverInternal", 500, "try again", true),
            ("unauthorized", 403, "Account is deactivated", true),
            ("rejectedIdentifier", 400, "this name is not public", false),
            ("malformed", 400, "too many names", false),
        ] {
            let problem = json!({ "type": format!("{NAMESPACE}{kind}"), "detail": detail });
            let problem = read(status, &HeaderMap::new(), &problem.to_string());
            let identifiers = ["*.www.example.com".to_owned(), "shop.example.com".to_owned()];
            assert_eq!(is_general(&problem, &identifiers), expected, "{detail}");
        }
        let compound = serde_json::from_str(COMPOUND).unwrap();
        assert!(!is_general(&compound, &[]));
    }

    #[test]
    fn replaces_is_dropped_only_for_what_it_caused() {
        for (kind, status, expected) in [
            ("alreadyReplaced", 409, true),
            ("conflict", 409, true),
            ("malformed", 400, true),
            ("malformed", 404, true),
            ("rateLimited", 429, false),
            ("serverInternal", 500, true),
            ("serverInternal", 503, false),
            ("unheardOf", 500, false),
            ("unauthorized", 403, true),
            ("accountDoesNotExist", 400, false),
            ("userActionRequired", 403, false),
            ("rejectedIdentifier", 400, false),
        ] {
            let problem = read(
                status,
                &HeaderMap::new(),
                &json!({ "type": format!("{NAMESPACE}{kind}") }).to_string(),
            );
            assert_eq!(is_about_replaces(&problem), expected, "{kind} {status}");
        }
        assert!(!is_about_replaces(&read(403, &HeaderMap::new(), "<h1>Forbidden</h1>")));
    }
}
