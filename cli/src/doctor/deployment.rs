//! The stack itself: its outputs, the functions, what starts them, and what they left behind.

use neverlapse::text::{cut, printable};
use neverlapse::timestamp::Timestamp;
use serde_json::{Value, json};
use time::Duration;

use super::Patient;
use super::line::Line;
use crate::service::{LAMBDA, LOGS, SCHEDULER, SQS, percent_encoded};

/// Everything about the deployment.
pub(super) async fn examine(patient: &Patient) -> Vec<Line> {
    let mut lines = vec![of_status(patient.stack.name(), &patient.stack.status)];
    lines.extend(OUTPUTS.iter().filter_map(|output| missing_output(patient, output)));

    for function in &FUNCTIONS {
        lines.extend(examine_function(patient, function).await);
    }
    lines.push(examine_mapping(patient).await);
    for schedule in patient.resources_of("AWS::Scheduler::Schedule") {
        lines.push(examine_schedule(patient, schedule).await);
    }
    lines.extend(examine_queues(patient).await);
    lines
}

/// Of CloudFormation's word for the stack's state.
fn of_status(name: &str, status: &str) -> Line {
    let about = "stack";
    let events = format!("aws cloudformation describe-stack-events --stack-name {name}");

    match status {
        "CREATE_COMPLETE" | "UPDATE_COMPLETE" | "IMPORT_COMPLETE" => Line::ok(about, status),
        "UPDATE_ROLLBACK_COMPLETE" | "IMPORT_ROLLBACK_COMPLETE" => Line::warning(
            about,
            format!("{status}: the last update failed and was rolled back"),
            "the stack is as it was before that update",
            format!("{events} says why; then make deploy"),
        ),
        _ if status.ends_with("_IN_PROGRESS") => Line::warning(
            about,
            format!("{status}: it is being changed"),
            "what is looked at may be halfway",
            "wait until it is done, and run this again",
        ),
        _ => Line::critical(
            about,
            status,
            "CloudFormation could not bring it to a state that works",
            format!("{events} says why"),
        ),
    }
}

fn missing_output(patient: &Patient, output: &str) -> Option<Line> {
    patient.stack.output(output).err().map(|_| {
        Line::critical(
            format!("output {output}"),
            "the stack does not have it",
            "the template is older than this command, or another one",
            "make deploy, from the release of this command",
        )
    })
}

/// A function of the template.
struct Function {
    id: &'static str,
    logs: &'static str,
    role: &'static str,
    /// In seconds, where no parameter says otherwise.
    timeout: u64,
    timeout_parameter: Option<&'static str>,
    /// Variables and the outputs that they have.
    variables: &'static [(&'static str, &'static str)],
}

const FUNCTIONS: [Function; 2] = [
    Function {
        id: "Probe",
        logs: "ProbeLogs",
        role: "ProbeRole",
        timeout: 300,
        timeout_parameter: Some("ProbeTimeoutSeconds"),
        variables: &[
            ("BUCKET", "BucketName"),
            ("ALERT_TOPIC_ARN", "AlertTopicArn"),
            ("RENEWAL_TOPIC_ARN", "RenewalTopicArn"),
        ],
    },
    Function {
        id: "Renewer",
        logs: "RenewerLogs",
        role: "RenewerRole",
        timeout: 600,
        timeout_parameter: None,
        variables: &[
            ("BUCKET", "BucketName"),
            ("ALERT_TOPIC_ARN", "AlertTopicArn"),
            ("OPERATOR_TOPIC_ARN", "OperatorTopicArn"),
            ("SECRETS_KEY_ARN", "SecretsKeyArn"),
        ],
    },
];

