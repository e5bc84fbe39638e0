//! The table for people: worst first, the stages of each certificate below its name.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write};

use comfy_table::Cell;
use neverlapse::finding::{Finding, Kind, Severity, Span};
use neverlapse::report::{AddressReport, AddressStage, CertificateReport, Counts, InstanceReport, Left};
use neverlapse::text;

use super::overview::{self, Overview};
use super::served::SeenBy;
use crate::cell::{self, cut};
use crate::check::table::Table as Endpoints;
use crate::terminal::{self, Terminal};

/// What is shown of an overview.
pub(super) struct Table {
    rows: Vec<Row>,
    endpoints: Endpoints,
    sentences: Vec<String>,
}

struct Row {
    status: Severity,
    time_left: String,
    lines: Vec<String>,
}

impl Table {
    pub(super) fn of(overview: &Overview) -> Self {
        let mut certificates: Vec<_> = overview.certificates.iter().collect();
        certificates.sort_by_key(|certificate| {
            (
                Reverse(overview::status(certificate, overview.now)),
                certificate.not_after(),
                certificate.name.as_str(),
            )
        });

        let mut endpoints = Endpoints::default();
        for endpoint in overview.watched() {
            endpoints.add(endpoint);
        }

        Self {
            rows: certificates
                .iter()
                .map(|certificate| row(overview, certificate))
                .collect(),
            endpoints,
            sentences: totals(overview).into_iter().chain([age(overview)]).collect(),
        }
    }

    pub(super) fn print(&self, out: &mut impl Write, terminal: Terminal) -> io::Result<()> {
        let mut grid = terminal.grid(["STATUS", "TIME LEFT", "CERTIFICATE AND PROGRESS"]);
        for row in &self.rows {
            grid.add_row([
                cell::status(row.status),
                Cell::new(&row.time_left),
                Cell::new(row.lines.join("\n")),
            ]);
        }

        terminal::print(grid, out)?;
        self.endpoints.print_rows(out, terminal)?;
        self.sentences
            .iter()
            .try_for_each(|sentence| writeln!(out, "{sentence}"))
    }
}

fn row(overview: &Overview, certificate: &CertificateReport) -> Row {
    let status = overview::status(certificate, overview.now);
    let left = certificate.not_after().map(|not_after| Left(not_after - overview.now));

    let mut lines = vec![name(certificate)];
    lines.extend(certificate.findings.iter().map(|finding| line(finding, status)));
    lines.push(version(certificate));
    lines.extend(instances(certificate));
    lines.extend(addresses(certificate));
    let decision = overview.decisions.iter().find(|(name, _)| *name == certificate.name);
    lines.extend(decision.map(|(_, decision)| format!("renewal {}", cut(&decision.to_string()))));

    Row {
        status,
        time_left: cell::time_left(left, certificate.not_after()),
        lines,
    }
}

fn name(certificate: &CertificateReport) -> String {
    if certificate.identifiers == [certificate.name.clone()] {
        return cut(&certificate.name);
    }
    cut(&format!(
        "{} (for {})",
        certificate.name,
        certificate.identifiers.join(", ")
    ))
}

/// A finding, with its severity where that is not the certificate's status.
fn line(finding: &Finding, status: Severity) -> String {
    let message = match &finding.kind {
        // What the address serves instead is shown below, without 64 digits of a fingerprint.
        Kind::WrongCertificate { endpoint, address, .. } => {
            format!("{address} serves a different certificate for {endpoint} than the current version")
        }
        _ => finding.message.clone(),
    };
    let severity = if finding.severity == status {
        String::new()
    } else {
        format!("{}: ", finding.severity)
    };
    format!("- {severity}{}", cut(&message))
}

fn version(certificate: &CertificateReport) -> String {
    let kept = match certificate.history.len() {
        0 | 1 => String::new(),
        kept => format!(", {kept} versions kept"),
    };
    match &certificate.current {
        Some(current) => cut(&format!("version {} from {}{kept}", current.version, current.issuer)),
        None => "no version yet".to_owned(),
    }
}

