//! The report as a web page: one file, which makes no network requests, for a browser, a phone or
//! paper.
//!
//! What is wrong, the timeline and the managed certificates are in the markup; the table of
//! endpoints is made in the browser from JSON inside the page, so that ten thousand of them stay
//! quick. Names in certificates are hostile: the template escapes them, the script treats them as
//! text, and the content security policy allows nothing but the style and the script whose hashes
//! it names.

mod managed;
mod rows;
mod timeline;

use askama::Template;
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64;
use time::Duration;

use crate::certificate::common_name;
use crate::finding::Severity;
use crate::report::{Counts, EndpointReport, Report};
use crate::text::{self, printable};
use crate::timestamp::Timestamp;

use managed::Managed;
use timeline::Timeline;

/// The report as HTML. `place` says whose it is, such as `neverlapse in eu-central-1`.
///
/// It shows at most ten thousand endpoints, the worst and the soonest to expire, and says so when
/// there are more.
pub fn page(report: &Report, place: Option<&str>) -> Result<String, askama::Error> {
    let now = as_of(report);
    let (data, shown) = rows::json(report);
    let (certificates, certificates_more) = managed::all(report, now);
    let bad: Vec<_> = report
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.status != Severity::Ok)
        .collect();

    let page = Page {
        policy: policy(),
        style: STYLE,
        script: SCRIPT,
        data,
        icon: icon(status(report)),
        status: status(report),
        headline: headline(report),
        place,
        finished: report.finished_at.rfc3339(),
        finished_words: report.finished_at.to_string(),
        looked: looked(report),
        counts: counts(report),
        shares: shares(report),
        shares_words: report.counts.to_string(),
        problems: report
            .problems
            .iter()
            .take(LISTED)
            .map(|problem| cut(&problem.to_string()))
            .collect(),
        problems_more: report.problems.len().saturating_sub(LISTED) + report.omitted_problems,
        not_reached: joined(report.not_reached.iter().take(LISTED)),
        not_reached_more: report.not_reached.len().saturating_sub(LISTED) + report.omitted_not_reached,
        worst: bad.iter().take(WORST).map(|endpoint| Item::of(endpoint)).collect(),
        worst_more: bad.len().saturating_sub(WORST),
        timeline: Timeline::of(report, now),
        certificates,
        certificates_more,
        note: note(report, shown),
        footer: format!(
            "Made by neverlapse {}. Times are UTC; times left are as of the run.",
            env!("CARGO_PKG_VERSION")
        ),
    };

    page.render()
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    policy: String,
    style: &'static str,
    script: &'static str,
    data: String,
    icon: String,
    status: Severity,
    headline: String,
    place: Option<&'a str>,
    finished: String,
    finished_words: String,
    looked: String,
    counts: [Count; 4],
    shares: Vec<Share>,
    shares_words: String,
    problems: Vec<String>,
    problems_more: usize,
    not_reached: String,
    not_reached_more: usize,
    worst: Vec<Item>,
    worst_more: usize,
    timeline: Option<Timeline>,
    certificates: Vec<Managed>,
    certificates_more: usize,
    note: Option<String>,
    footer: String,
}

struct Count {
    status: Severity,
    number: String,
}

/// A part of the bar under the counts, in percent.
struct Share {
    status: Severity,
    from: String,
    width: String,
}

/// An endpoint that has findings.
struct Item {
    endpoint: String,
    unicode: Option<String>,
    quiet: bool,
    status: Severity,
    left: String,
    lines: Vec<Line>,
    certificate: Option<String>,
}

/// A finding, once for all addresses that have it.
struct Line {
    severity: Severity,
    milder: bool,
    message: String,
    code: String,
    /// Unless it is all of them.
    addresses: Option<String>,
}

impl Item {
    fn of(endpoint: &EndpointReport) -> Self {
        let lines = endpoint.merged().into_iter().map(|merged| Line {
            severity: merged.finding.severity,
            milder: merged.finding.severity != endpoint.status,
            message: cut(&merged.finding.message),
            code: cut(&merged.finding.kind.code().to_string()),
            addresses: merged.is_somewhere.then(|| joined(&merged.addresses)),
        });

        Self {
            endpoint: cut(&endpoint.endpoint),
            unicode: endpoint.unicode.as_deref().map(cut),
            quiet: endpoint.quiet,
            status: endpoint.status,
            left: endpoint
                .left()
                .map_or_else(|| "no certificate seen".to_owned(), |left| left.to_string()),
            lines: lines.collect(),
            certificate: certificate(endpoint),
        }
    }
}

/// When the earliest leaf ends and whose it is.
fn certificate(endpoint: &EndpointReport) -> Option<String> {
    let leaf = endpoint.leaf()?;
    let issuer = common_name(&leaf.issuer);
    Some(format!(
        "{}, issued by {}, valid until {}",
        cut(&leaf.key),
        cut(&issuer),
        leaf.not_after
    ))
}

