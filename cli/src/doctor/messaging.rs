//! What sends and receives messages: topics, subscriptions, webhooks, alarms.

use aws_sdk_sns::Client;
use aws_sdk_sns::types::Subscription;
use neverlapse::alert::webhook::Webhooks;
use neverlapse::aws;
use serde_json::{Value, json};

use super::Patient;
use super::line::Line;
use crate::service::CLOUDWATCH;

/// Everything about messages.
pub(super) async fn examine(patient: &Patient) -> Vec<Line> {
    let sns = Client::new(&patient.stack.config);
    let mut lines = Vec::new();

    let webhooks = examine_webhooks(patient).await;
    let has_webhook = !webhooks.is_empty();
    lines.extend(webhooks);
    lines.extend(examine_alert_topic(patient, &sns, has_webhook).await);
    for (about, output) in [
        ("requests of the probe", "RenewalTopicArn"),
        ("requests of people", "OperatorTopicArn"),
    ] {
        lines.extend(examine_request_topic(patient, &sns, about, output).await);
    }
    lines.extend(examine_alarms(patient).await);
    lines
}

/// The webhooks, if there are any.
async fn examine_webhooks(patient: &Patient) -> Vec<Line> {
    let about = "webhooks";
    let webhooks = Webhooks::read(&patient.stack.store).await;

    let broken = webhooks.broken.iter().map(|error| {
        Line::critical(
            about,
            error,
            "nobody is notified there, and every run fails",
            "put the object again (docs/integrations.md), and see neverlapse test-alert",
        )
    });
    let mut lines: Vec<_> = broken.collect();
    let names = webhooks.names();
    if !names.is_empty() {
        lines.push(Line::ok(about, format!("{}; --send posts to them", names.join(", "))));
    }
    lines
}

async fn examine_alert_topic(patient: &Patient, sns: &Client, has_webhook: bool) -> Vec<Line> {
    let Ok(topic) = patient.stack.output("AlertTopicArn") else {
        return Vec::new();
    };
    let about = "alerts";
    let subscriptions = match subscriptions(sns, topic).await {
        Ok(subscriptions) => subscriptions,
        Err(reason) => return vec![Line::unknown(about, reason)],
    };

    let email = patient.stack.parameter("AlertEmail");
    let slack = patient.stack.parameter("SlackWorkspaceId");
    let mut lines = of_subscribers(topic, &subscriptions, email, slack.is_some(), has_webhook);
    for one in subscriptions
        .iter()
        .filter(|one| one.protocol() == Some("email") && is_confirmed(one))
    {
        lines.extend(examine_email(sns, topic, one).await);
    }
    lines.extend(examine_topic(patient, sns, about, topic).await);
    if lines.is_empty() {
        let heard: Vec<_> = subscriptions.iter().filter_map(Subscription::endpoint).collect();
        lines.push(Line::ok(about, format!("received by {}", heard.join(", "))));
    }
    lines
}

/// Who receives an alert.
fn of_subscribers(
    topic: &str,
    subscriptions: &[Subscription],
    email: Option<&str>,
    amazon_q: bool,
    has_webhook: bool,
) -> Vec<Line> {
    let about = "alerts";
    let mut lines = Vec::new();
    for one in subscriptions.iter().filter(|one| !is_confirmed(one)) {
        let endpoint = one.endpoint().unwrap_or_default();
        let found = match one.subscription_arn() {
            Some("Deleted") => format!("{endpoint} is not subscribed any more"),
            _ => format!("{endpoint} has not confirmed its subscription"),
        };
        lines.push(Line::critical(
            about,
            found,
            "SNS drops what is sent to it",
            format!("aws sns subscribe --topic-arn {topic} --protocol {} --notification-endpoint {endpoint} sends the request again", one.protocol().unwrap_or_default()),
        ));
    }

    if let Some(email) = email.filter(|email| !is_subscribed(email, subscriptions)) {
        lines.push(Line::critical(
            about,
            format!("{email} (AlertEmail) is not subscribed"),
            "it receives no alert",
            format!("aws sns subscribe --topic-arn {topic} --protocol email --notification-endpoint {email}"),
        ));
    }
    if amazon_q && !is_subscribed("chatbot", subscriptions) {
        lines.push(Line::critical(
            about,
            "Amazon Q Developer is not subscribed, although SlackWorkspaceId is set",
            "its Slack channel receives no alert",
            "make deploy, or add the topic to the channel's configuration in the console of Amazon Q Developer in chat applications",
        ));
    }
    if subscriptions.iter().all(|one| !is_confirmed(one)) && !has_webhook {
        lines.push(Line::critical(
            about,
            "no confirmed subscriber receives them",
            "a certificate can expire without an alert",
            format!("aws sns subscribe --topic-arn {topic} --protocol email --notification-endpoint ADDRESS"),
        ));
    }
    lines
}

