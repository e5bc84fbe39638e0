//! The report: what one run saw, in one schema for Lambda, command line, bucket and metrics.
//!
//! It is a document that later and earlier versions read too, so every member that may be absent
//! has a default, and endpoints are text in it: one of a form that this version cannot parse must
//! still be shown.

mod certificate;
mod endpoint;
mod left;
pub mod page;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::certificate::{
    AddressReport, AddressStage, CertificateReport, FailedTry, InstanceReport, InstanceStage, RenewalReport,
    StoredVersion, Version,
};
pub use self::endpoint::{EndpointIndex, EndpointReport, Merged};
pub use self::left::Left;
use crate::bucket::document::Document;
use crate::finding::Severity;
use crate::inventory::Problem;
use crate::timestamp::Timestamp;

/// The schema's name and version, the first member of every report.
pub const SCHEMA: &str = "neverlapse.report/1";

/// What one run saw.
///
/// The probe answers with it, and keeps it as `reports/latest.json`; `neverlapse check` and
/// `status` make the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// When the run began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Endpoints by status.
    pub counts: Counts,
    /// One entry per endpoint, worst first.
    pub endpoints: Vec<EndpointReport>,
    /// One entry per managed certificate, worst first: where it is on its way from issuer to
    /// client.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateReport>,
    /// Endpoints that were not probed before the run's deadline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_reached: Vec<String>,
    /// Entries of the inventory that could not be used, each with line, key, value and accepted
    /// form.
    #[serde(default, rename = "mistakes", skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// When the endpoints were probed, if that was in an earlier run than this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_at: Option<Timestamp>,
    /// How many endpoints were left out to fit a size limit; `counts` includes them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: usize,
    /// How many certificates were left out to fit a size limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted_certificates: usize,
    /// How many endpoints in `not_reached` were left out to fit a size limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted_not_reached: usize,
    /// How many of `mistakes` were left out to fit a size limit.
    #[serde(default, rename = "omitted_mistakes", skip_serializing_if = "is_zero")]
    pub omitted_problems: usize,
}

impl Document for Report {
    const SCHEMA: &'static str = SCHEMA;
    /// One of 100,000 endpoints has 115 MB, and one of 300,000 is the most that a run can make.
    const LONGEST: u64 = 512 << 20;
}

impl Report {
    /// Collects a run's endpoints, worst first.
    pub fn new(started_at: Timestamp, finished_at: Timestamp, mut endpoints: Vec<EndpointReport>) -> Self {
        endpoints.sort_by(EndpointReport::worst_first);
        let mut counts = Counts::default();
        for endpoint in &endpoints {
            counts.add(endpoint.status);
        }

        Self {
            schema: SCHEMA.to_owned(),
            started_at,
            finished_at,
            counts,
            endpoints,
            certificates: Vec::new(),
            not_reached: Vec::new(),
            problems: Vec::new(),
            looked_at: None,
            omitted: 0,
            omitted_certificates: 0,
            omitted_not_reached: 0,
            omitted_problems: 0,
        }
    }

    /// The same report with as much of each list as fits into about `bytes` of JSON; of
    /// certificates and endpoints, the worst.
    ///
    /// One that does not fit leaves its place to milder ones: a server that fills the report must
    /// not hide the others.
    pub fn fitting(mut self, bytes: usize) -> Self {
        let mut size = 0;
        self.omitted_problems = fit(&mut self.problems, &mut size, bytes / 8);
        self.omitted_not_reached = fit(&mut self.not_reached, &mut size, bytes / 4);
        // Half of the room is left to the endpoints.
        self.omitted_certificates = fit(&mut self.certificates, &mut size, bytes / 2);
        self.omitted = fit(&mut self.endpoints, &mut size, bytes);
        self
    }

    /// The worst status of the run. Endpoints that were not reached and entries that could not be
    /// read are unknown.
    pub fn status(&self) -> Severity {
        let not_reached = self.not_reached.len() + self.omitted_not_reached;
        let problems = self.problems.len() + self.omitted_problems;
        let is_complete = not_reached == 0 && problems == 0;
        let rest = if is_complete { Severity::Ok } else { Severity::Unknown };
        self.counts.worst().max(rest)
    }
}

/// Endpoints by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each field counts the endpoints of the status of its name")]
pub struct Counts {
    pub ok: u64,
    pub warning: u64,
    pub critical: u64,
    pub unknown: u64,
}

impl Counts {
    /// Counts one more endpoint of this status.
    pub fn add(&mut self, status: Severity) {
        match status {
            Severity::Ok => self.ok += 1,
            Severity::Warning => self.warning += 1,
            Severity::Critical => self.critical += 1,
            Severity::Unknown => self.unknown += 1,
        }
    }

