//! The table for people: worst first, every finding readable.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use comfy_table::Cell;
use neverlapse::certificate::Certificate;
use neverlapse::finding::Severity;
use neverlapse::observation::{Observation, Revocation};
use neverlapse::report::{EndpointReport, Left, Merged};
use neverlapse::text::{printable, some_of};
use neverlapse::timestamp::Timestamp;

use super::summary::Summary;
use crate::cell::{self, cut};
use crate::terminal::{self, Terminal};

/// The worst endpoints so far, as text; the others are only counted.
#[derive(Default)]
pub(crate) struct Table {
    worst: BTreeMap<Rank, Row>,
    seen: u64,
    /// How many endpoints have addresses that were left out because there is no IPv6 here.
    without_ipv6: u64,
}

/// Where an endpoint stands in the table: status, worst first; seconds left; name. The number
/// tells apart an endpoint that was given twice.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    status: Reverse<Severity>,
    seconds_left: i64,
    endpoint: String,
    number: u64,
}

struct Row {
    unicode: Option<String>,
    left: Option<Left>,
    not_after: Option<Timestamp>,
    lines: Vec<String>,
}

impl Table {
    /// Keeps an endpoint if it is among the worst.
    pub(crate) fn add(&mut self, report: &EndpointReport) {
        let rank = Rank {
            status: Reverse(report.status),
            seconds_left: report.seconds_left.unwrap_or(i64::MAX),
            endpoint: report.endpoint.clone(),
            number: self.seen,
        };
        self.seen += 1;
        self.without_ipv6 += u64::from(report.skipped.iter().any(|skipped| skipped.no_ipv6));
        // A row costs more than a rank, so that of a mild endpoint is not even made.
        if self.worst.len() == ROWS && self.worst.last_key_value().is_some_and(|(mildest, _)| *mildest < rank) {
            return;
        }

        let row = Row {
            unicode: report.unicode.as_deref().map(printable),
            left: report.left(),
            not_after: report.not_after,
            lines: lines(report),
        };
        self.worst.insert(rank, row);
        if self.worst.len() > ROWS {
            self.worst.pop_last();
        }
    }

    pub(super) fn print(&self, out: &mut impl Write, terminal: Terminal, summary: &Summary) -> io::Result<()> {
        self.print_rows(out, terminal)?;
        writeln!(out, "{}", sentence(summary))
    }

    /// The rows alone, without what sums them up.
    pub(crate) fn print_rows(&self, out: &mut impl Write, terminal: Terminal) -> io::Result<()> {
        let mut grid = terminal.grid(["STATUS", "TIME LEFT", "ENDPOINT AND FINDINGS"]);
        for (rank, row) in &self.worst {
            grid.add_row(row.cells(rank));
        }
        if !self.worst.is_empty() {
            writeln!(out, "{}", terminal::text(grid))?;
        }

        let more = self.seen - self.worst.len() as u64;
        if more > 0 {
            writeln!(out, "+{more} more, none of them worse (--format jsonl has them all)")?;
        }
        // This is about here and not about them, so it is said once.
        match self.without_ipv6 {
            0 => Ok(()),
            1 => writeln!(out, "IPv6 was not checked at 1 endpoint: there is no IPv6 from here"),
            endpoints => writeln!(
                out,
                "IPv6 was not checked at {endpoints} endpoints: there is no IPv6 from here"
            ),
        }
    }
}

impl Row {
    fn cells(&self, rank: &Rank) -> [Cell; 3] {
        let mut seen = rank.endpoint.clone();
        if let Some(unicode) = &self.unicode {
            seen.push_str(&format!(" ({unicode})"));
        }
        for line in &self.lines {
            seen.push('\n');
            seen.push_str(line);
        }
        [
            cell::status(rank.status.0),
            Cell::new(cell::time_left(self.left, self.not_after)),
            Cell::new(seen),
        ]
    }
}