async fn examine_function(patient: &Patient, function: &Function) -> Vec<Line> {
    let about = format!("function {}", function.id);
    let Some(name) = patient.resource(function.id) else {
        return vec![gone(&about)];
    };
    let path = format!("/2015-03-31/functions/{name}/configuration");
    let configuration = match patient.stack.services.get(LAMBDA, &path).await {
        Ok(configuration) => configuration,
        Err(refused) if refused.is_missing() => return vec![gone(&about)],
        Err(refused) => return vec![Line::unknown(about, refused)],
    };

    let architecture = patient.stack.parameter("Architecture").unwrap_or("arm64");
    let mut wrong = of_configuration(&about, &configuration, architecture);
    if let Some(expected) = patient.resource(function.role) {
        wrong.extend(of_role(&about, &configuration, function.role, expected));
    }
    let timeout = function
        .timeout_parameter
        .and_then(|parameter| patient.stack.number(parameter));
    wrong.extend(of_timeout(
        &about,
        name,
        &configuration,
        timeout.unwrap_or(function.timeout),
    ));
    let variables = function.variables.iter();
    wrong.extend(variables.filter_map(|(variable, output)| {
        let expected = patient.stack.output(output).ok()?;
        of_variable(&about, &configuration, variable, expected)
    }));
    let concurrency = format!("/2019-09-30/functions/{name}/concurrency");
    wrong.extend(match patient.stack.services.get(LAMBDA, &concurrency).await {
        Ok(concurrency) => of_concurrency(&about, name, &concurrency),
        Err(refused) => Some(Line::unknown(&about, refused)),
    });
    wrong.extend(examine_log(patient, function).await);

    if wrong.is_empty() {
        let memory = &configuration["MemorySize"];
        let timeout = &configuration["Timeout"];
        wrong.push(Line::ok(
            about,
            format!("{architecture}, {memory} MB, {timeout} s, no errors since yesterday"),
        ));
    }
    wrong
}

fn gone(about: &str) -> Line {
    Line::critical(about, "it does not exist", "nothing runs", "make deploy")
}

fn of_configuration(about: &str, configuration: &Value, architecture: &str) -> Vec<Line> {
    let mut wrong = Vec::new();

    for (state, found, why) in [
        ("State", "Lambda cannot run it", "it does nothing"),
        (
            "LastUpdateStatus",
            "its last update failed",
            "it may be another version than the stack's",
        ),
    ] {
        if configuration[state] == "Failed" {
            let reason = configuration[format!("{state}Reason")].as_str().unwrap_or_default();
            let found = format!("{found}: {reason}");
            wrong.push(Line::critical(
                about,
                found,
                why,
                "correct what it says, then make deploy",
            ));
        }
    }

    let actual = configuration["Architectures"][0].as_str().unwrap_or("x86_64");
    if actual != architecture {
        wrong.push(Line::critical(
            about,
            format!("its processor is {actual}, and the stack's parameter Architecture is {architecture}"),
            "a program that is built for one does not start on the other",
            format!("make deploy ARCHITECTURE={architecture}"),
        ));
    }
    wrong
}

fn of_role(about: &str, configuration: &Value, role: &str, expected: &str) -> Option<Line> {
    let actual = configuration["Role"].as_str().unwrap_or_default();
    (actual.rsplit('/').next() != Some(expected)).then(|| {
        Line::critical(
            about,
            format!("its role is {actual:?} (expected the stack's {role}, {expected})"),
            "it may do more than it should, or less, because it was changed outside of the stack",
            "make deploy",
        )
    })
}

fn of_timeout(about: &str, name: &str, configuration: &Value, expected: u64) -> Option<Line> {
    let timeout = configuration["Timeout"].as_u64().unwrap_or(0);
    (timeout < expected).then(|| {
        Line::critical(
            about,
            format!("its timeout is {timeout} s (expected {expected})"),
            "it is ended before it is done, because it was changed outside of the stack",
            format!("aws lambda update-function-configuration --function-name {name} --timeout {expected}"),
        )
    })
}

fn of_variable(about: &str, configuration: &Value, variable: &str, expected: &str) -> Option<Line> {
    let actual = configuration["Environment"]["Variables"][variable]
        .as_str()
        .unwrap_or_default();
    (actual != expected).then(|| {
        Line::critical(
            about,
            format!("its variable {variable} is {actual:?} (expected {expected:?})"),
            "it works with something else than this stack",
            "make deploy",
        )
    })
}