/// How many instances are at which stage, then each of them, those that are behind first.
fn instances(certificate: &CertificateReport) -> Vec<String> {
    let mut sorted: Vec<_> = certificate.instances.iter().collect();
    sorted.sort_by_key(|instance| (instance.stage, instance.instance.as_str()));
    if sorted.is_empty() {
        return vec!["no instance has reported".to_owned()];
    }

    let stages = counted(sorted.iter().map(|instance| instance.stage));
    let noun = if sorted.len() == 1 { "instance" } else { "instances" };
    let mut lines = vec![format!("{} {noun}: {stages}", sorted.len())];
    lines.extend(sorted.iter().take(LISTED).map(|found| instance(found, certificate)));
    lines.extend(more(sorted.len()));
    lines
}

fn instance(instance: &InstanceReport, certificate: &CertificateReport) -> String {
    let mut text = instance.shown().to_owned();
    if let Some(host) = instance.host.as_deref().filter(|host| *host != instance.shown()) {
        text.push_str(&format!(" ({host})"));
    }
    if let Some(at) = instance.at {
        text.push_str(&format!(" since {at}"));
    }
    if let Some(version) = &instance.version
        && instance.version.as_deref() != certificate.version()
    {
        text.push_str(&format!(", has {version}"));
    }
    format!("· {:<11} {}", instance.stage, cut(&text))
}

/// How many addresses are at which stage, then each of them, those that are behind first.
fn addresses(certificate: &CertificateReport) -> Vec<String> {
    let mut sorted: Vec<_> = certificate.addresses.iter().collect();
    sorted.sort_by_key(|seen| (seen.stage, seen.endpoint.as_str(), seen.address));
    if sorted.is_empty() {
        return vec!["no address is checked".to_owned()];
    }

    let stages = counted(sorted.iter().map(|seen| seen.stage));
    let noun = if sorted.len() == 1 { "address" } else { "addresses" };
    let mut lines = vec![format!("{} {noun}: {stages}", sorted.len())];
    lines.extend(sorted.iter().take(LISTED).map(|seen| address(seen)));
    lines.extend(more(sorted.len()));
    lines
}

fn address(seen: &AddressReport) -> String {
    let place = match seen.address {
        Some(address) => format!("{address} for {}", seen.endpoint),
        None => seen.endpoint.clone(),
    };

    let shown = match (seen.stage, &seen.version, &seen.fingerprint, seen.not_after) {
        (AddressStage::Served, ..) => String::new(),
        (_, Some(version), _, Some(not_after)) => format!(" serves version {version}, valid until {not_after}"),
        (_, None, Some(fingerprint), Some(not_after)) => {
            let begin = fingerprint.get(..12).unwrap_or_default();
            format!(" serves a certificate that is not from here, valid until {not_after} (SHA-256 {begin}…)")
        }
        _ => String::new(),
    };

    let reason = match &seen.reason {
        Some(reason) => format!(": {reason}"),
        None => String::new(),
    };
    format!("· {:<11} {}", seen.stage, cut(&format!("{place}{shown}{reason}")))
}

/// How many are not listed, of this many.
fn more(all: usize) -> Option<String> {
    match all.saturating_sub(LISTED) {
        0 => None,
        left_out => Some(format!(
            "· +{left_out} more, none of them less far (--format json has them all)"
        )),
    }
}

/// `1 failed, 2 served`, in the order of the stages.
fn counted<S: Ord + Display>(stages: impl Iterator<Item = S>) -> String {
    let mut counts = BTreeMap::<S, usize>::new();
    for stage in stages {
        *counts.entry(stage).or_default() += 1;
    }
    let each: Vec<_> = counts.iter().map(|(stage, count)| format!("{count} {stage}")).collect();
    each.join(", ")
}

/// How many certificates and endpoints there are, by status.
fn totals(overview: &Overview) -> Vec<String> {
    let mut certificates = Counts::default();
    for certificate in &overview.certificates {
        certificates.add(overview::status(certificate, overview.now));
    }
    let mut endpoints = Counts::default();
    for endpoint in overview.watched() {
        endpoints.add(endpoint.status);
    }

    let problems = match overview.problems.len() {
        0 => String::new(),
        some => format!(", {some} not understood"),
    };
    let noun = text::counted(certificates.total(), "certificate", "certificates");
    let mut totals = vec![format!("{noun}: {certificates}{problems}")];
    if overview.is_everything {
        let noun = text::counted(endpoints.total(), "endpoint", "endpoints");
        totals.push(format!("{noun}: {endpoints}"));
    }
    totals
}

