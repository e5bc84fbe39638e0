//! The table's data: endpoints and certificates as JSON for the page's script, each thing once.

use std::collections::HashMap;

use serde::Serialize;

use super::{ENDPOINTS, cut};
use crate::certificate::{Certificate, Role, common_name};
use crate::finding::{Code, Severity};
use crate::observation::{Observation, Revocation};
use crate::report::{EndpointReport, Merged, Report};

/// The JSON, safe inside a script element, and how many endpoints are in it: the first ones, which
/// are the worst.
pub(super) fn json(report: &Report) -> (String, usize) {
    let mut table = Table::default();
    let mut rows = String::new();
    let mut count = 0;

    for endpoint in report.endpoints.iter().take(ENDPOINTS) {
        let row = json_of(&table.row(endpoint));
        if rows.len() + row.len() + table.certificates.len() + table.words_size > BYTES {
            break;
        }
        if count > 0 {
            rows.push(',');
        }
        rows.push_str(&row);
        count += 1;
    }

    let made = report.finished_at.unix();
    let words = json_of(&table.words);
    let certificates = table.certificates;
    let json = format!(r#"{{"made":{made},"words":{words},"certificates":[{certificates}],"rows":[{rows}]}}"#);
    (json, count)
}

#[derive(Default)]
struct Table {
    words: Vec<String>,
    words_size: usize,
    words_at: HashMap<String, usize>,
    /// Their JSON, one after the other.
    certificates: String,
    certificates_at: HashMap<String, usize>,
}

#[derive(Serialize)]
struct Row {
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    unicode: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    quiet: bool,
    status: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaf: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<Finding>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    seen: Vec<AddressRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Finding {
    code: Code,
    severity: u8,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Vec<String>>,
}

#[derive(Serialize)]
struct AddressRow {
    address: String,
    /// Whether it is about the other certificate of an address that has a row already.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    other: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaf: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    chain: Vec<(usize, Role)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation: Option<usize>,
    ms: u64,
    #[serde(skip_serializing_if = "is_one")]
    tries: u32,
}

#[derive(Serialize)]
struct Leaf {
    subject: String,
    issuer: usize,
    /// The issuer in a few words.
    by: usize,
    serial: String,
    fingerprint: String,
    begin: i64,
    end: i64,
    names: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    more: usize,
    key: usize,
    signature: usize,
}

impl Table {
    fn row(&mut self, endpoint: &EndpointReport) -> Row {
        Row {
            endpoint: cut(&endpoint.endpoint),
            unicode: endpoint.unicode.as_deref().map(cut),
            quiet: endpoint.quiet,
            status: rank(endpoint.status),
            left: endpoint.left().map(|left| format!("{left:#}")),
            end: endpoint.not_after.map(|end| end.unix()),
            leaf: endpoint.leaf().map(|leaf| self.certificate(leaf)),
            findings: endpoint.merged().iter().map(finding).collect(),
            seen: endpoint.observations.iter().flat_map(|seen| self.seen(seen)).collect(),
            skipped: endpoint
                .skipped
                .iter()
                .map(|skipped| (skipped.address.to_string(), cut(&skipped.reason)))
                .collect(),
        }
    }

    /// What an address showed, with a row for each of its certificates.
    fn seen(&mut self, seen: &Observation) -> Vec<AddressRow> {
        let tls = seen.tls.as_ref().map(|tls| {
            let exchange = tls.key_exchange.as_ref().map(|name| format!(", {name}"));
            format!("{}, {}{}", tls.version, tls.cipher_suite, exchange.unwrap_or_default())
        });

        let first = AddressRow {
            address: seen.address.to_string(),
            other: false,
            leaf: seen.leaf.as_ref().map(|leaf| self.certificate(leaf)),
            chain: self.chain(&seen.issuers),
            tls: tls.map(|tls| self.word(&tls)),
            revocation: seen.revocation.as_ref().map(|state| self.word(&words(state))),
            ms: seen.elapsed_ms,
            tries: seen.tries,
        };

        let other = seen.other.as_deref().map(|other| AddressRow {
            address: seen.address.to_string(),
            other: true,
            leaf: Some(self.certificate(&other.leaf)),
            chain: self.chain(&other.issuers),
            tls: None,
            revocation: other.revocation.as_ref().map(|state| self.word(&words(state))),
            ms: seen.elapsed_ms,
            tries: 1,
        });
        std::iter::once(first).chain(other).collect()
    }

    fn chain(&mut self, issuers: &[Certificate]) -> Vec<(usize, Role)> {
        issuers
            .iter()
            .map(|issuer| (self.certificate(issuer), issuer.role))
            .collect()
    }

    fn certificate(&mut self, certificate: &Certificate) -> usize {
        if let Some(index) = self.certificates_at.get(&certificate.fingerprint) {
            return *index;
        }

        let leaf = Leaf {
            subject: cut(&certificate.subject),
            issuer: self.word(&certificate.issuer),
            by: self.word(&common_name(&certificate.issuer)),
            serial: cut(&certificate.serial),
            fingerprint: cut(&certificate.fingerprint),
            begin: certificate.not_before.unix(),
            end: certificate.not_after.unix(),
            names: certificate.names.iter().take(NAMES).map(|name| cut(name)).collect(),
            more: certificate.names.len().saturating_sub(NAMES),
            key: self.word(&certificate.key),
            signature: self.word(&certificate.signature),
        };

        if !self.certificates.is_empty() {
            self.certificates.push(',');
        }
        self.certificates.push_str(&json_of(&leaf));
        let index = self.certificates_at.len();
        self.certificates_at.insert(certificate.fingerprint.clone(), index);
        index
    }

    /// What is the same in many rows, by number.
    fn word(&mut self, word: &str) -> usize {
        let word = cut(word);
        if let Some(index) = self.words_at.get(&word) {
            return *index;
        }
        self.words_size += word.len() + 3;
        self.words.push(word.clone());
        self.words_at.insert(word, self.words.len() - 1);
        self.words.len() - 1
    }
}

fn finding(merged: &Merged<'_>) -> Finding {
    let addresses = merged.addresses.iter();
    Finding {
        code: merged.finding.kind.code().clone(),
        severity: rank(merged.finding.severity),
        message: cut(&merged.finding.message),
        at: merged
            .is_somewhere
            .then(|| addresses.map(ToString::to_string).collect()),
    }
}

fn words(state: &Revocation) -> String {
    match state {
        Revocation::Good => "not revoked, by a current list of its issuer".to_owned(),
        Revocation::Revoked => "revoked by its issuer".to_owned(),
        Revocation::Unknown { reason } => format!("unknown: {reason}"),
        Revocation::Skipped { reason } => format!("not checked: {reason}"),
    }
}

fn rank(status: Severity) -> u8 {
    match status {
        Severity::Ok => 0,
        Severity::Warning => 1,
        Severity::Unknown => 2,
        Severity::Critical => 3,
    }
}

/// Inside a script element nothing may look like markup.
fn json_of<T: Serialize>(value: &T) -> String {
    let json = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

fn is_one(tries: &u32) -> bool {
    *tries == 1
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A page that a phone opens.
const BYTES: usize = 8_000_000;
const NAMES: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_data_ends_the_script_element() {
        let json = json_of(&"</script><!--&");
        assert_eq!(json, r#""\u003c/script\u003e\u003c!--\u0026""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), "</script><!--&");
    }
}
