//! What reaches the functions as an event: a message of the renewer's queue, and an event of the
//! probe.

#![no_main]
#![allow(dead_code, reason = "modules of the functions, of which a target calls a part")]

#[path = "../../functions/probe/src/event.rs"]
mod event;
#[path = "../../functions/renewer/src/message.rs"]
mod message;

use libfuzzer_sys::fuzz_target;
use neverlapse::text::sha256;
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);

    // As it is, and in the envelopes that SNS would put around it.
    let _ = message::read(&text, OPERATORS);
    for topic in [PROBES, OPERATORS] {
        let body = json!({"Type": "Notification", "TopicArn": topic, "Message": text}).to_string();
        match message::read(&body, OPERATORS) {
            Ok(request) => {
                assert!(topic == OPERATORS || !request.needs_a_person(), "{request:?}");
                let again = serde_json::to_string(&request).expect("a request is JSON");
                let body = json!({"TopicArn": topic, "Message": again}).to_string();
                assert_eq!(message::read(&body, OPERATORS).expect("and is read back"), request);
            }
            Err(error) => assert!(error.to_string().len() < 4_000, "{}", sha256(data)),
        }
    }

    if let Ok(event) = serde_json::from_slice::<Value>(data) {
        match event::Event::read(&event) {
            // A key that is none of the known ones must not probe the whole inventory.
            Ok(event::Event::Everything | event::Event::Renewals) => {
                assert!(
                    event
                        .as_object()
                        .is_some_and(|fields| fields.is_empty() || fields.contains_key("source"))
                );
            }
            Ok(event::Event::Endpoints(endpoints)) => assert!(!endpoints.is_empty()),
            Err(error) => assert!(error.len() < 1_000, "{error}"),
        }
    }
});

const PROBES: &str = "arn:aws:sns:eu-central-1:123456789012:neverlapse-RenewalTopic-1";
const OPERATORS: &str = "arn:aws:sns:eu-central-1:123456789012:neverlapse-OperatorTopic-1";
