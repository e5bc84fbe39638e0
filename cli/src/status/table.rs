//! The table for people: worst first, the stages of each certificate below its name.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, Write};

use comfy_table::Cell;
use neverlapse::finding::{Finding, Kind, Severity, Span};
use neverlapse::report::{AddressReport, AddressStage, CertificateReport, Counts, InstanceReport, Stage};

use super::{Seen, Status, verdict};
use crate::table::{cut, left, status_cell};
use crate::terminal::Terminal;

/// What is shown of a status.
pub(super) struct Table {
    rows: Vec<Row>,
    sentences: Vec<String>,
}

struct Row {
    status: Severity,
    left: String,
    lines: Vec<String>,
}

impl Table {
    pub(super) fn of(status: &Status) -> Self {
        let mut certificates: Vec<_> = status.certificates.iter().collect();
        certificates.sort_by_key(|certificate| {
            (
                Reverse(verdict(certificate, status.now)),
                certificate.not_after,
                certificate.name.as_str(),
            )
        });
        Self {
            rows: certificates
                .iter()
                .map(|certificate| row(status, certificate))
                .collect(),
            sentences: sentences(status),
        }
    }

    pub(super) fn print(&self, out: &mut impl Write, terminal: Terminal) -> io::Result<()> {
        let mut grid = terminal.grid();
        grid.set_header(["STATUS", "TIME LEFT", "CERTIFICATE, AND HOW FAR IT IS"]);
        for row in &self.rows {
            grid.add_row([
                status_cell(row.status),
                Cell::new(&row.left),
                Cell::new(row.lines.join("\n")),
            ]);
        }
        Terminal::wrap_last(&mut grid);
        writeln!(out, "{}", grid.trim_fmt())?;
        self.sentences
            .iter()
            .try_for_each(|sentence| writeln!(out, "{sentence}"))
    }
}

fn row(status: &Status, certificate: &CertificateReport) -> Row {
    let verdict = verdict(certificate, status.now);
    let seconds = certificate.not_after.map(|end| (end - status.now).whole_seconds());
    let mut lines = vec![name(certificate)];
    lines.extend(certificate.findings.iter().map(|finding| {
        let milder = match finding.severity == verdict {
            true => String::new(),
            false => format!("{}: ", finding.severity),
        };
        format!("- {milder}{}", cut(&words_of(finding)))
    }));
    lines.push(version(certificate));
    lines.extend(instances(certificate));
    lines.extend(addresses(certificate));
    let decision = status.decisions.iter().find(|(name, _)| *name == certificate.name);
    lines.extend(decision.map(|(_, decision)| format!("renewal {}", cut(&decision.to_string()))));
    Row {
        status: verdict,
        left: left(seconds, certificate.not_after),
        lines,
    }
}

/// What an address shows instead stands below, without sixty-four digits of a fingerprint.
fn words_of(finding: &Finding) -> String {
    match &finding.kind {
        Kind::WrongCertificate { endpoint, address, .. } => {
            format!("{address} serves another certificate for {endpoint} than the current one")
        }
        _ => finding.message.clone(),
    }
}

fn name(certificate: &CertificateReport) -> String {
    match certificate.identifiers == [certificate.name.clone()] {
        true => cut(&certificate.name),
        false => cut(&format!(
            "{} (for {})",
            certificate.name,
            certificate.identifiers.join(", ")
        )),
    }
}

fn version(certificate: &CertificateReport) -> String {
    let kept = match certificate.history.len() {
        0 | 1 => String::new(),
        kept => format!(", {kept} versions kept"),
    };
    match (&certificate.version, &certificate.issuer) {
        (Some(version), Some(issuer)) => cut(&format!("version {version} from {issuer}{kept}")),
        _ => "no version is known".to_owned(),
    }
}

/// How many are at which stage, then each of them, those that are behind first.
fn instances(certificate: &CertificateReport) -> Vec<String> {
    let mut sorted: Vec<_> = certificate.instances.iter().collect();
    sorted.sort_by_key(|instance| (instance.stage, instance.instance.as_str()));
    let one = |instance: &&InstanceReport| {
        let host = instance.host.as_deref().filter(|host| *host != instance.shown());
        let host = host.map_or_else(String::new, |host| format!(" ({host})"));
        let since = instance.at.map_or_else(String::new, |at| format!(" since {}", at));
        let other = instance
            .version
            .as_ref()
            .filter(|_| instance.version != certificate.version);
        let behind = other.map_or_else(String::new, |version| format!(", has {version}"));
        format!(
            "· {:<11} {}",
            words(instance.stage),
            cut(&format!("{}{host}{since}{behind}", instance.shown()))
        )
    };
    let counted = counted(sorted.iter().map(|instance| words(instance.stage)));
    block(sorted.len(), "instance", "instances", counted, sorted.iter().map(one))
}