/// Whether one of the subscriptions has this in its endpoint.
fn is_subscribed(endpoint: &str, subscriptions: &[Subscription]) -> bool {
    let mut known = subscriptions.iter().filter_map(Subscription::endpoint);
    known.any(|known| known.contains(endpoint))
}

fn is_confirmed(subscription: &Subscription) -> bool {
    subscription
        .subscription_arn()
        .is_some_and(|arn| arn.starts_with("arn:"))
}

/// Whether a link in each of its messages ends an address's subscription.
async fn examine_email(sns: &Client, topic: &str, subscription: &Subscription) -> Option<Line> {
    let arn = subscription.subscription_arn()?;
    let answer = sns.get_subscription_attributes().subscription_arn(arn).send().await;
    let attributes = match answer {
        Ok(answer) => answer.attributes.unwrap_or_default(),
        Err(error) => return Some(Line::unknown("alerts", aws::reason(&error))),
    };
    let endpoint = subscription.endpoint().unwrap_or_default();
    let was_authenticated = attributes.get("ConfirmationWasAuthenticated").map(String::as_str);
    (was_authenticated == Some("false")).then(|| of_anybodys(topic, endpoint))
}

fn of_anybodys(topic: &str, endpoint: &str) -> Line {
    Line::warning(
        "alerts",
        format!("anyone who has a message to {endpoint} can end the subscription, by the link at its end"),
        "mail scanners follow such links, and no one is notified",
        format!(
            "subscribe again, and confirm by aws sns confirm-subscription --topic-arn {topic} --token TOKEN \
             --authenticate-on-unsubscribe true"
        ),
    )
}

async fn examine_request_topic(patient: &Patient, sns: &Client, about: &str, output: &str) -> Vec<Line> {
    // That there is none, a line of its own says.
    let Ok(topic) = patient.stack.output(output) else {
        return Vec::new();
    };
    let Some(queue) = patient.resource("RenewalQueue") else {
        return Vec::new();
    };
    let subscriptions = match subscriptions(sns, topic).await {
        Ok(subscriptions) => subscriptions,
        Err(reason) => return vec![Line::unknown(about, reason)],
    };

    let queue = queue.rsplit('/').next().unwrap_or_default();
    let subscription = subscriptions
        .iter()
        .find(|one| one.endpoint().is_some_and(|endpoint| endpoint.ends_with(queue)));
    let mut lines = match subscription.and_then(Subscription::subscription_arn) {
        None => vec![Line::critical(
            about,
            "the renewer's queue is not subscribed to their topic",
            "they are lost",
            "make deploy",
        )],
        Some(arn) => match sns.get_subscription_attributes().subscription_arn(arn).send().await {
            Ok(answer) => of_delivery(
                about,
                arn,
                answer
                    .attributes()
                    .and_then(|attributes| attributes.get("RawMessageDelivery")),
            ),
            Err(error) => vec![Line::unknown(about, aws::reason(&error))],
        },
    };
    lines.extend(examine_topic(patient, sns, about, topic).await);
    if lines.is_empty() {
        lines.push(Line::ok(about, "reach the renewer's queue"));
    }
    lines
}

fn of_delivery(about: &str, arn: &str, raw: Option<&String>) -> Vec<Line> {
    let is_raw = raw.is_some_and(|raw| raw == "true");
    let line = is_raw.then(|| {
        Line::critical(
            about,
            "they are delivered raw, without the envelope that says over which topic they came",
            "the renewer refuses them",
            format!("aws sns set-subscription-attributes --subscription-arn {arn} --attribute-name RawMessageDelivery --attribute-value false"),
        )
    });
    line.into_iter().collect()
}

/// What every topic has.
async fn examine_topic(patient: &Patient, sns: &Client, about: &str, topic: &str) -> Option<Line> {
    let answer = sns.get_topic_attributes().topic_arn(topic).send().await;
    let attributes = match answer {
        Ok(answer) => answer.attributes.unwrap_or_default(),
        Err(error) => return Some(Line::unknown(about, aws::reason(&error))),
    };

    let key = attributes.get("KmsMasterKeyId").map(String::as_str).unwrap_or_default();
    let expected = patient.resource("Key").unwrap_or_default();
    (!key.ends_with(expected)).then(|| {
        Line::warning(
            about,
            format!("their topic is encrypted with {key:?} (expected the stack's Key, {expected:?})"),
            "messages name your hosts, and the stack's key no longer decides who may read them",
            format!("aws sns set-topic-attributes --topic-arn {topic} --attribute-name KmsMasterKeyId --attribute-value {expected}"),
        )
    })
}