    /// The worst status that an endpoint has.
    pub fn worst(&self) -> Severity {
        match self {
            Self { critical: 1.., .. } => Severity::Critical,
            Self { unknown: 1.., .. } => Severity::Unknown,
            Self { warning: 1.., .. } => Severity::Warning,
            _ => Severity::Ok,
        }
    }

    /// The number of all endpoints.
    pub fn total(&self) -> u64 {
        let counts = self.by_status().map(|(_, count)| count);
        counts.into_iter().fold(0, u64::saturating_add)
    }

    /// How many there are of each status, worst first.
    pub fn by_status(&self) -> [(Severity, u64); 4] {
        [
            (Severity::Critical, self.critical),
            (Severity::Unknown, self.unknown),
            (Severity::Warning, self.warning),
            (Severity::Ok, self.ok),
        ]
    }
}

/// `1 critical, 0 unknown, 2 warning, 7 ok`.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [critical, unknown, warning, ok] = self.by_status().map(|(status, count)| format!("{count} {status}"));
        write!(f, "{critical}, {unknown}, {warning}, {ok}")
    }
}

/// Keeps the entries that fit, in their order, and answers with the number of those that do not.
fn fit<T: Serialize>(entries: &mut Vec<T>, size: &mut usize, bytes: usize) -> usize {
    let all = entries.len();
    entries.retain(|entry| {
        let next = serde_json::to_string(entry).map_or(0, |json| json.len() + 1);
        let fits = *size + next <= bytes;
        if fits {
            *size += next;
        }
        fits
    });
    all - entries.len()
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One endpoint with more to say than the whole answer may hold left no other in it.
    #[test]
    fn an_endpoint_that_fits_nowhere_hides_no_other() {
        let endpoint = |name: &str, status: Severity, length: usize| EndpointReport {
            endpoint: name.to_owned(),
            sni: None,
            quiet: false,
            unicode: Some("x".repeat(length)),
            status,
            not_after: None,
            seconds_left: None,
            observations: Vec::new(),
            skipped: Vec::new(),
            findings: Vec::new(),
        };
        let endpoints = vec![
            endpoint("huge", Severity::Critical, 9_000),
            endpoint("bad", Severity::Critical, 1_000),
            endpoint("unknown", Severity::Unknown, 1_000),
            endpoint("mild", Severity::Warning, 1_000),
            endpoint("well", Severity::Ok, 1_000),
        ];
        let now = Timestamp::UNIX_EPOCH;
        let report = Report::new(now, now, endpoints).fitting(3_800);
        let kept: Vec<_> = report.endpoints.iter().map(|kept| kept.endpoint.as_str()).collect();
        assert_eq!(kept, ["bad", "unknown", "mild"]);
        assert_eq!((report.omitted, report.counts.total()), (2, 5));
    }

    #[test]
    fn certificates_leave_half_of_the_room_to_endpoints() {
        let now = Timestamp::UNIX_EPOCH;
        let mut report = Report::new(now, now, Vec::new());
        let certificate = |n: usize| {
            let instances: Vec<_> = (0..n)
                .map(|n| serde_json::json!({"instance": format!("i-{n}"), "stage": "served"}))
                .collect();
            serde_json::from_value(
                serde_json::json!({"name": format!("{n}"), "status": "ok", "identifiers": [], "instances": instances}),
            )
            .unwrap()
        };
        report.certificates = [1, 500, 2].map(certificate).to_vec();
        let report = report.fitting(4_000);
        let kept: Vec<_> = report.certificates.iter().map(|kept| kept.name.as_str()).collect();
        assert_eq!((kept, report.omitted_certificates), (vec!["1", "2"], 1));
    }

    /// They were not counted: the answer of a run that had done everything was longer than Lambda
    /// allows, and the run failed.
    #[test]
    fn problems_and_endpoints_that_were_not_reached_fit_too() {
        let now = Timestamp::UNIX_EPOCH;
        let mut report = Report::new(now, now, Vec::new());
        report.problems = vec![Problem::new("x".repeat(98)); 1_000];
        report.not_reached = vec!["y".repeat(98); 1_000];
        let report = report.fitting(8_080);
        assert!(serde_json::to_string(&report).unwrap().len() < 8_080);
        assert_eq!((report.problems.len(), report.omitted_problems), (10, 990));
        assert_eq!((report.not_reached.len(), report.omitted_not_reached), (10, 990));

        // None of them fits, and the run is not complete all the same.
        let report = report.fitting(80);
        assert!(report.problems.is_empty() && report.not_reached.is_empty());
        assert_eq!(report.status(), Severity::Unknown);
    }
}
