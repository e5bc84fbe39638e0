//! What a bug report needs, in one document. No secret is read for it: not the objects that hold
//! keys, and of the webhook's URL only that there is one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Patient;
use super::line::Line;
use crate::service::{LAMBDA, LOGS};

/// The document. An object that cannot be read is in it as an error.
pub(super) async fn document(patient: &Patient, lines: &[Line]) -> Value {
    let parameters = patient.stack.parameters().iter();
    let parameters: BTreeMap<_, _> = parameters
        .map(|(name, value)| {
            (
                name,
                if name == "AlertEmail" {
                    masked(value)
                } else {
                    value.to_owned()
                },
            )
        })
        .collect();
    let outputs = patient.stack.outputs();
    let mut functions = BTreeMap::new();
    for (id, log) in [("Probe", "ProbeLogs"), ("Renewer", "RenewerLogs")] {
        functions.insert(id, function(patient, id, log).await);
    }

    json!({
        "schema": "neverlapse.collection/1",
        "at": patient.now,
        "version": env!("CARGO_PKG_VERSION"),
        "stack": {"name": patient.stack.name(), "status": patient.stack.status, "parameters": parameters, "outputs": outputs,
            "resources": patient.resources},
        "functions": functions,
        "lines": lines.iter().map(without_addresses).collect::<Vec<_>>(),
    })
}

async fn function(patient: &Patient, id: &str, log: &str) -> Value {
    let name = patient.resource(id).unwrap_or_default();
    let configuration = patient
        .stack
        .services
        .get(LAMBDA, &format!("/2015-03-31/functions/{name}/configuration"))
        .await;
    let group = patient.resource(log).unwrap_or_default();
    let query =
        json!({"logGroupName": group, "startTime": (patient.now - time::Duration::DAY).unix() * 1_000, "limit": LINES});
    let log = patient
        .stack
        .services
        .json(LOGS, "Logs_20140328.FilterLogEvents", &query)
        .await;

    let configuration = configuration.unwrap_or_else(|refused| json!({ "error": refused.to_string() }));
    let log = log.map_or_else(
        |refused| json!({ "error": refused.to_string() }),
        |found| {
            let messages = found["events"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|event| event["message"].clone());
            messages.collect()
        },
    );
    json!({ "configuration": configuration, "log": log })
}

/// A line as it was printed, but whose mail address is in it.
fn without_addresses(line: &Line) -> Line {
    Line {
        found: with_addresses_masked(&line.found),
        fix: line.fix.as_deref().map(with_addresses_masked),
        ..line.clone()
    }
}

fn with_addresses_masked(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        if word.contains('@') {
            masked(word)
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Of a mail address, its domain.
fn masked(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((_, domain)) => format!("…@{domain}"),
        None => address.to_owned(),
    }
}

const LINES: u32 = 200;
