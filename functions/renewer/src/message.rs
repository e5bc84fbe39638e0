//! One message of the queue: a request, in the envelope that SNS puts around it.

use neverlapse::renewal::request::Request;
use neverlapse::text::cut;
use serde::Deserialize;
use thiserror::Error;

/// Why a message is not a request that may be carried out. What is quoted of it is cut: a message
/// may have a megabyte.
#[derive(Debug, Error)]
pub(crate) enum Unreadable {
    #[error(
        "the message is no renewal request: {0} (expected {{\"schema\": \"neverlapse.renewal-request/1\", \"name\": …}} in \
         SNS's envelope)"
    )]
    NoRequest(String),
    #[error(
        "a request for {name:?} that only a person may make came over {topic} (expected the output OperatorTopicArn)"
    )]
    NotByAPerson { name: String, topic: String },
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        Self::NoRequest(cut(&error.to_string(), LONGEST))
    }
}

/// The request in a message. The probe reads hostile input all day, so over its topic it may ask
/// for a renewal that is due, and for nothing else.
pub(crate) fn read(body: &str, operator_topic: &str) -> Result<Request, Unreadable> {
    let Notification { topic_arn, message } = serde_json::from_str(body)?;
    let request: Request = serde_json::from_str(&message)?;

    if request.schema != Request::SCHEMA {
        return Err(Unreadable::NoRequest(format!(
            "schema {:?}",
            cut(&request.schema, LONGEST)
        )));
    }
    if request.needs_a_person() && topic_arn != operator_topic {
        return Err(Unreadable::NotByAPerson {
            name: cut(&request.name, LONGEST),
            topic: topic_arn,
        });
    }
    Ok(request)
}

/// What SNS makes of a message before it gives it to the queue. The topic is written by SNS, so it
/// says who may have published the message, whatever the message says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Notification {
    topic_arn: String,
    message: String,
}

/// Of what is quoted, in characters.
const LONGEST: usize = 255;

#[cfg(test)]
mod tests {
    use neverlapse::renewal::request::{Action, RequestedBy};
    use neverlapse::timestamp::Timestamp;
    use serde_json::json;

    use super::*;

    /// As SNS hands a message to the queue.
    fn over(topic: &str, message: &str) -> String {
        json!({"Type": "Notification", "TopicArn": topic, "Message": message}).to_string()
    }

    #[test]
    fn the_sample_in_events() {
        let request = include_str!("../../../events/renewal-request.json");
        let request = read(&over(PROBES, request), PEOPLES).unwrap();
        assert_eq!(request.name, "example.com");
        assert_eq!(request.observed[0].endpoint, "example.com:443");
    }

    #[test]
    fn anything_else_is_refused() {
        let later = r#"{"schema": "neverlapse.renewal-request/9", "name": "x", "requested_by": "probe", "at": "2026-01-01T00:00:00Z"}"#;
        let request = include_str!("../../../events/renewal-request.json");
        let bodies = ["", "{}", "[]", request].map(str::to_owned).into_iter();
        for body in bodies.chain(["", "{}", later].map(|message| over(PEOPLES, message))) {
            let error = read(&body, PEOPLES).unwrap_err().to_string();
            assert!(
                error.contains("expected") && error.starts_with("the message is no renewal request"),
                "{error}"
            );
        }
    }

    /// The parser quotes what it did not expect, and escapes it: six times as long, in every log
    /// line about it.
    #[test]
    fn what_it_quotes_is_cut() {
        let long = "\u{7f}".repeat(10_000);
        let text = json!(long).to_string();
        let schema = json!({"schema": long, "name": "x", "requested_by": "probe", "at": "2026-01-01T00:00:00Z"});
        let name =
            json!({"schema": Request::SCHEMA, "name": long, "requested_by": "person", "at": "2026-01-01T00:00:00Z"});
        for message in [text, schema.to_string(), name.to_string()] {
            let error = read(&over(PROBES, &message), PEOPLES).unwrap_err().to_string();
            assert!(error.len() < 4_000, "{}", error.len());
        }
    }

    #[test]
    fn the_probe_cannot_ask_for_what_only_a_person_may() {
        let due = Request::new("example.com", RequestedBy::Probe, Timestamp::UNIX_EPOCH);
        let of_people = [
            Request {
                requested_by: RequestedBy::Person,
                ..due.clone()
            },
            Request {
                action: Action::Revoke,
                ..due.clone()
            },
            Request {
                action: Action::ReplaceAccountKey,
                ..due.clone()
            },
            Request {
                force: true,
                ..due.clone()
            },
            Request {
                dry_run: true,
                ..due.clone()
            },
            Request {
                key_compromise: true,
                ..due.clone()
            },
            Request {
                version: Some("20260903T060112Z-5f0c11d2".into()),
                ..due.clone()
            },
        ];
        for request in of_people {
            let message = serde_json::to_string(&request).unwrap();
            for topic in [
                PROBES,
                "",
                "arn:aws:sns:eu-central-1:123456789012:neverlapse-OperatorTopic-2",
            ] {
                let refused = read(&over(topic, &message), PEOPLES);
                assert!(
                    matches!(refused, Err(Unreadable::NotByAPerson { .. })),
                    "{request:?}: {refused:?}"
                );
            }
            // An envelope within the envelope is a message of the probe's all the same.
            let forged = over(PROBES, &over(PEOPLES, &message));
            assert!(matches!(read(&forged, PEOPLES), Err(Unreadable::NoRequest(_))));
            assert_eq!(read(&over(PEOPLES, &message), PEOPLES).unwrap(), request);
        }
        assert_eq!(
            read(&over(PROBES, &serde_json::to_string(&due).unwrap()), PEOPLES).unwrap(),
            due
        );
    }

    const PROBES: &str = "arn:aws:sns:eu-central-1:123456789012:neverlapse-RenewalTopic-1";
    const PEOPLES: &str = "arn:aws:sns:eu-central-1:123456789012:neverlapse-OperatorTopic-1";
}