/// When the addresses were seen.
fn age(overview: &Overview) -> String {
    match overview.served.by {
        SeenBy::Here => "endpoints as seen now, from here".to_owned(),
        SeenBy::Probe(at) => format!(
            "endpoints as the probe saw them {} ago, on {at}",
            Span(overview.now - at)
        ),
        SeenBy::Nobody => "endpoints have not been checked yet".to_owned(),
    }
}

/// Instances, and addresses, of one certificate.
const LISTED: usize = 20;

#[cfg(test)]
mod tests {
    use neverlapse::renewal::Decision;
    use neverlapse::timestamp;
    use neverlapse::timestamp::Timestamp;
    use serde_json::{Value, json};

    use super::super::served::Served;
    use super::*;

    const NOW: Timestamp = timestamp!(2026-10-10 00:00 UTC);

    fn overview(certificates: Value, by: SeenBy) -> Overview {
        let next = timestamp!(2026-12-08 00:00 UTC);
        Overview {
            certificates: serde_json::from_value(certificates).unwrap(),
            decisions: vec![("shop.test".to_owned(), Decision::NotDue { next })],
            problems: Vec::new(),
            served: Served {
                endpoints: Vec::new(),
                by,
            },
            is_everything: false,
            probe_period: time::Duration::hours(26),
            began: NOW,
            now: NOW,
        }
    }

    fn shop() -> Value {
        json!({"name": "shop.test", "status": "warning", "identifiers": ["shop.test", "*.shop.test"], "issuer": "letsencrypt",
            "version": "new", "fingerprint": "aa", "not_before": "2026-10-08T00:00:00Z", "not_after": "2027-01-06T00:00:00Z",
            "history": [
                {"version": "new", "not_before": "2026-10-08T00:00:00Z", "not_after": "2027-01-06T00:00:00Z", "issuer": "x", "current": true},
                {"version": "old", "not_before": "2026-08-01T00:00:00Z", "not_after": "2026-10-30T00:00:00Z", "issuer": "x"}],
            "instances": [
                {"instance": "AROA:i-1", "host": "web-1", "version": "new", "stage": "served", "at": "2026-10-08T01:00:00Z"},
                {"instance": "AROA:i-2", "host": "web-2", "version": "old", "stage": "failed", "at": "2026-10-08T02:00:00Z"},
                {"instance": "web-3", "host": "web-3", "version": "new", "stage": "served"}],
            "addresses": [
                {"endpoint": "shop.test:443", "address": "192.0.2.1:443", "stage": "served", "fingerprint": "aa"},
                {"endpoint": "shop.test:443", "address": "192.0.2.2:443", "stage": "another", "fingerprint": "bb", "version": "old",
                    "not_after": "2026-10-30T00:00:00Z"},
                {"endpoint": "shop.test:443", "address": "192.0.2.3:443", "stage": "another", "fingerprint": "cccccccccccccccc",
                    "not_after": "2026-10-30T00:00:00Z"}],
            "findings": [{"code": "install_failed", "severity": "warning", "instance": "AROA:i-2", "host": "web-2", "version": "new",
                "fingerprint": "aa", "not_after": "2027-01-06T00:00:00Z", "reason": "no", "since": "2026-10-08T02:00:00Z",
                "message": "i-2 (web-2) could not install it: no"}]})
    }

    fn expired() -> Value {
        json!({"name": "lapsed.test", "status": "critical", "identifiers": ["lapsed.test"], "issuer": "letsencrypt", "version": "v",
            "fingerprint": "aa", "not_before": "2026-07-10T00:00:00Z", "not_after": "2026-10-08T00:00:00Z", "findings": [
                {"code": "expired", "severity": "critical", "not_after": "2026-10-08T00:00:00Z", "message": "expired 2 d ago"}]})
    }