/// The time as of which the run judged: `check --at` makes it another one than that of the run.
fn as_of(report: &Report) -> Timestamp {
    let mut endpoints = report.endpoints.iter();
    endpoints
        .find_map(|endpoint| Some(endpoint.not_after? - Duration::seconds(endpoint.seconds_left?)))
        .unwrap_or(report.finished_at)
}

/// The worst of endpoints and managed certificates.
fn status(report: &Report) -> Severity {
    let certificates = report.certificates.iter().map(|certificate| certificate.status);
    certificates.max().unwrap_or(Severity::Ok).max(report.status())
}

/// The worst, in a sentence; the other statuses stand below it. Where all endpoints are fine,
/// certificates on their way may not be.
fn headline(report: &Report) -> String {
    let endpoints = headline_of_endpoints(report);
    let certificates = report.certificates.iter().filter(|one| one.status != Severity::Ok);
    match (report.status(), certificates.count() as u64) {
        (Severity::Ok, 1) => format!("{endpoints}, but 1 managed certificate is not"),
        (Severity::Ok, many @ 2..) => format!("{endpoints}, but {} are not", plural(many, "managed certificate")),
        _ => endpoints,
    }
}

fn headline_of_endpoints(report: &Report) -> String {
    let counts = report.counts;
    let of = |count: u64| format!("{} of {}", number(count), plural(counts.total(), "endpoint"));
    match (report.status(), counts) {
        (Severity::Critical, Counts { critical: 1, .. }) => format!("{} is critical", of(1)),
        (Severity::Critical, Counts { critical, .. }) => format!("{} are critical", of(critical)),
        (Severity::Unknown, Counts { unknown: 0, .. }) => "Not everything was checked".to_owned(),
        (Severity::Unknown, Counts { unknown, .. }) => format!("{} could not be checked", of(unknown)),
        (Severity::Warning, Counts { warning: 1, .. }) => format!("{} has a warning", of(1)),
        (Severity::Warning, Counts { warning, .. }) => format!("{} have a warning", of(warning)),
        (Severity::Ok, Counts { ok: 0, .. }) => "Nothing was checked".to_owned(),
        (Severity::Ok, Counts { ok: 1, .. }) => "The one endpoint is fine".to_owned(),
        (Severity::Ok, Counts { ok: 2, .. }) => "Both endpoints are fine".to_owned(),
        (Severity::Ok, Counts { ok, .. }) => format!("All {} endpoints are fine", number(ok)),
    }
}

fn looked(report: &Report) -> String {
    let took = (report.finished_at - report.started_at).as_seconds_f64();
    let endpoints = plural(report.counts.total(), "endpoint");
    format!("{endpoints}, checked in {took:.1} s")
}

fn counts(report: &Report) -> [Count; 4] {
    report.counts.by_status().map(|(status, count)| Count {
        status,
        number: number(count),
    })
}

fn shares(report: &Report) -> Vec<Share> {
    let all = report.counts.total().max(1) as f64;
    let mut from = 0.0;
    let mut shares = Vec::new();
    for (status, count) in report.counts.by_status() {
        if count == 0 {
            continue;
        }
        let width = count as f64 / all * 100.0;
        shares.push(Share {
            status,
            from: percent(from),
            width: percent(width),
        });
        from += width;
    }
    shares
}

/// What the table leaves out, if it does.
fn note(report: &Report, shown: usize) -> Option<String> {
    let left_out = report.endpoints.len() - shown + report.omitted;
    (left_out > 0).then(|| {
        format!(
            "These are {} of {} endpoints: the worst, then those that expire soonest. The report’s JSON has them all.",
            number(shown as u64),
            number((shown + left_out) as u64)
        )
    })
}

/// Scripts and styles by hash, the icon, and nothing else from anywhere.
fn policy() -> String {
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; base-uri 'none'; form-action 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
}

fn hash(text: &str) -> String {
    BASE64.encode(digest(&SHA256, text.as_bytes()).as_ref())
}

/// A dot in the colour of the status, for the browser's tab.
fn icon(status: Severity) -> String {
    let color = match status {
        Severity::Ok => "2a9d62",
        Severity::Warning => "d98a04",
        Severity::Unknown => "8659c9",
        Severity::Critical => "cf3b31",
    };
    format!(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='7' fill='%23{color}'/%3E%3C/svg%3E"
    )
}

/// `2026-11-24`.
fn day(at: Timestamp) -> String {
    at.utc().date().to_string()
}

/// `24 Nov`, where there is no room for more.
fn day_and_month(at: Timestamp) -> String {
    let at = at.utc();
    let month = at.month().to_string();
    format!("{} {}", at.day(), month.get(..3).unwrap_or(&month))
}