fn of_concurrency(about: &str, name: &str, concurrency: &Value) -> Option<Line> {
    (concurrency["ReservedConcurrentExecutions"].as_u64() == Some(0)).then(|| {
        Line::critical(
            about,
            "its reserved concurrency is 0",
            "Lambda may not start it",
            format!("aws lambda delete-function-concurrency --function-name {name}"),
        )
    })
}

/// What the function logged as an error since yesterday.
async fn examine_log(patient: &Patient, function: &Function) -> Option<Line> {
    let about = format!("function {}", function.id);
    let group = patient.resource(function.logs)?;
    let since = (patient.now - Duration::DAY).unix() * 1_000;

    let mut events = Vec::new();
    for pattern in [ERRORS, RUNTIME_ERRORS] {
        let query = json!({"logGroupName": group, "startTime": since, "filterPattern": pattern, "limit": 50});
        let answer = patient
            .stack
            .services
            .json(LOGS, "Logs_20140328.FilterLogEvents", &query)
            .await;
        match answer {
            Ok(found) => events.extend(found["events"].as_array().cloned().unwrap_or_default()),
            Err(refused) if refused.is_missing() => {
                let why = "nothing of what it does is recorded, and no metric arrives: those come out of the log";
                return Some(Line::critical(
                    about,
                    format!("its log group {group} does not exist"),
                    why,
                    "make deploy",
                ));
            }
            Err(refused) => return Some(Line::unknown(about, refused)),
        }
    }
    of_errors(&about, group, &events)
}

fn of_errors(about: &str, group: &str, events: &[Value]) -> Option<Line> {
    let last = events.last()?["message"].as_str().unwrap_or_default();
    if events
        .iter()
        .any(|event| is_of_another_processor(event["message"].as_str().unwrap_or_default()))
    {
        return Some(Line::critical(
            about,
            "its program is built for another processor",
            "Lambda cannot start it",
            "make deploy, which builds for the stack's Architecture",
        ));
    }

    Some(Line::warning(
        about,
        format!(
            "{} errors since yesterday; the last: {}",
            events.len(),
            cut(&printable(&words(last)), LENGTH)
        ),
        "a run or a renewal failed",
        format!("aws logs tail {group} --since 1d --filter-pattern '{ERRORS}'"),
    ))
}

/// The words of a log line, which is JSON.
fn words(line: &str) -> String {
    let json: Value = serde_json::from_str(line).unwrap_or_default();
    let fields = &json["fields"];
    match (fields["message"].as_str(), fields["error"].as_str()) {
        (Some(message), Some(error)) => format!("{message}: {error}"),
        (Some(message), None) => message.to_owned(),
        (None, _) => line.trim().to_owned(),
    }
}

fn is_of_another_processor(line: &str) -> bool {
    line.contains("InvalidEntrypoint") || line.contains("exec format error")
}

async fn examine_mapping(patient: &Patient) -> Line {
    let about = "requests to the renewer";
    let Some(id) = patient.resource("RenewerRequests") else {
        return Line::critical(
            about,
            "no event source passes the queue's requests to the renewer",
            "nothing is renewed",
            "make deploy",
        );
    };

    let path = format!("/2015-03-31/event-source-mappings/{id}");
    match patient.stack.services.get(LAMBDA, &path).await {
        Ok(mapping) => of_mapping(about, id, &mapping),
        Err(refused) if refused.is_missing() => Line::critical(
            about,
            "no event source passes the queue's requests to the renewer",
            "nothing is renewed",
            "make deploy",
        ),
        Err(refused) => Line::unknown(about, refused),
    }
}

fn of_mapping(about: &str, id: &str, mapping: &Value) -> Line {
    match mapping["State"].as_str().unwrap_or_default() {
        "Enabled" | "Enabling" | "Updating" | "Creating" => Line::ok(about, "the queue's requests reach it"),
        state => Line::critical(
            about,
            format!("its event source is {state}"),
            "requests wait in the queue for four days and are lost then: nothing is renewed",
            format!("aws lambda update-event-source-mapping --uuid {id} --enabled"),
        ),
    }
}