fn addresses(certificate: &CertificateReport) -> Vec<String> {
    let mut sorted: Vec<_> = certificate.addresses.iter().collect();
    sorted.sort_by_key(|seen| (seen.stage, seen.endpoint.as_str(), seen.address));
    let one = |seen: &&AddressReport| {
        let place = match seen.address {
            Some(address) => format!("{address} for {}", seen.endpoint),
            None => seen.endpoint.clone(),
        };
        let shown = match (seen.stage, &seen.version, &seen.fingerprint, seen.not_after) {
            (AddressStage::Served, ..) => String::new(),
            (_, Some(version), _, Some(end)) => format!(" shows version {version}, until {}", end),
            (_, None, Some(fingerprint), Some(end)) => {
                format!(
                    " shows one that is none of ours, {}, until {}",
                    fingerprint.get(..12).unwrap_or_default(),
                    end
                )
            }
            _ => String::new(),
        };
        let reason = seen
            .reason
            .as_deref()
            .map_or_else(String::new, |reason| format!(": {reason}"));
        format!(
            "· {:<11} {}",
            on_the_wire(seen.stage),
            cut(&format!("{place}{shown}{reason}"))
        )
    };
    let counted = counted(sorted.iter().map(|seen| on_the_wire(seen.stage)));
    block(sorted.len(), "address", "addresses", counted, sorted.iter().map(one))
}

fn block(all: usize, one: &str, more: &str, counted: String, lines: impl Iterator<Item = String>) -> Vec<String> {
    if all == 0 {
        return match one {
            "instance" => vec!["no instance has reported".to_owned()],
            _ => vec!["served nowhere that is watched".to_owned()],
        };
    }
    let mut block = vec![format!("{all} {}: {counted}", if all == 1 { one } else { more })];
    block.extend(lines.take(LISTED));
    match all.saturating_sub(LISTED) {
        0 => {}
        left_out => block.push(format!(
            "· +{left_out} more, none of them behind these (--format json has them all)"
        )),
    }
    block
}

/// `1 failed, 2 served`, in the order in which they come.
fn counted(stages: impl Iterator<Item = &'static str>) -> String {
    let (mut order, mut counts) = (Vec::new(), BTreeMap::new());
    for stage in stages {
        if *counts.entry(stage).and_modify(|count| *count += 1).or_insert(1) == 1 {
            order.push(stage);
        }
    }
    let each: Vec<_> = order.iter().map(|stage| format!("{} {stage}", counts[stage])).collect();
    each.join(", ")
}

fn words(stage: Stage) -> &'static str {
    match stage {
        Stage::Failed => "failed",
        Stage::Issued => "not pulled",
        Stage::Pulled => "pulled",
        Stage::Installed => "installed",
        Stage::Served => "served",
    }
}

fn on_the_wire(stage: AddressStage) -> &'static str {
    match stage {
        AddressStage::Another => "another",
        AddressStage::Unseen => "not seen",
        AddressStage::Served => "served",
    }
}

fn sentences(status: &Status) -> Vec<String> {
    let mut counts = Counts::default();
    status
        .certificates
        .iter()
        .for_each(|certificate| counts.add(verdict(certificate, status.now)));
    let noun = if counts.total() == 1 {
        "certificate"
    } else {
        "certificates"
    };
    let mistakes = match status.mistakes.len() {
        0 => String::new(),
        some => format!(", {some} not understood"),
    };
    let counted = format!(
        "{} {noun}: {} critical, {} unknown, {} warning, {} ok{mistakes}",
        counts.total(),
        counts.critical,
        counts.unknown,
        counts.warning,
        counts.ok
    );
    let seen = match status.wire.seen {
        Seen::Here => "addresses as seen now, from here".to_owned(),
        Seen::ByProbe(at) => format!(
            "addresses as the probe saw them {} ago, on {}",
            Span(status.now - at),
            at
        ),
        Seen::Never => "addresses have not been looked at".to_owned(),
    };
    vec![counted, seen]
}

/// Instances, and addresses, of one certificate.
const LISTED: usize = 20;

