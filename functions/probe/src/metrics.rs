//! Metrics in CloudWatch's embedded metric format: lines in the log that CloudWatch makes metrics of.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use neverlapse::report::{CertificateReport, Report, Stage};
use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};

/// The lines of a run over the whole inventory: one for the stack, and one an endpoint if that was asked for.
pub(crate) fn lines(report: &Report, stack: &str, critical_days: u32, per_endpoint: bool) -> Vec<String> {
    let at = report.finished_at;
    let mut lines = vec![line(at, &[("Stack", stack)], &of_the_run(report, critical_days))];
    if per_endpoint {
        let days = |seconds: i64| seconds as f64 / DAY;
        let each = report.endpoints.iter().filter_map(|endpoint| {
            let dimensions = [("Stack", stack), ("Endpoint", endpoint.endpoint.as_str())];
            let left = Metric("DaysLeft", "None", days(endpoint.seconds_left?));
            Some(line(at, &dimensions, &[left]))
        });
        lines.extend(each);
    }
    lines
}

/// Name, unit, value.
struct Metric(&'static str, &'static str, f64);

/// What there is to count. A soonest expiry is left out where there is none: zero would mean now.
fn of_the_run(report: &Report, critical_days: u32) -> Vec<Metric> {
    let counts = report.counts;
    let soonest = report
        .endpoints
        .iter()
        .filter_map(|endpoint| endpoint.seconds_left)
        .min();
    let managed = (report.certificates.iter()).filter_map(|certificate| certificate.not_after);
    let managed = managed.map(|end| (end - report.finished_at).whole_seconds()).min();
    let instances = report
        .certificates
        .iter()
        .flat_map(|certificate| &certificate.instances);
    let behind = instances.filter(|instance| instance.stage != Stage::Served).count();
    let lapsing = report
        .certificates
        .iter()
        .filter(|one| is_lapsing(one, critical_days, report.finished_at));
    let count = |name, count: u64| Some(Metric(name, "Count", count as f64));
    let days = |name, seconds: Option<i64>| Some(Metric(name, "None", seconds? as f64 / DAY));
    let took = (report.finished_at - report.started_at).as_seconds_f64();
    [
        count("EndpointsOk", counts.ok),
        count("EndpointsWarning", counts.warning),
        count("EndpointsCritical", counts.critical),
        count("EndpointsUnknown", counts.unknown),
        count("EndpointsReached", counts.total().saturating_sub(counts.unknown)),
        count("InstancesBehind", behind as u64),
        count("ManagedLapsing", lapsing.count() as u64),
        days("SoonestExpiryDays", soonest),
        days("SoonestManagedExpiryDays", managed),
        Some(Metric("RunSeconds", "Seconds", took)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Less is left than the critical days, or than a tenth of its own lifetime where that is shorter.
fn is_lapsing(certificate: &CertificateReport, critical_days: u32, now: OffsetDateTime) -> bool {
    let (Some(begin), Some(end)) = (certificate.not_before, certificate.not_after) else {
        return false;
    };
    end - now < Duration::days(critical_days.into()).min((end - begin) / 10)
}

fn line(at: OffsetDateTime, dimensions: &[(&str, &str)], metrics: &[Metric]) -> String {
    let names: Vec<_> = dimensions.iter().map(|(name, _)| name).collect();
    let defined: Vec<_> = (metrics.iter())
        .map(|Metric(name, unit, _)| json!({"Name": name, "Unit": unit}))
        .collect();
    let directive = json!({"Namespace": NAMESPACE, "Dimensions": [names], "Metrics": defined});
    let milliseconds = (at.unix_timestamp_nanos() / 1_000_000) as i64;
    let mut members = Map::new();
    members.insert(
        "_aws".to_owned(),
        json!({"Timestamp": milliseconds, "CloudWatchMetrics": [directive]}),
    );
    members.extend(
        dimensions
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value))),
    );
    members.extend(
        metrics
            .iter()
            .map(|Metric(name, _, value)| ((*name).to_owned(), json!(value))),
    );
    Value::Object(members).to_string()
}

const NAMESPACE: &str = "neverlapse";
const DAY: f64 = 86_400.0;

#[cfg(test)]
mod tests {
    use neverlapse::finding::Severity;
    use neverlapse::report::EndpointReport;
    use time::macros::datetime;

    use super::*;

    fn endpoint(name: &str, status: Severity, seconds_left: Option<i64>) -> EndpointReport {
        EndpointReport {
            endpoint: name.to_owned(),
            unicode: None,
            status,
            not_after: None,
            seconds_left,
            observations: Vec::new(),
            skipped: Vec::new(),
            findings: Vec::new(),
        }
    }

    fn report(endpoints: Vec<EndpointReport>) -> Report {
        let end = datetime!(2026-11-24 06:00:12.4 UTC);
        Report::new(datetime!(2026-11-24 06:00 UTC), end, endpoints)
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
            {"name": "a", "status": "ok", "identifiers": ["a"], "not_after": "2026-11-29T18:00:12.4Z",
             "instances": [{"instance": "i-1", "stage": "served"}, {"instance": "i-2", "stage": "pulled"}]},
            {"name": "new", "status": "ok", "identifiers": ["new"]},
            {"name": "six days", "status": "ok", "identifiers": [],
             "not_before": "2026-11-23T17:00:12.4Z", "not_after": "2026-11-30T00:00:12.4Z"},
            {"name": "late", "status": "ok", "identifiers": [],
             "not_before": "2026-09-01T06:00:12.4Z", "not_after": "2026-11-26T18:00:12.4Z"},
        ]))
        .unwrap();
        let lines = lines(&report, "neverlapse", 3, false);
        assert_eq!(lines.len(), 1);
        let line = values(&lines[0]);
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(line["_aws"]["Timestamp"], 1_795_500_012_400_i64);
        assert_eq!(directive["Namespace"], "neverlapse");
        assert_eq!(directive["Dimensions"], json!([["Stack"]]));
        assert_eq!(line["Stack"], "neverlapse");
        for (name, expected) in [
            ("EndpointsOk", 1.0),
            ("EndpointsWarning", 0.0),
            ("EndpointsCritical", 1.0),
            ("EndpointsUnknown", 1.0),
            ("EndpointsReached", 2.0),
            ("InstancesBehind", 1.0),
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