async fn examine_schedule(patient: &Patient, (id, name): (&str, &str)) -> Line {
    let about = format!("schedule {id}");
    match patient
        .stack
        .services
        .get(SCHEDULER, &format!("/schedules/{}", percent_encoded(name)))
        .await
    {
        Ok(schedule) => of_schedule(&about, name, &schedule),
        Err(refused) if refused.is_missing() => {
            Line::critical(about, "it does not exist", "nothing starts the probe", "make deploy")
        }
        Err(refused) => Line::unknown(about, refused),
    }
}

fn of_schedule(about: &str, name: &str, schedule: &Value) -> Line {
    let expression = schedule["ScheduleExpression"].as_str().unwrap_or_default();
    match schedule["State"].as_str() {
        Some("DISABLED") => Line::critical(
            about,
            "it is disabled",
            "nothing starts the probe",
            format!(
                "make deploy enables it; by hand: aws scheduler get-schedule --name {name}, and aws scheduler update-schedule with all \
                 that it answers and --state ENABLED"
            ),
        ),
        _ => Line::ok(about, format!("{expression}, enabled")),
    }
}

async fn examine_queues(patient: &Patient) -> Vec<Line> {
    let mut lines = Vec::new();
    for (about, id) in [("dead letters", "DeadLetters"), ("queue of requests", "RenewalQueue")] {
        let Some(url) = patient.resource(id) else {
            lines.push(no_queue(about));
            continue;
        };
        let query = json!({"QueueUrl": url, "AttributeNames": ["All"]});
        let answer = patient
            .stack
            .services
            .json(SQS, "AmazonSQS.GetQueueAttributes", &query)
            .await;

        lines.push(match answer {
            Ok(answer) if id == "DeadLetters" => of_dead_letters(about, url, &answer["Attributes"]),
            Ok(answer) => of_requests(about, url, &answer["Attributes"]),
            Err(refused) if refused.is_missing() => no_queue(about),
            Err(refused) => Line::unknown(about, refused),
        });
    }
    lines
}

fn no_queue(about: &str) -> Line {
    Line::critical(
        about,
        "the queue does not exist",
        "requests, or what failed, are lost",
        "make deploy",
    )
}

fn of_dead_letters(about: &str, url: &str, attributes: &Value) -> Line {
    match number(attributes, "ApproximateNumberOfMessages") {
        0 => Line::ok(about, "none"),
        count => Line::warning(
            about,
            format!("{count} runs or renewals were given up"),
            "what they were to do is not done, and the alarm does not report the next ones",
            format!("aws sqs receive-message --queue-url {url} shows them; correct the cause, and delete them"),
        ),
    }
}

fn of_requests(about: &str, url: &str, attributes: &Value) -> Line {
    let visibility = number(attributes, "VisibilityTimeout");
    if attributes["RedrivePolicy"].as_str().unwrap_or_default().is_empty() {
        let why = "requests that always fail are tried until they expire, and no alarm reports them";
        return Line::critical(about, "it has no dead-letter queue", why, "make deploy");
    }
    if visibility < VISIBILITY {
        return Line::warning(
            about,
            format!("a request is delivered again after {visibility} s (expected {VISIBILITY})"),
            "a renewal that takes longer is begun a second time",
            format!("aws sqs set-queue-attributes --queue-url {url} --attributes VisibilityTimeout={VISIBILITY}"),
        );
    }
    Line::ok(
        about,
        format!("{} waiting", number(attributes, "ApproximateNumberOfMessages")),
    )
}

