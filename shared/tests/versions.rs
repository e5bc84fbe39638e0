//! Stacks and clients of different versions: what an earlier one wrote is read, what is written now
//! has all that an earlier one reads, and what a later one may add is no obstacle.
//!
//! `versions/0.1.0` has the documents that version wrote into its bucket, and what it was asked.
//! They are never edited: a change that does not pass here needs a new format
//! (`neverlapse.report/2`), and a version that reads both.

use neverlapse::alert::State;
use neverlapse::bucket::document;
use neverlapse::bucket::receipt::Receipt;
use neverlapse::bucket::version::{Current, Manifest};
use neverlapse::finding::Code;
use neverlapse::renewal::Renewal;
use neverlapse::renewal::request::Request;
use neverlapse::report::Report;
use neverlapse::report::page::page;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

#[test]
fn the_documents_of_an_earlier_version() {
    of_version_0_1_0::<Report>(include_str!("versions/0.1.0/report.json"));
    of_version_0_1_0::<Current>(include_str!("versions/0.1.0/current.json"));
    of_version_0_1_0::<Manifest>(include_str!("versions/0.1.0/manifest.json"));
    of_version_0_1_0::<Renewal>(include_str!("versions/0.1.0/renewal.json"));
    of_version_0_1_0::<Receipt>(include_str!("versions/0.1.0/receipt.json"));
    of_version_0_1_0::<Request>(include_str!("versions/0.1.0/renewal-request.json"));
    of_version_0_1_0::<State>(include_str!("versions/0.1.0/alerts.json"));
}

/// A client that is older than the stack has to live with findings that it does not know.
#[test]
fn a_finding_of_a_later_version_made_the_whole_report_unreadable() {
    let later =
        json!({"code": "quantum_doubt", "severity": "warning", "message": "the key is in doubt", "qubits": 4_099});
    let mut report: Value = serde_json::from_str(include_str!("versions/0.1.0/report.json")).unwrap();
    report["endpoints"][0]["findings"] = json!([later]);

    let read: Report = document::read(report.to_string().as_bytes()).unwrap();
    let finding = &read.endpoints[0].findings[0];
    assert_eq!(*finding.kind.code(), Code::Unknown("quantum_doubt".into()));
    assert!(page(&read, None).unwrap().contains("the key is in doubt"));
    assert_eq!(json!(read)["endpoints"][0]["findings"][0], later);
}

#[test]
fn a_later_format_is_named_and_not_guessed_at() {
    let mut report: Value = serde_json::from_str(include_str!("versions/0.1.0/report.json")).unwrap();
    report["schema"] = json!("neverlapse.report/2");
    let error = document::read::<Report>(report.to_string().as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"its format is "neverlapse.report/2" (expected "neverlapse.report/1")"#
    );
}

/// Reads it, writes it again, and reads it with members that a later version may have added.
fn of_version_0_1_0<T: Serialize + DeserializeOwned>(text: &str) {
    let written: Value = serde_json::from_str(text).unwrap();
    let read: T = serde_json::from_value(written.clone()).unwrap();
    let now = json!(read);
    assert_has_all(&now, &written, "");

    let mut later = written;
    add_members(&mut later);
    let read: T = serde_json::from_value(later).unwrap();
    assert_eq!(json!(read), now);
}

/// Whether a reader of `earlier` finds all of it in `now`.
fn assert_has_all(now: &Value, earlier: &Value, place: &str) {
    match (now, earlier) {
        (Value::Object(now), Value::Object(earlier)) => {
            for (name, value) in earlier {
                let found = now.get(name).unwrap_or_else(|| panic!("{place}/{name} is gone"));
                assert_has_all(found, value, &format!("{place}/{name}"));
            }
        }
        (Value::Array(now), Value::Array(earlier)) => {
            assert_eq!(now.len(), earlier.len(), "{place}");
            for (index, (now, earlier)) in now.iter().zip(earlier).enumerate() {
                assert_has_all(now, earlier, &format!("{place}/{index}"));
            }
        }
        _ => assert_eq!(now, earlier, "{place}"),
    }
}

/// Into every object that is no map.
fn add_members(document: &mut Value) {
    match document {
        Value::Object(members) => {
            for (name, value) in members.iter_mut() {
                match value {
                    Value::Object(map) if MAPS.contains(&name.as_str()) => map.values_mut().for_each(add_members),
                    value => add_members(value),
                }
            }
            members.insert("later".into(), json!({"by": ["a", "later", "version"]}));
        }
        Value::Array(items) => items.iter_mut().for_each(add_members),
        _ => {}
    }
}

/// Members whose members have names of their own.
const MAPS: [&str; 3] = ["files", "matters", "gone"];
