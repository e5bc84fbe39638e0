//! What a run over the whole inventory counts, for CloudWatch.

use neverlapse::finding::Thresholds;
use neverlapse::metric::{Metric, line};
use neverlapse::report::{CertificateReport, InstanceStage, Report};
use neverlapse::timestamp::Timestamp;

/// The lines of a run over the whole inventory: one for the stack, and one per endpoint if that is
/// wanted.
pub(crate) fn lines(report: &Report, stack: &str, critical_days: u32, per_endpoint: bool) -> Vec<String> {
    let at = report.finished_at;
    let mut metrics = of_endpoints(report);
    // A certificate that is not in the inventory any more has an alert of its own.
    let managed: Vec<_> = report
        .certificates
        .iter()
        .filter(|certificate| !certificate.is_left_out())
        .collect();
    metrics.extend(of_managed(&managed, critical_days, at));

    let mut lines = vec![line(at, &[("Stack", stack)], &metrics)];
    if per_endpoint {
        for endpoint in &report.endpoints {
            if let Some(seconds_left) = endpoint.seconds_left {
                let dimensions = [("Stack", stack), ("Endpoint", endpoint.endpoint.as_str())];
                lines.push(line(at, &dimensions, &[days("DaysLeft", seconds_left)]));
            }
        }
    }
    lines
}

/// What was probed. The soonest expiry is left out where there is none: zero would mean now.
fn of_endpoints(report: &Report) -> Vec<Metric> {
    let counts = report.counts;
    let mut metrics = vec![
        Metric::count("EndpointsOk", counts.ok),
        Metric::count("EndpointsWarning", counts.warning),
        Metric::count("EndpointsCritical", counts.critical),
        Metric::count("EndpointsUnknown", counts.unknown),
        Metric::count("EndpointsReached", counts.total().saturating_sub(counts.unknown)),
        Metric {
            name: "RunSeconds",
            unit: "Seconds",
            value: (report.finished_at - report.started_at).as_seconds_f64(),
        },
    ];

    let soonest = report
        .endpoints
        .iter()
        .filter_map(|endpoint| endpoint.seconds_left)
        .min();
    metrics.extend(soonest.map(|seconds| days("SoonestExpiryDays", seconds)));
    metrics
}

/// How far managed certificates are. Where none is managed there is only `ManagedLapsing`, whose
/// alarm must learn that nothing is about to expire any more.
fn of_managed(certificates: &[&CertificateReport], critical_days: u32, now: Timestamp) -> Vec<Metric> {
    let expiring = certificates
        .iter()
        .filter(|certificate| is_expiring(certificate, critical_days, now));
    let mut metrics = vec![Metric::count("ManagedLapsing", expiring.count() as u64)];
    if certificates.is_empty() {
        return metrics;
    }

    let soonest = certificates
        .iter()
        .filter_map(|certificate| certificate.not_after())
        .min();
    metrics.extend(soonest.map(|not_after| days("SoonestManagedExpiryDays", (not_after - now).whole_seconds())));

    let behind = certificates
        .iter()
        .flat_map(|certificate| &certificate.instances)
        .filter(|instance| instance.stage != InstanceStage::Served);
    metrics.push(Metric::count("InstancesBehind", behind.count() as u64));

    for (name, stage) in STAGES {
        let at_stage = certificates
            .iter()
            .filter(|certificate| self::stage(certificate) == stage);
        metrics.push(Metric::count(name, at_stage.count() as u64));
    }
    metrics
}

/// The stage of a certificate: that of its last instance, or none before it is issued.
fn stage(certificate: &CertificateReport) -> Option<InstanceStage> {
    certificate.current.as_ref()?;
    let stages = certificate.instances.iter().map(|instance| instance.stage);
    Some(stages.min().unwrap_or(InstanceStage::Issued))
}

/// Whether less time is left than is critical for a certificate that we renew.
fn is_expiring(certificate: &CertificateReport, critical_days: u32, now: Timestamp) -> bool {
    let Some(current) = &certificate.current else {
        return false;
    };
    let thresholds = Thresholds {
        critical_days,
        ..Thresholds::default()
    };
    current.not_after - now < thresholds.critical_managed(current.not_after - current.not_before)
}

fn days(name: &'static str, seconds: i64) -> Metric {
    Metric {
        name,
        unit: "None",
        value: seconds as f64 / 86_400.0,
    }
}

/// Every stage, so that one without certificates counts zero.
const STAGES: [(&str, Option<InstanceStage>); 6] = [
    ("ManagedNotIssued", None),
    ("ManagedFailed", Some(InstanceStage::Failed)),
    ("ManagedIssued", Some(InstanceStage::Issued)),
    ("ManagedPulled", Some(InstanceStage::Pulled)),
    ("ManagedInstalled", Some(InstanceStage::Installed)),
    ("ManagedServed", Some(InstanceStage::Served)),
];

#[cfg(test)]
mod tests {
    use neverlapse::finding::Severity;
    use neverlapse::report::EndpointReport;
    use neverlapse::timestamp;
    use serde_json::{Value, json};

    use super::*;

    fn endpoint(name: &str, status: Severity, seconds_left: Option<i64>) -> EndpointReport {
        EndpointReport {
            endpoint: name.to_owned(),
            unicode: None,
            sni: None,
            quiet: false,
            status,
            not_after: None,
            seconds_left,
            observations: Vec::new(),
            skipped: Vec::new(),
            findings: Vec::new(),
        }
    }

