//! A batch of requests from the queue, each on its own; those that failed are handed back to be
//! delivered again.

use std::time::SystemTime;

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use futures::future::join_all;
use lambda_runtime::LambdaEvent;
use lambda_runtime::tracing::{error, info};
use neverlapse::isolation::{Panicked, isolated_async};
use neverlapse::metric::{self, Metric};
use neverlapse::timestamp::Timestamp;
use tokio::time::{Duration, Instant, timeout_at};

use crate::error::Error;
use crate::message::{self, Unreadable};
use crate::outcome::Outcome;
use crate::renew::Renewer;

/// Why a message has to be delivered again.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Failed(#[from] Error),
    #[error(transparent)]
    Panicked(#[from] Panicked),
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
    // Nothing of one request is lost with another one of the batch.
    let result = isolated_async(attempt(renewer, message, deadline)).await;
    let result = result.unwrap_or_else(|panicked| Err(panicked.into()));

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
    let request = message::read(message.body.as_deref().unwrap_or_default(), renewer.operator_topic())?;

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

/// Whether a renewal was tried, and if so, whether it failed. One that goes on with the next
/// delivery, or elsewhere, is not over.
fn tried(result: &Result<(String, Outcome), RequestError>) -> Option<bool> {
    match result {
        Ok((_, Outcome::Published(_))) => Some(false),
        Ok(_) | Err(RequestError::Unreadable(_)) => None,
        Err(RequestError::Panicked(_)) => Some(true),
        Err(RequestError::Failed(error)) => match error {
            Error::Internal(_)
            | Error::CaDeclined(_)
            | Error::CaUnavailable { .. }
            | Error::Unfit { .. }
            | Error::IssuersInTrouble { .. } => Some(true),
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
    use super::*;

    #[test]
    fn the_sample_in_events() {
        let mut batch: SqsEvent = serde_json::from_slice(include_bytes!("../../../events/renewal-batch.json")).unwrap();
        let body = batch.records[0].body.as_deref().unwrap();
        let operator_topic = "arn:aws:sns:eu-central-1:123456789012:neverlapse-OperatorTopic-1";
        assert_eq!(message::read(body, operator_topic).unwrap().name, "example.com");

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
            (Err(Unreadable::NoRequest("no JSON".into()).into()), None),
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
}