async fn subscriptions(sns: &Client, topic: &str) -> Result<Vec<Subscription>, String> {
    let pages = sns
        .list_subscriptions_by_topic()
        .topic_arn(topic)
        .into_paginator()
        .items()
        .send();
    let all: Result<Vec<_>, _> = pages.collect().await;
    all.map_err(|error| aws::reason(&error))
}

async fn examine_alarms(patient: &Patient) -> Vec<Line> {
    let names: Vec<_> = patient
        .resources_of("AWS::CloudWatch::Alarm")
        .map(|(_, name)| name)
        .collect();
    let query = json!({"AlarmNames": names, "MaxRecords": 100});
    let answer = patient
        .stack
        .services
        .json(CLOUDWATCH, "GraniteServiceVersion20100801.DescribeAlarms", &query)
        .await;
    let found = match answer {
        Ok(answer) => answer["MetricAlarms"].as_array().cloned().unwrap_or_default(),
        Err(refused) => return vec![Line::unknown("alarms", refused)],
    };

    let topic = patient.stack.output("AlertTopicArn").unwrap_or_default();
    let alarms = patient.resources_of("AWS::CloudWatch::Alarm");
    alarms
        .map(|(id, name)| {
            let alarm = found.iter().find(|alarm| alarm["AlarmName"] == name);
            of_alarm(id, name, alarm, topic)
        })
        .collect()
}

fn of_alarm(id: &str, name: &str, alarm: Option<&Value>, topic: &str) -> Line {
    let about = format!("alarm {id}");
    let Some(alarm) = alarm else {
        return Line::critical(
            about,
            "it does not exist",
            "no one is notified when neverlapse itself fails",
            "make deploy",
        );
    };

    let hears = alarm["AlarmActions"]
        .as_array()
        .is_some_and(|actions| actions.iter().any(|action| action == topic));
    if alarm["ActionsEnabled"] == false {
        let fix = format!("aws cloudwatch enable-alarm-actions --alarm-names {name}");
        return Line::critical(
            about,
            "its actions are disabled",
            "it changes its state, and notifies no one",
            fix,
        );
    }
    if !hears {
        return Line::critical(
            about,
            "it does not publish to the stack's AlertTopic",
            "it notifies no one",
            "make deploy",
        );
    }
    match alarm["StateValue"].as_str().unwrap_or_default() {
        "ALARM" => Line::critical(
            about,
            format!("it is in alarm: {}", alarm["StateReason"].as_str().unwrap_or_default()),
            meaning(id),
            "docs/operations.md says what to do about each alarm",
        ),
        "OK" => Line::ok(about, "quiet"),
        _ => Line::ok(about, "quiet: no data yet"),
    }
}

/// What it means that an alarm is in alarm.
fn meaning(id: &str) -> &'static str {
    match id {
        "NoHeartbeat" => "nobody watches these certificates",
        "ProbeErrors" => "runs fail",
        "RenewerErrors" => "renewals fail",
        "ProbeThrottled" | "RenewerThrottled" => "Lambda may not start it: the account's concurrency is used up",
        "DeadLettersArrived" => "a run or a renewal was given up",
        "ManagedCertificateLapsing" => "a certificate is about to expire: its renewal has failed for long",
        _ => "something that it watches is wrong",
    }
}

#[cfg(test)]
mod tests {
    use neverlapse::finding::Severity;

    use super::*;

    fn subscription(arn: &str, protocol: &str, endpoint: &str) -> Subscription {
        Subscription::builder()
            .subscription_arn(arn)
            .protocol(protocol)
            .endpoint(endpoint)
            .build()
    }

    #[test]
    fn subscriptions_that_the_local_stack_cannot_show() {
        let pending = [subscription("PendingConfirmation", "email", "ops@example.com")];
        let lines = of_subscribers("topic", &pending, Some("ops@example.com"), false, false);
        let found: Vec<_> = lines.iter().map(|line| line.found.as_str()).collect();
        assert_eq!(
            found,
            [
                "ops@example.com has not confirmed its subscription",
                "no confirmed subscriber receives them"
            ]
        );

        let ended = [subscription("Deleted", "email", "ops@example.com")];
        let lines = of_subscribers("topic", &ended, Some("ops@example.com"), false, true);
        assert_eq!(lines.len(), 1, "Slack receives them: {lines:?}");
        assert_eq!(lines[0].found, "ops@example.com is not subscribed any more");

        let confirmed = [subscription("arn:aws:sns:r:1:t:s", "email", "ops@example.com")];
        assert_eq!(
            of_subscribers("topic", &confirmed, Some("ops@example.com"), false, false),
            []
        );
        let lines = of_subscribers("topic", &confirmed, None, true, false);
        assert!(
            lines[0].found.starts_with("Amazon Q Developer is not subscribed"),
            "{lines:?}"
        );
        assert_eq!(of_anybodys("topic", "ops@example.com").status, Severity::Warning);
    }
}
