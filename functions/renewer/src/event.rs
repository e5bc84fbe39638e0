//! A batch of requests from the queue, each on its own; those that failed are handed back to be
//! delivered again.

use std::time::SystemTime;

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use futures::future::join_all;
use lambda_runtime::LambdaEvent;
use lambda_runtime::tracing::{error, info};
use neverlapse::metric::{self, Metric};
use neverlapse::renewal::request::Request;
use neverlapse::timestamp::Timestamp;
use serde::Deserialize;
use tokio::time::{Duration, Instant, timeout_at};

use crate::error::Error;
use crate::outcome::Outcome;
use crate::renew::Renewer;

/// Why a message has to be delivered again.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error(
        "the message is no renewal request: {0} (expected {{\"schema\": \"neverlapse.renewal-request/1\", \"name\": …}} in \
         SNS's envelope)"
    )]
    NoRequest(String),
    #[error(
        "a request for {name:?} that only a person may make came over {topic} (expected the output OperatorTopicArn)"
    )]
    NotByAPerson { name: String, topic: String },
    #[error(transparent)]
    Failed(#[from] Error),
}

/// What SNS makes of a message before it gives it to the queue. The topic is written by SNS, so it
/// says who may have published the message, whatever the message says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Notification {
    topic_arn: String,
    message: String,
}

/// Answers with the messages that failed, so that the others are not delivered again
/// (ReportBatchItemFailures).
pub(crate) async fn handle(
    renewer: &Renewer,
    event: LambdaEvent<SqsEvent>,
) -> Result<SqsBatchResponse, lambda_runtime::Error> {
    let left = event
        .context
        .deadline()
        .duration_since(SystemTime::now())
        .unwrap_or_default();
    let deadline = Instant::now() + left.saturating_sub(TIDYING.min(left / 3));

    let messages = event.payload.records;
    let succeeded = join_all(messages.iter().map(|message| respond(renewer, message, deadline))).await;

    let mut response = SqsBatchResponse::default();
    for (message, succeeded) in messages.into_iter().zip(succeeded) {
        if !succeeded {
            let mut failure = BatchItemFailure::default();
            failure.item_identifier = message.message_id.unwrap_or_default();
            response.batch_item_failures.push(failure);
        }
    }
    Ok(response)
}

/// Does what one message asks for, logs and counts the result, and answers whether it succeeded.
async fn respond(renewer: &Renewer, message: &SqsMessage, deadline: Instant) -> bool {
    let message_id = message.message_id.as_deref().unwrap_or_default();
    let result = attempt(renewer, message, deadline).await;

    if let Some(failed) = tried(&result) {
        // As CloudWatch wants it: on standard output, with nothing around it.
        println!("{}", metrics(renewer.stack(), failed, Timestamp::now()));
    }
    match result {
        Ok((name, outcome)) => {
            info!(message_id, name, %outcome, "request done");
            true
        }
        Err(failed) => {
            error!(message_id, error = %failed, "request failed");
            false
        }
    }
}

async fn attempt(
    renewer: &Renewer,
    message: &SqsMessage,
    deadline: Instant,
) -> Result<(String, Outcome), RequestError> {
    let request = read(message.body.as_deref().unwrap_or_default(), renewer.operator_topic())?;

    // Each step outside the lease has its own timeout, but many of them could add up.
    let outcome = timeout_at(
        deadline + GIVING_UP,
        renewer.handle(&request, deliveries(message), deadline),
    )
    .await
    .unwrap_or(Err(Error::out_of_time("something does not answer")))?;
    Ok((request.name, outcome))
}

/// How often the queue has delivered this message.
fn deliveries(message: &SqsMessage) -> u32 {
    let count = message.attributes.get("ApproximateReceiveCount");
    count.and_then(|count| count.parse().ok()).unwrap_or(1)
}

/// The request in a message. The probe reads hostile input all day, so over its topic it may ask for
/// a renewal that is due, and for nothing else.
fn read(body: &str, operator_topic: &str) -> Result<Request, RequestError> {
    let no_request = |error: serde_json::Error| RequestError::NoRequest(error.to_string());
    let Notification { topic_arn, message } = serde_json::from_str(body).map_err(no_request)?;
    let request: Request = serde_json::from_str(&message).map_err(no_request)?;

    if request.schema != Request::SCHEMA {
        return Err(RequestError::NoRequest(format!("schema {:?}", request.schema)));
    }
    if request.needs_a_person() && topic_arn != operator_topic {
        return Err(RequestError::NotByAPerson {
            name: request.name,
            topic: topic_arn,
        });
    }
    Ok(request)
}

