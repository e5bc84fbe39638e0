//! Metrics in CloudWatch's embedded metric format: lines in a function's log that CloudWatch makes
//! metrics of.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use serde_json::{Map, Value, json};

use crate::timestamp::Timestamp;

/// One number with its name, and CloudWatch's word for its unit (`Count`, `Seconds`, `None`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// As CloudWatch shows it, in PascalCase.
    pub name: &'static str,
    /// `Count`, `Seconds`, or `None` where CloudWatch has no word for it.
    pub unit: &'static str,
    /// Its value.
    pub value: f64,
}

impl Metric {
    /// A count of something.
    pub fn count(name: &'static str, count: u64) -> Self {
        Self {
            name,
            unit: "Count",
            value: count as f64,
        }
    }
}

/// The line for these metrics, all of them with these dimensions. It is for standard output as it
/// is: what a logger would add makes it another thing.
pub fn line(at: Timestamp, dimensions: &[(&str, &str)], metrics: &[Metric]) -> String {
    let names: Vec<_> = dimensions.iter().map(|(name, _)| name).collect();
    let defined: Vec<_> = (metrics.iter())
        .map(|metric| json!({"Name": metric.name, "Unit": metric.unit}))
        .collect();
    let directive = json!({"Namespace": NAMESPACE, "Dimensions": [names], "Metrics": defined});

    let milliseconds = (at.utc().unix_timestamp_nanos() / 1_000_000) as i64;
    let about = json!({"Timestamp": milliseconds, "CloudWatchMetrics": [directive]});

    let mut members = Map::from_iter([("_aws".to_owned(), about)]);
    let dimensions = dimensions.iter().map(|(name, value)| (*name, json!(value)));
    let values = metrics.iter().map(|metric| (metric.name, json!(metric.value)));
    members.extend(dimensions.chain(values).map(|(name, value)| (name.to_owned(), value)));
    Value::Object(members).to_string()
}

const NAMESPACE: &str = "neverlapse";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp;

    #[test]
    fn a_line_announces_each_metric_and_has_its_value() {
        let at = timestamp!(2026-11-24 06:00:12.4 UTC);
        let metrics = [Metric::count("RenewalsTried", 1), Metric::count("RenewalsFailed", 0)];
        let line: Value = serde_json::from_str(&line(at, &[("Stack", "prod")], &metrics)).unwrap();
        let expected = json!({
            "_aws": {
                "Timestamp": 1_795_500_012_400_i64,
                "CloudWatchMetrics": [{
                    "Namespace": "neverlapse",
                    "Dimensions": [["Stack"]],
                    "Metrics": [{"Name": "RenewalsTried", "Unit": "Count"}, {"Name": "RenewalsFailed", "Unit": "Count"}],
                }],
            },
            "Stack": "prod", "RenewalsTried": 1.0, "RenewalsFailed": 0.0,
        });
        assert_eq!(line, expected);
    }
}