/// Every finding on a line of its own, then the issuer of the certificate, why it is not known
/// whether it is revoked, and the addresses that were skipped.
fn lines(report: &EndpointReport) -> Vec<String> {
    let mut lines: Vec<_> = report.merged().iter().map(|merged| line(merged, report)).collect();

    for leaf in leaves(report) {
        lines.push(cut(&format!("{}, issued by {}", leaf.key, leaf.issuer)));
    }

    let seen = report.observations.iter().flat_map(Observation::leaves_and_revocation);
    let unknown: BTreeSet<_> = seen
        .filter_map(|(_, revocation)| match revocation {
            Some(Revocation::Unknown { reason }) => Some(reason),
            Some(Revocation::Good | Revocation::Revoked | Revocation::Skipped { .. }) | None => None,
        })
        .collect();
    lines.extend(
        unknown
            .iter()
            .map(|reason| cut(&format!("revocation not known: {reason}"))),
    );

    let mut skipped = BTreeMap::<&str, Vec<IpAddr>>::new();
    for left_out in report.skipped.iter().filter(|left_out| !left_out.no_ipv6) {
        skipped.entry(&left_out.reason).or_default().push(left_out.address);
    }
    for (reason, addresses) in skipped {
        lines.push(cut(&format!("skipped {}: {reason}", some_of(addresses, ADDRESSES))));
    }
    lines
}

/// The leaf that expires first; and both, where it is one of two of a server.
fn leaves(report: &EndpointReport) -> Vec<&Certificate> {
    let first = report.leaf();
    let of_first = report
        .observations
        .iter()
        .find(|seen| seen.leaves().any(|leaf| Some(leaf) == first));
    of_first.map_or_else(Vec::new, |seen| seen.leaves().collect())
}

/// A finding, with its severity and addresses where these are not the whole endpoint's.
fn line(merged: &Merged<'_>, report: &EndpointReport) -> String {
    let finding = merged.finding;
    let severity = match finding.severity {
        Severity::Ok => "note: ".to_owned(),
        severity if severity == report.status => String::new(),
        severity => format!("{severity}: "),
    };
    let place = if merged.is_somewhere {
        let addresses: BTreeSet<_> = merged.addresses.iter().map(SocketAddr::ip).collect();
        format!(" [{}]", some_of(addresses, ADDRESSES))
    } else {
        String::new()
    };
    format!("- {severity}{}{place}", cut(&finding.message))
}

fn sentence(summary: &Summary) -> String {
    let counts = summary.counts;
    let total = counts.total();
    let noun = if total == 1 { "endpoint" } else { "endpoints" };
    let problems = match summary.problem_count {
        0 => String::new(),
        some => format!(", {some} not understood"),
    };
    let seconds = (summary.ended - summary.began).as_seconds_f64();
    format!("{total} {noun}: {counts}{problems} in {seconds:.1} s")
}

const ROWS: usize = 1_000;
const ADDRESSES: usize = 8;

#[cfg(test)]
mod tests {
    use neverlapse::report::Counts;
    use serde_json::{Value, json};
    use time::Duration;

    use super::*;

    fn report(value: Value) -> EndpointReport {
        serde_json::from_value(value).unwrap()
    }

    fn dns_failed(endpoint: &str) -> EndpointReport {
        report(
            json!({"endpoint": endpoint, "status": "unknown", "observations": [], "findings": [
            {"code": "dns_failed", "severity": "unknown", "name": "x", "reason": "", "message": "x could not be looked up"}]}),
        )
    }

    fn observation(address: &str, issuer: &str, messages: &[(&str, &str)]) -> Value {
        let finding = |(severity, message): &(&str, &str)| json!({"code": "invalid_chain", "reason": "", "severity": severity, "message": message});
        json!({"address": address, "elapsed_ms": 1, "tries": 1, "findings": messages.iter().map(finding).collect::<Vec<_>>(),
            "leaf": {"subject": "", "issuer": issuer, "serial": "", "fingerprint": "", "key": "ecdsa-p256", "signature": "",
                "names": [], "role": "leaf", "not_before": "2026-11-01T00:00:00Z", "not_after": "2026-12-03T00:00:00Z"}})
    }