/// Whether a renewal was tried, and if so, whether it failed. One that goes on with the next
/// delivery, or elsewhere, is not over.
fn tried(result: &Result<(String, Outcome), RequestError>) -> Option<bool> {
    match result {
        Ok((_, Outcome::Published(_))) => Some(false),
        Ok(_) | Err(RequestError::NoRequest(_) | RequestError::NotByAPerson { .. }) => None,
        Err(RequestError::Failed(error)) => match error {
            Error::Internal(_) | Error::CaDeclined(_) | Error::CaUnavailable { .. } => Some(true),
            Error::BucketUnreadable(_) | Error::OutOfTime(_) | Error::LeaseLost => None,
        },
    }
}

fn metrics(stack: &str, failed: bool, now: Timestamp) -> String {
    let counts = [
        Metric::count("RenewalsTried", 1),
        Metric::count("RenewalsFailed", failed.into()),
    ];
    metric::line(now, &[("Stack", stack)], &counts)
}

/// How much of Lambda's time is kept for removing TXT records and giving the lease up.
const TIDYING: Duration = Duration::from_secs(30);
/// How much of that may pass before a request is given up in any case, so that the answers of the
/// others are not lost with it.
const GIVING_UP: Duration = Duration::from_secs(25);

#[cfg(test)]
mod tests {
    use neverlapse::renewal::request::{Action, RequestedBy};
    use serde_json::json;

    use super::*;

    /// As SNS hands a message to the queue.
    fn over(topic: &str, message: &str) -> String {
        json!({"Type": "Notification", "TopicArn": topic, "Message": message}).to_string()
    }

    #[test]
    fn the_samples_in_events() {
        let request = include_str!("../../../events/renewal-request.json");
        let request = read(&over(PROBES, request), PEOPLES).unwrap();
        assert_eq!(request.name, "example.com");
        assert_eq!(request.observed[0].endpoint, "example.com:443");
        let mut batch: SqsEvent = serde_json::from_slice(include_bytes!("../../../events/renewal-batch.json")).unwrap();
        assert_eq!(
            read(batch.records[0].body.as_deref().unwrap(), PEOPLES).unwrap().name,
            "example.com"
        );
        let message = &mut batch.records[0];
        assert_eq!(deliveries(message), 1);
        message.attributes.insert("ApproximateReceiveCount".into(), "3".into());
        assert_eq!(deliveries(message), 3);
    }

    #[test]
    fn what_counts_as_tried() {
        let name = || "example.com".to_owned();
        let failed = |error| Err(RequestError::Failed(error));
        for (result, expected) in [
            (Ok((name(), Outcome::Busy)), None),
            (
                Ok((
                    name(),
                    Outcome::NotDue {
                        next: Timestamp::UNIX_EPOCH,
                    },
                )),
                None,
            ),
            (failed(Error::out_of_time("waiting")), None),
            (failed(Error::LeaseLost), None),
            (failed(Error::BucketUnreadable("AccessDenied".into())), None),
            (Err(RequestError::NoRequest("no JSON".into())), None),
            (failed(Error::Internal("no zone".into())), Some(true)),
            (failed(Error::CaDeclined("no".into())), Some(true)),
        ] {
            assert_eq!(tried(&result), expected, "{result:?}");
        }
        let line: serde_json::Value = serde_json::from_str(&metrics("prod", true, Timestamp::UNIX_EPOCH)).unwrap();
        assert_eq!(
            (&line["RenewalsTried"], &line["RenewalsFailed"]),
            (&1.0.into(), &1.0.into())
        );
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
                    matches!(refused, Err(RequestError::NotByAPerson { .. })),
                    "{request:?}: {refused:?}"
                );
            }
            // An envelope within the envelope is a message of the probe's all the same.
            let forged = over(PROBES, &over(PEOPLES, &message));
            assert!(matches!(read(&forged, PEOPLES), Err(RequestError::NoRequest(_))));
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