/// `10,000`.
fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn plural(count: u64, word: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {word}{s}", number(count))
}

fn percent(share: f64) -> String {
    let text = format!("{share:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn joined<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    let all: Vec<_> = all.into_iter().map(|one| cut(&one.to_string())).collect();
    all.join(", ")
}

/// Text from outside, harmless and of a length that a page can show.
fn cut(text: &str) -> String {
    printable(&text::cut(text, LONGEST))
}

/// How many endpoints a page shows at most.
pub const ENDPOINTS: usize = 10_000;
const STYLE: &str = include_str!("../../../templates/report.css");
const SCRIPT: &str = include_str!("../../../templates/report.js");
/// Cards above the table.
const WORST: usize = 12;
/// Errors in the inventory, and endpoints that were not reached.
const LISTED: usize = 50;
/// Of a name or a sentence, in characters.
const LONGEST: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Finding, Kind};
    use crate::timestamp;

    #[test]
    fn a_name_in_a_few_words() {
        for (name, expected) in [
            ("CN=E8,O=Let's Encrypt,C=US", "Let's Encrypt E8"),
            ("CN=DigiCert Global G3,O=DigiCert Inc,C=US", "DigiCert Global G3"),
            ("O=Only\\, Inc.", "Only, Inc."),
            ("CN=a\\+b+O=c", "c a+b"),
            ("CN=", "CN="),
            ("", ""),
            ("no attribute", "no attribute"),
        ] {
            assert_eq!(common_name(name), expected);
        }
    }

    #[test]
    fn numbers_and_shares() {
        for (count, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(count), expected);
        }
        for (share, expected) in [(0.0, "0"), (100.0, "100"), (12.345, "12.35"), (10.5, "10.5")] {
            assert_eq!(percent(share), expected);
        }
    }

    #[test]
    fn the_worst_is_the_headline() {
        let with = |ok, warning, critical, unknown| {
            let now = Timestamp::UNIX_EPOCH;
            let mut report = Report::new(now, now, Vec::new());
            report.counts = Counts {
                ok,
                warning,
                critical,
                unknown,
            };
            report
        };
        let partly = Report {
            not_reached: vec!["a.example:443".to_owned()],
            ..with(3, 1, 0, 0)
        };
        let mut stuck = with(3, 0, 0, 0);
        let certificate = serde_json::json!({"name": "a.example", "status": "warning", "identifiers": []});
        stuck.certificates = vec![serde_json::from_value(certificate).unwrap()];
        for (report, expected) in [
            (with(0, 0, 0, 0), "Nothing was checked"),
            (with(1, 0, 0, 0), "The one endpoint is fine"),
            (with(10_000, 0, 0, 0), "All 10,000 endpoints are fine"),
            (with(3, 1, 0, 0), "1 of 4 endpoints has a warning"),
            (with(3, 1, 0, 2), "2 of 6 endpoints could not be checked"),
            (with(0, 1, 1, 2), "1 of 4 endpoints is critical"),
            (partly, "Not everything was checked"),
            (stuck, "All 3 endpoints are fine, but 1 managed certificate is not"),
        ] {
            assert_eq!(headline(&report), expected);
            let page = page(&report, None).unwrap();
            assert!(page.contains(&format!("<h1>{expected}</h1>")), "{page}");
        }
    }

    /// A reader of the page wondered why no alert had come.
    #[test]
    fn quiet_entries_are_marked_and_findings_have_their_code() {
        let now = Timestamp::UNIX_EPOCH;
        let of = |quiet: bool| {
            let endpoint = serde_json::json!({"endpoint": "a.example:443", "quiet": quiet, "status": "critical",
                "observations": [], "findings": [Finding::new(Kind::Expired { not_after: now }, Severity::Critical, now)]});
            let report = Report::new(now, now, vec![serde_json::from_value(endpoint).unwrap()]);
            page(&report, None).unwrap()
        };
        let mark = "<span class=\"tag muted\">quiet</span>";
        assert!(of(true).contains(mark) && !of(false).contains(mark));
        let code = "<span class=\"muted\">[expired]</span>";
        assert!(of(false).contains(code), "{}", of(false));
    }

    #[test]
    fn the_end_of_time_is_no_trouble() {
        let now = timestamp!(9999-12-31 23:59 UTC);
        let mut report = Report::new(now, now, Vec::new());
        report.certificates = vec![
            serde_json::from_value(serde_json::json!({
                "name": "a.example", "status": "ok", "identifiers": [], "issuer": "x", "fingerprint": "00", "version": "1",
                "not_before": "0000-01-01T00:00:00Z", "not_after": "9999-12-31T23:59:59Z",
            }))
            .unwrap(),
        ];
        page(&report, None).unwrap();
    }
}