#[cfg(test)]
mod tests {
    use super::super::Wire;
    use super::*;
    use neverlapse::renewal::Decision;
    use neverlapse::timestamp;
    use neverlapse::timestamp::Timestamp;
    use serde_json::{Value, json};

    const NOW: Timestamp = timestamp!(2026-10-10 00:00 UTC);

    fn status(certificates: Value, seen: Seen) -> Status {
        let next = timestamp!(2026-12-08 00:00 UTC);
        Status {
            certificates: serde_json::from_value(certificates).unwrap(),
            decisions: vec![("shop.test".to_owned(), Decision::NotDue { next })],
            mistakes: Vec::new(),
            wire: Wire {
                endpoints: Vec::new(),
                seen,
            },
            old_after: time::Duration::hours(26),
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

    fn lapsed() -> Value {
        json!({"name": "lapsed.test", "status": "critical", "identifiers": ["lapsed.test"], "issuer": "letsencrypt", "version": "v",
            "not_after": "2026-10-08T00:00:00Z", "findings": [
                {"code": "expired", "severity": "critical", "not_after": "2026-10-08T00:00:00Z", "message": "expired 2 d ago"}]})
    }

    fn print(status: &Status, terminal: Terminal) -> String {
        let mut out = Vec::new();
        Table::of(status).print(&mut out, terminal).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_worst_comes_first_and_who_is_behind_before_the_others() {
        let status = status(json!([shop(), lapsed()]), Seen::ByProbe(NOW - time::Duration::hours(3)));
        let page = print(&status, Terminal::default());
        let lines: Vec<_> = page
            .lines()
            .filter(|line| !line.starts_with('─') && !line.starts_with('═'))
            .collect();
        let expected = [
            " STATUS     TIME LEFT    CERTIFICATE, AND HOW FAR IT IS",
            " critical   2 d ago      lapsed.test",
            "            2026-10-08   - expired 2 d ago",
            "                         version v from letsencrypt",
            "                         no instance has reported",
            "                         served nowhere that is watched",
            " warning    88 d         shop.test (for shop.test, *.shop.test)",
            "            2027-01-06   - i-2 (web-2) could not install it: no",
            "                         version new from letsencrypt, 2 versions kept",
            "                         3 instances: 1 failed, 2 served",
            "                         · failed      i-2 (web-2) since 2026-10-08T02:00:00Z, has old",
            "                         · served      i-1 (web-1) since 2026-10-08T01:00:00Z",
            "                         · served      web-3",
            "                         3 addresses: 2 another, 1 served",
            "                         · another     192.0.2.2:443 for shop.test:443 shows version old, until 2026-10-30T00:00:00Z",
            "                         · another     192.0.2.3:443 for shop.test:443 shows one that is none of ours, cccccccccccc, until 2026-10-30T00:00:00Z",
            "                         · served      192.0.2.1:443 for shop.test:443",
            "                         renewal not due before 2026-12-08T00:00:00Z",
            "2 certificates: 1 critical, 0 unknown, 1 warning, 0 ok",
            "addresses as the probe saw them 3 h ago, on 2026-10-09T21:00:00Z",
        ];
        assert_eq!(lines, expected, "{page}");
        assert_eq!(status.verdict(), Severity::Critical);
    }

    #[test]
    fn what_nobody_saw_is_unknown() {
        let mut unseen = shop();
        unseen["findings"] = json!([]);
        unseen["status"] = json!("ok");
        let served = |certificate: &mut Value, stage: &str| {
            for seen in certificate["addresses"].as_array_mut().unwrap() {
                seen["stage"] = json!(stage);
            }
        };
        let hours = time::Duration::hours;
        for (stage, seen, expected) in [
            ("served", Seen::Here, Severity::Ok),
            ("another", Seen::Here, Severity::Ok),
            ("unseen", Seen::Here, Severity::Unknown),
            ("served", Seen::ByProbe(NOW - hours(25)), Severity::Ok),
            ("served", Seen::ByProbe(NOW - hours(27)), Severity::Unknown),
        ] {
            served(&mut unseen, stage);
            assert_eq!(status(json!([unseen]), seen).verdict(), expected, "{stage} {seen:?}");
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
            let page = print(&status(json!([hostile, lapsed()]), Seen::Never), terminal);
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
        let page = print(&status(json!([shop]), Seen::Here), Terminal::default());
        assert!(page.contains("500 instances: 1 pulled, 499 served"), "{page}");
        assert!(page.contains("· pulled      i-321 (h)\n"), "{page}");
        assert!(page.contains("+480 more"), "{page}");
    }
}