    fn report(endpoints: Vec<EndpointReport>) -> Report {
        let end = timestamp!(2026-11-24 06:00:12.4 UTC);
        Report::new(timestamp!(2026-11-24 06:00 UTC), end, endpoints)
    }

    fn values(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn one_line_for_the_stack() {
        let mut report = report(vec![
            endpoint("a:443", Severity::Ok, Some(5_184_000)),
            endpoint("b:443", Severity::Critical, Some(-43_200)),
            endpoint("c:443", Severity::Unknown, None),
        ]);
        report.certificates = serde_json::from_value(json!([
            {"name": "a", "status": "ok", "identifiers": ["a"], "issuer": "x", "version": "1", "fingerprint": "aa",
             "not_before": "2026-09-01T06:00:12.4Z", "not_after": "2026-11-29T18:00:12.4Z",
             "instances": [{"instance": "i-1", "stage": "served"}, {"instance": "i-2", "stage": "pulled"}]},
            {"name": "done", "status": "ok", "identifiers": ["done"], "issuer": "x", "version": "1", "fingerprint": "aa",
             "not_before": "2026-11-01T06:00:12.4Z", "not_after": "2027-01-30T06:00:12.4Z",
             "instances": [{"instance": "i-1", "stage": "served"}]},
            {"name": "stuck", "status": "ok", "identifiers": ["stuck"], "issuer": "x", "version": "1", "fingerprint": "aa",
             "not_before": "2026-11-01T06:00:12.4Z", "not_after": "2027-01-30T06:00:12.4Z",
             "instances": [{"instance": "i-1", "stage": "failed"}, {"instance": "i-2", "stage": "issued"}]},
            {"name": "new", "status": "ok", "identifiers": ["new"]},
            {"name": "six days", "status": "ok", "identifiers": [], "issuer": "x", "version": "1", "fingerprint": "aa",
             "not_before": "2026-11-23T17:00:12.4Z", "not_after": "2026-11-30T00:00:12.4Z"},
            {"name": "late", "status": "ok", "identifiers": [], "issuer": "x", "version": "1", "fingerprint": "aa",
             "not_before": "2026-09-01T06:00:12.4Z", "not_after": "2026-11-26T18:00:12.4Z"},
        ]))
        .unwrap();
        let lines = lines(&report, "neverlapse", 3, false);
        assert_eq!(lines.len(), 1);
        let line = values(&lines[0]);
        assert_eq!(line["Stack"], "neverlapse");
        for (name, expected) in [
            ("EndpointsOk", 1.0),
            ("EndpointsWarning", 0.0),
            ("EndpointsCritical", 1.0),
            ("EndpointsUnknown", 1.0),
            ("EndpointsReached", 2.0),
            ("InstancesBehind", 3.0),
            ("ManagedNotIssued", 1.0),
            ("ManagedFailed", 1.0),
            ("ManagedIssued", 2.0),
            ("ManagedPulled", 1.0),
            ("ManagedInstalled", 0.0),
            ("ManagedServed", 1.0),
            ("SoonestExpiryDays", -0.5),
            ("SoonestManagedExpiryDays", 2.5),
            ("ManagedLapsing", 1.0),
            ("RunSeconds", 12.4),
        ] {
            assert_eq!(line[name].as_f64(), Some(expected), "{name}");
        }
    }

    #[test]
    fn every_metric_that_is_announced_has_a_value() {
        for endpoints in [Vec::new(), vec![endpoint("a:443", Severity::Ok, Some(1))]] {
            for text in lines(&report(endpoints), "s", 3, true) {
                let line = values(&text);
                let directive = &line["_aws"]["CloudWatchMetrics"][0];
                let metrics = directive["Metrics"].as_array().unwrap();
                assert!(!metrics.is_empty() && metrics.len() <= 100, "the format's limit");
                for metric in metrics {
                    assert!(line[metric["Name"].as_str().unwrap()].is_number(), "{text}");
                }
                for dimension in directive["Dimensions"][0].as_array().unwrap() {
                    assert!(line[dimension.as_str().unwrap()].is_string(), "{text}");
                }
                assert!(!text.contains('\n'));
            }
        }
    }

    #[test]
    fn stages_cost_nothing_where_nothing_is_managed() {
        let line = values(&lines(&report(Vec::new()), "s", 3, false)[0]);
        assert_eq!(line["ManagedLapsing"], 0.0, "its alarm waits for that");
        assert!(
            line.get("ManagedServed").is_none() && line.get("InstancesBehind").is_none(),
            "{line}"
        );
    }

    #[test]
    fn endpoints_have_their_own_only_when_asked() {
        let seen = || {
            vec![
                endpoint("a:443", Severity::Ok, Some(129_600)),
                endpoint("b:443", Severity::Unknown, None),
            ]
        };
        assert_eq!(lines(&report(seen()), "s", 3, false).len(), 1);
        let all = lines(&report(seen()), "s", 3, true);
        assert_eq!(all.len(), 2, "nothing is known of b");
        let line = values(&all[1]);
        assert_eq!(
            line["_aws"]["CloudWatchMetrics"][0]["Dimensions"],
            json!([["Stack", "Endpoint"]])
        );
        assert_eq!((&line["Endpoint"], &line["DaysLeft"]), (&json!("a:443"), &json!(1.5)));
    }
}