    fn print(reports: &[EndpointReport], terminal: Terminal) -> String {
        let (mut table, mut counts) = (Table::default(), Counts::default());
        for report in reports {
            counts.add(report.status);
            table.add(report);
        }
        let summary = Summary::sample(counts, Duration::milliseconds(5_200), 0);
        let mut out = Vec::new();
        table.print(&mut out, terminal, &summary).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn two_addresses() -> EndpointReport {
        report(
            json!({"endpoint": "xn--bcher-kva.example:443", "unicode": "bücher.example", "status": "critical",
            "not_after": "2026-12-03T00:00:00Z", "seconds_left": 777_600, "findings": [],
            "skipped": [{"address": "2001:db8::1", "reason": "no route"}, {"address": "2001:db8::2", "reason": "no route"}],
            "observations": [
                observation("192.0.2.7:443", "CN=issuer", &[("warning", "everywhere"), ("critical", "only here")]),
                observation("192.0.2.8:443", "CN=issuer", &[("warning", "everywhere")])]}),
        )
    }

    #[test]
    fn a_piped_table_breaks_no_line() {
        let page = print(
            &[dns_failed("silent.example:443"), two_addresses()],
            Terminal::default(),
        );
        let lines: Vec<_> = page
            .lines()
            .filter(|line| !line.starts_with('─') && !line.starts_with('═'))
            .collect();
        let expected = [
            " STATUS     TIME LEFT    ENDPOINT AND FINDINGS",
            " critical   9 d          xn--bcher-kva.example:443 (bücher.example)",
            "            2026-12-03   - only here [192.0.2.7]",
            "                         - warning: everywhere",
            "                         ecdsa-p256, issued by CN=issuer",
            "                         skipped 2001:db8::1, 2001:db8::2: no route",
            " unknown    ?            silent.example:443",
            "                         - x could not be looked up",
            "2 endpoints: 1 critical, 1 unknown, 0 warning, 0 ok in 5.2 s",
        ];
        assert_eq!(lines, expected, "{page}");
        assert!(!page.contains('\u{1b}'));
    }

    #[test]
    fn that_there_is_no_ipv6_is_said_once() {
        let without = |name: &str| {
            report(
                json!({"endpoint": name, "status": "ok", "findings": [], "observations": [],
                "skipped": [{"address": "2001:db8::1", "reason": "no IPv6 route from here", "no_ipv6": true}]}),
            )
        };
        let page = print(&[without("a:443"), without("b:443")], Terminal::default());
        let lines: Vec<_> = page.lines().filter(|line| line.contains("IPv6")).collect();
        assert_eq!(
            lines,
            ["IPv6 was not checked at 2 endpoints: there is no IPv6 from here"]
        );
    }

    #[test]
    fn why_a_revocation_is_not_known_is_said() {
        let mut seen = observation("192.0.2.7:443", "CN=issuer", &[]);
        seen["revocation"] = json!({"state": "unknown", "reason": "http://ca.example/1.crl: HTTP 404 Not Found"});
        let page = print(
            &[report(
                json!({"endpoint": "a:443", "status": "ok", "findings": [], "observations": [seen.clone(), seen]}),
            )],
            Terminal::default(),
        );
        let line = "revocation not known: http://ca.example/1.crl: HTTP 404 Not Found";
        assert_eq!(page.matches(line).count(), 1, "{page}");
    }

    #[test]
    fn a_narrow_terminal_is_not_overrun() {
        for width in [60, 80, 120, 200] {
            let terminal = Terminal {
                width: Some(width),
                colors: false,
            };
            let page = print(&[two_addresses()], terminal);
            let widest = page.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width.into()), "{page}");
            assert!(page.contains("2026-12-03"), "{page}");
            assert!(page.contains("xn--bcher-kva.example:443"), "{page}");
        }
    }

    #[test]
    fn colours_only_where_they_are_seen() {
        let terminal = Terminal {
            width: Some(100),
            colors: true,
        };
        assert!(print(&[two_addresses()], terminal).contains("\u{1b}["));
    }

    #[test]
    fn what_a_certificate_says_is_escaped_and_cut() {
        let hostile = format!("CN=\u{1b}[2J\u{202e}\r\nfine{}", "x".repeat(10_000));
        let report = report(
            json!({"endpoint": "a.example:443", "status": "critical", "findings": [],
            "observations": [observation("192.0.2.7:443", &hostile, &[("critical", &hostile)])]}),
        );
        let page = print(&[report], Terminal::default());
        assert!(page.contains("CN=\\u{1b}[2J\\u{202e}\\r\\nfinexxx"), "{page}");
        assert!(
            page.chars()
                .all(|c| c == '\n' || c == '\\' || c.escape_debug().len() == 1)
        );
        assert!(page.lines().all(|line| line.chars().count() < 700));
    }

    #[test]
    fn the_worst_thousand_are_shown_and_the_others_counted() {
        let reports: Vec<_> = (0..1_500)
            .map(|number| dns_failed(&format!("{number}.example:443")))
            .chain([two_addresses()])
            .collect();
        let page = print(&reports, Terminal::default());
        assert!(page.contains("\n+501 more, none of them worse"), "{page}");
        assert!(page.contains("1501 endpoints: 1 critical, 1500 unknown"), "{page}");
        assert!(page.contains("only here"), "the worst came last and is there");
    }
}