    fn print(overview: &Overview, terminal: Terminal) -> String {
        let mut out = Vec::new();
        Table::of(overview).print(&mut out, terminal).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_worst_comes_first_and_who_is_behind_before_the_others() {
        let overview = overview(
            json!([shop(), expired()]),
            SeenBy::Probe(NOW - time::Duration::hours(3)),
        );
        let page = print(&overview, Terminal::default());
        let lines: Vec<_> = page
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('─') && !line.starts_with('═'))
            .collect();
        let expected = [
            " STATUS     TIME LEFT    CERTIFICATE AND PROGRESS",
            " critical   2 d ago      lapsed.test",
            "            2026-10-08   - expired 2 d ago",
            "                         version v from letsencrypt",
            "                         no instance has reported",
            "                         no address is checked",
            " warning    88 d         shop.test (for shop.test, *.shop.test)",
            "            2027-01-06   - i-2 (web-2) could not install it: no",
            "                         version new from letsencrypt, 2 versions kept",
            "                         3 instances: 1 failed, 2 served",
            "                         · failed      i-2 (web-2) since 2026-10-08 02:00 UTC, has old",
            "                         · served      i-1 (web-1) since 2026-10-08 01:00 UTC",
            "                         · served      web-3",
            "                         3 addresses: 2 different, 1 served",
            "                         · different   192.0.2.2:443 for shop.test:443 serves version old, valid until 2026-10-30 00:00 UTC",
            "                         · different   192.0.2.3:443 for shop.test:443 serves a certificate that is not from here, valid until 2026-10-30 00:00 UTC (SHA-256 cccccccccccc…)",
            "                         · served      192.0.2.1:443 for shop.test:443",
            "                         renewal not due before 2026-12-08 00:00 UTC",
            "2 certificates: 1 critical, 0 unknown, 1 warning, 0 ok",
            "endpoints as the probe saw them 3 h ago, on 2026-10-09 21:00 UTC",
        ];
        assert_eq!(lines, expected, "{page}");
        assert_eq!(overview.status(), Severity::Critical);
    }

    #[test]
    fn what_nobody_saw_is_unknown() {
        let mut unseen = shop();
        unseen["findings"] = json!([]);
        unseen["status"] = json!("ok");
        for (stage, seen, expected) in [
            ("served", SeenBy::Here, Severity::Ok),
            ("another", SeenBy::Here, Severity::Ok),
            ("unseen", SeenBy::Here, Severity::Unknown),
            ("served", SeenBy::Probe(NOW - time::Duration::hours(25)), Severity::Ok),
            (
                "served",
                SeenBy::Probe(NOW - time::Duration::hours(27)),
                Severity::Unknown,
            ),
        ] {
            for address in unseen["addresses"].as_array_mut().unwrap() {
                address["stage"] = json!(stage);
            }
            assert_eq!(overview(json!([unseen]), seen).status(), expected, "{stage} {seen:?}");
        }
    }

    #[test]
    fn a_narrow_terminal_is_not_overrun_and_nothing_moves_its_cursor() {
        let mut hostile = shop();
        hostile["instances"][1]["host"] = json!("\u{1b}[2J\u{202e}");
        hostile["addresses"][1]["endpoint"] = json!("\u{1b}[2J");
        for width in [60, 80, 120] {
            let terminal = Terminal {
                width: Some(width),
                colors: false,
            };
            let page = print(&overview(json!([hostile, expired()]), SeenBy::Nobody), terminal);
            let widest = page.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width.into()), "{page}");
            assert!(
                page.chars()
                    .all(|c| c == '\n' || c == '\\' || c.escape_debug().len() == 1)
            );
        }
    }

    #[test]
    fn of_many_instances_those_that_are_behind_are_shown() {
        let mut shop = shop();
        let many = (0..500).map(|n| {
            let stage = if n == 321 { "pulled" } else { "served" };
            json!({"instance": format!("i-{n:03}"), "host": "h", "version": "new", "stage": stage})
        });
        shop["instances"] = many.collect();
        let page = print(&overview(json!([shop]), SeenBy::Here), Terminal::default());
        assert!(page.contains("500 instances: 1 pulled, 499 served"), "{page}");
        assert!(page.contains("· pulled      i-321 (h)\n"), "{page}");
        assert!(page.contains("+480 more"), "{page}");
    }
}