fn number(attributes: &Value, name: &str) -> u64 {
    attributes[name]
        .as_str()
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

/// When the whole inventory was last looked at.
pub(super) fn of_last_run(name: &str, finished_at: Option<Timestamp>, now: Timestamp, heartbeat: Duration) -> Line {
    let about = "last run";
    let fix = format!("neverlapse run --stack {name} has it look now, and says what is wrong");
    let Some(finished_at) = finished_at else {
        return Line::warning(
            about,
            "there was none yet",
            "nothing is watched until the first one",
            fix,
        );
    };

    if now - finished_at > heartbeat {
        return Line::critical(
            about,
            format!(
                "{finished_at}, more than {} hours ago (HeartbeatHours)",
                heartbeat.whole_hours()
            ),
            "nobody watches these certificates",
            fix,
        );
    }
    Line::ok(about, finished_at)
}

/// The clock of this machine, compared with AWS's.
pub(super) fn of_clock(ahead: Option<Duration>) -> Line {
    let about = "clock of this machine";
    match ahead {
        None => Line::unknown(about, "no answer of AWS had a date"),
        Some(ahead) if ahead.abs() <= Duration::MINUTE => Line::ok(about, "right to the minute"),
        Some(ahead) => {
            let direction = if ahead.is_negative() { "behind" } else { "ahead" };
            let found = format!("{} s {direction} of AWS's", ahead.whole_seconds().abs());
            let why = "AWS refuses requests that are five minutes off, and certificates are judged by the time of this machine";
            let fix = "chronyc makestep, or systemctl restart systemd-timesyncd";

            if ahead.abs() > Duration::minutes(4) {
                Line::critical(about, found, why, fix)
            } else {
                Line::warning(about, found, why, fix)
            }
        }
    }
}

const OUTPUTS: [&str; 11] = [
    "BucketName",
    "AlertTopicArn",
    "RenewalTopicArn",
    "OperatorTopicArn",
    "ProbeFunctionName",
    "RenewerFunctionName",
    "KeyArn",
    "SecretsKeyArn",
    "DeadLetterQueueUrl",
    "ReaderPolicyArn",
    "OperatorPolicyArn",
];
/// Our own, by their level.
const ERRORS: &str = "\"ERROR\"";
/// Lambda's own, such as `Runtime.InvalidEntrypoint`.
const RUNTIME_ERRORS: &str = "\"Runtime.\"";
const LENGTH: usize = 300;
/// Six times the renewer's timeout.
const VISIBILITY: u64 = 3_600;

#[cfg(test)]
mod tests {
    use neverlapse::finding::Severity;

    use super::*;

    #[test]
    fn what_the_local_stack_cannot_show() {
        for (status, expected) in [
            ("UPDATE_COMPLETE", Severity::Ok),
            ("UPDATE_ROLLBACK_COMPLETE", Severity::Warning),
            ("UPDATE_IN_PROGRESS", Severity::Warning),
            ("ROLLBACK_COMPLETE", Severity::Critical),
            ("DELETE_FAILED", Severity::Critical),
        ] {
            assert_eq!(of_status("n", status).status, expected, "{status}");
        }
        for (seconds, expected) in [
            (0, Severity::Ok),
            (-60, Severity::Ok),
            (90, Severity::Warning),
            (-600, Severity::Critical),
        ] {
            assert_eq!(of_clock(Some(Duration::seconds(seconds))).status, expected, "{seconds}");
        }

        let inactive = json!({"State": "Failed", "StateReason": "the key is disabled", "LastUpdateStatus": "Failed", "Timeout": 300,
            "Architectures": ["arm64"]});
        let wrong = of_configuration("function Probe", &inactive, "arm64");
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert_eq!(wrong[0].found, "Lambda cannot run it: the key is disabled");

        for (role, is_own) in [("role/ours/n-ProbeRole-1", true), ("role/another", false)] {
            let configuration = json!({ "Role": format!("arn:aws:iam::1:{role}") });
            let line = of_role("function Probe", &configuration, "ProbeRole", "n-ProbeRole-1");
            assert_eq!(line.is_none(), is_own, "{role}");
        }

        let events = [json!({"message": "INIT_REPORT Status: error Error Type: Runtime.InvalidEntrypoint"})];
        let line = of_errors("function Probe", "group", &events).unwrap();
        assert_eq!(line.found, "its program is built for another processor");
    }
}
