//! Webhooks: Slack's, and those that people describe in `secrets/webhooks.toml`, each with the body
//! that its service wants.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use serde::Deserialize;
use thiserror::Error;
use tokio::time::timeout;

use super::post::{self, Address};
use super::slack;
use crate::alert::digest::message::{Digest, Entry};
use crate::alert::sender::Sender;
use crate::bucket::store::{LONGEST_FILE, Store};
use crate::finding::Severity;
use crate::text::cut_utf16;
use crate::timestamp::Timestamp;

/// Where the webhooks are described in the bucket. URLs and headers in it are secrets.
pub const KEY: &str = "secrets/webhooks.toml";

/// Which webhooks were not notified, and why. It has no URL in it.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{}", failed.join("; "))]
pub struct NotNotified {
    failed: Vec<String>,
}

impl NotNotified {
    fn unless_none(failed: Vec<String>) -> Result<(), Self> {
        if failed.is_empty() {
            Ok(())
        } else {
            Err(Self { failed })
        }
    }
}

/// Posts an alert to every webhook that the bucket knows, all at the same time; answers with the
/// names of those that took it.
pub async fn notify(store: &Store, digest: &Digest, sender: &Sender) -> Result<Vec<String>, NotNotified> {
    let slack = async {
        match slack::notify(store, digest, sender).await {
            Ok(true) => Some(Ok("Slack".to_owned())),
            Ok(false) => None,
            Err(error) => Some(Err(format!("Slack was not notified: {error}"))),
        }
    };
    let others = async {
        let webhooks = match read(store).await {
            Ok(webhooks) => webhooks,
            Err(problem) => return vec![Err(problem)],
        };
        let posts = webhooks
            .iter()
            .map(|webhook| (webhook, webhook.messages(digest, sender)))
            .filter(|(_, messages)| !messages.is_empty())
            .map(|(webhook, messages)| webhook.post_all(messages, TO_NOTIFY));
        join_all(posts).await
    };
    let (slack, others) = tokio::join!(slack, others);

    let mut notified = Vec::new();
    let mut failed = Vec::new();
    for outcome in slack.into_iter().chain(others) {
        match outcome {
            Ok(name) => notified.push(name),
            Err(problem) => failed.push(problem),
        }
    }
    NotNotified::unless_none(failed)?;
    Ok(notified)
}

/// Notifies the services that have an incident for each message of incidents that ended without
/// one.
pub async fn close(store: &Store, ended: &[Entry], sender: &Sender, at: Timestamp) -> Result<(), NotNotified> {
    if ended.is_empty() {
        return Ok(());
    }
    let webhooks = read(store)
        .await
        .map_err(|problem| NotNotified { failed: vec![problem] })?;
    let posts = webhooks
        .iter()
        .map(|webhook| webhook.post_all(webhook.closings(ended, at, sender), TO_CLOSE));
    NotNotified::unless_none(join_all(posts).await.into_iter().filter_map(Result::err).collect())
}

/// The names of the webhooks that the bucket knows. Nothing is posted; the error says what is no
/// webhook.
pub async fn names(store: &Store) -> Result<Vec<String>, NotNotified> {
    let mut names = Vec::new();
    let mut failed = Vec::new();
    match slack::address(store).await {
        Ok(address) => names.extend(address.map(|_| "Slack".to_owned())),
        Err(error) => failed.push(error.to_string()),
    }
    match read(store).await {
        Ok(webhooks) => names.extend(webhooks.into_iter().map(|webhook| webhook.name)),
        Err(problem) => failed.push(problem),
    }
    NotNotified::unless_none(failed)?;
    Ok(names)
}

async fn read(store: &Store) -> Result<Vec<Webhook>, String> {
    match store.text(KEY, LONGEST_FILE).await {
        Ok(Some(text)) => parse(&text),
        Ok(None) => Ok(Vec::new()),
        Err(error) => Err(format!("{KEY} cannot be read: {error}")),
    }
}

/// The file's webhooks. The error names a line at most: the rest of the file is a secret.
fn parse(text: &str) -> Result<Vec<Webhook>, String> {
    let written: Written = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| 1 + text[..span.start].matches('\n').count());
        match line {
            Some(line) => {
                format!("{KEY} line {line} cannot be understood (expected [[webhook]] with name, url and body)")
            }
            None => format!("{KEY} cannot be understood (expected [[webhook]] with name, url and body)"),
        }
    })?;

    let mut webhooks = Vec::new();
    for webhook in written.webhook {
        let name = webhook.name.clone();
        webhooks.push(
            webhook
                .parsed()
                .map_err(|error| format!("{KEY}, webhook {name:?}: {error}"))?,
        );
    }
    Ok(webhooks)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    webhook: Vec<WrittenWebhook>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenWebhook {
    name: String,
    url: String,
    body: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    min_severity: Option<Severity>,
    #[serde(default)]
    per_incident: bool,
    resolve_url: Option<String>,
    resolve_body: Option<String>,
}

/// One service to notify.
#[derive(Debug)]
struct Webhook {
    name: String,
    address: Address,
    template: String,
    /// Whether what is put into the template stands inside JSON strings.
    is_json: bool,
    min_severity: Option<Severity>,
    /// Whether each incident is a message of its own.
    per_incident: bool,
    /// Where what is resolved goes, if not to `address`.
    resolve_url: Option<String>,
    /// The template of what is resolved, if it is another one.
    resolve_template: Option<String>,
}

/// What a service is sent.
struct Message {
    /// If it is not that of the webhook.
    url: Option<String>,
    body: String,
}

impl WrittenWebhook {
    fn parsed(self) -> Result<Webhook, post::Error> {
        let mut address = Address::new(&self.url)?;
        let mut is_json = true;
        for (name, value) in &self.headers {
            if name.eq_ignore_ascii_case("content-type") {
                is_json = value.contains("json");
            }
            address = address.with_header(name, value)?;
        }
        if let Some(url) = &self.resolve_url {
            address.at(&url.replace(INCIDENT, ""))?;
        }
        Ok(Webhook {
            name: self.name,
            address,
            template: self.body,
            is_json,
            min_severity: self.min_severity,
            per_incident: self.per_incident,
            resolve_url: self.resolve_url,
            resolve_template: self.resolve_body,
        })
    }
}

impl Webhook {
    /// What is resolved is sent too: a service that opened an incident has to close it.
    fn wants(&self, severity: Severity) -> bool {
        severity == Severity::Ok || self.min_severity.is_none_or(|least| severity >= least)
    }

    /// Posts each of the messages, as long as there is time: a slow service must not keep back what
    /// is sent to others after it.
    async fn post_all(&self, messages: Vec<Message>, limit: Duration) -> Result<String, String> {
        let count = messages.len();
        let mut posted = 0;
        let in_time = timeout(limit, self.post_each(messages, &mut posted)).await;
        let outcome = in_time.unwrap_or_else(|_| {
            let seconds = limit.as_secs();
            Err(format!("it took {posted} of {count} messages within {seconds} s"))
        });
        match outcome {
            Ok(()) => Ok(self.name.clone()),
            Err(error) => Err(format!("{} was not notified: {error}", self.name)),
        }
    }

    /// A message that is refused keeps none of the others back. A service that is busy, does not
    /// answer, or refuses whatever comes from here, is left alone.
    async fn post_each(&self, messages: Vec<Message>, posted: &mut usize) -> Result<(), String> {
        let mut refused = None;
        for message in messages {
            match self.post(&message).await {
                Ok(()) => *posted += 1,
                Err(
                    error @ post::Error::Refused {
                        status: 400 | 413 | 422,
                        ..
                    },
                ) => refused = Some(error.to_string()),
                Err(error) => return Err(error.to_string()),
            }
        }
        refused.map_or(Ok(()), Err)
    }

    async fn post(&self, message: &Message) -> Result<(), post::Error> {
        match &message.url {
            Some(url) => self.address.at(url)?.post(&message.body).await,
            None => self.address.post(&message.body).await,
        }
    }

    /// The messages of a digest: one, or one for each incident in it. None if it has nothing that
    /// is bad enough, and nothing that is resolved.
    fn messages(&self, digest: &Digest, sender: &Sender) -> Vec<Message> {
        let entries: Vec<_> = (digest.sections.iter()).flat_map(|section| &section.entries).collect();
        if !self.per_incident || entries.is_empty() {
            let is_wanted = self.wants(digest.severity) || entries.iter().any(|entry| !entry.change.is_firing());
            let message = is_wanted.then(|| self.filled(&Values::of(digest, sender)));
            return message.into_iter().collect();
        }

        let wanted = entries.into_iter().filter(|entry| self.wants(severity(entry)));
        wanted
            .map(|entry| self.filled(&Values::of_entry(entry, digest.at, sender)))
            .collect()
    }

    /// What closes incidents, if each is a message of its own.
    fn closings(&self, ended: &[Entry], at: Timestamp, sender: &Sender) -> Vec<Message> {
        let ended = ended.iter().filter(|_| self.per_incident);
        ended
            .map(|entry| self.filled(&Values::of_entry(entry, at, sender)))
            .collect()
    }

    fn filled(&self, values: &Values) -> Message {
        let resolving = self.resolve_url.as_ref().filter(|_| values.is_resolved);
        let template = self.resolve_template.as_ref().filter(|_| values.is_resolved);
        let mut body = template.unwrap_or(&self.template).clone();
        for (name, value) in &values.named {
            let value = if self.is_json {
                json_escaped(value)
            } else {
                value.clone()
            };
            body = body.replace(&format!("{{{{{name}}}}}"), &value);
        }
        Message {
            // It is of letters and digits.
            url: resolving.map(|url| url.replace(INCIDENT, &values.incident)),
            body,
        }
    }
}

/// What can stand in a template between double braces.
struct Values {
    named: Vec<(&'static str, String)>,
    incident: String,
    is_resolved: bool,
}

impl Values {
    fn of(digest: &Digest, sender: &Sender) -> Self {
        let text = digest.text(sender, TEXT);
        Self::new(
            digest.severity,
            &digest.subject,
            &text,
            &digest.thread,
            digest.at,
            sender,
        )
    }

    fn of_entry(entry: &Entry, at: Timestamp, sender: &Sender) -> Self {
        let mut text = format!("{}\n{}\n", entry.words(), entry.history);
        if let Some(step) = &entry.next_step {
            text.push_str(&format!("What to do: {step}\n"));
        }
        let text = cut_utf16(&text, TEXT);
        Self::new(severity(entry), &entry.subject, &text, &entry.incident, at, sender)
    }

    /// The text comes last: what looks like a placeholder in it stays as it is.
    fn new(severity: Severity, subject: &str, text: &str, incident: &str, at: Timestamp, sender: &Sender) -> Self {
        let is_resolved = severity == Severity::Ok;
        let action = if is_resolved { "resolve" } else { "trigger" };
        let named = vec![
            ("action", action.to_owned()),
            ("severity", severity.to_string()),
            ("incident", incident.to_owned()),
            ("at", at.rfc3339()),
            ("stack", sender.stack.clone()),
            ("region", sender.region.clone()),
            ("account", sender.account.clone()),
            ("report", sender.report()),
            ("subject", subject.to_owned()),
            ("text", text.to_owned()),
        ];
        Self {
            named,
            incident: incident.to_owned(),
            is_resolved,
        }
    }
}

/// How bad it is; what is resolved is fine.
fn severity(entry: &Entry) -> Severity {
    if entry.change.is_firing() {
        entry.severity
    } else {
        Severity::Ok
    }
}

/// As it stands between the quotes of a JSON string.
fn json_escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The probe leaves 45 seconds for all that comes after probing.
const TO_CLOSE: Duration = Duration::from_secs(10);
const TO_NOTIFY: Duration = Duration::from_secs(20);
/// As `resolve_url` has it.
const INCIDENT: &str = "{{incident}}";
/// Services cut what is longer, or refuse it.
const TEXT: usize = 8_000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::Value;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::sleep;

    use super::*;
    use crate::alert::news::Change;
    use crate::alert::sample;
    use crate::timestamp;

    fn webhook(text: &str) -> Webhook {
        webhook_at("https://x.example/secret", text)
    }

    fn webhook_at(url: &str, text: &str) -> Webhook {
        parse(&format!("[[webhook]]\nname = \"x\"\nurl = \"{url}\"\n{text}"))
            .unwrap()
            .remove(0)
    }

    fn digests() -> (Vec<Digest>, Sender) {
        let sender = Sender::of("s", "arn:aws:sns:eu-central-1:123456789012:t", "b");
        (sample::digests(&sender, timestamp!(2026-11-24 06:00 UTC)), sender)
    }

    #[test]
    fn a_body_is_what_its_service_wants() {
        let (digests, sender) = digests();
        let teams = webhook("body = '{\"text\": \"{{subject}}\\n{{text}}\", \"at\": \"{{at}}\"}'");
        for digest in &digests {
            let body = &teams.messages(digest, &sender)[0].body;
            let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
            assert!(body["text"].as_str().unwrap().starts_with(&digest.subject), "{body}");
            assert_eq!(body["at"], digest.at.rfc3339());
        }

        let ntfy = webhook("body = '{{subject}}'\nheaders = { Content-Type = \"text/plain\" }");
        assert_eq!(ntfy.messages(&digests[0], &sender)[0].body, digests[0].subject);
    }

    /// Answers each request with this status, after this pause, and counts them.
    async fn service(status: u16, pause: Duration) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));

        let counted = requests.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4_096]).await;
                counted.fetch_add(1, Ordering::Relaxed);
                sleep(pause).await;
                let answer = format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (url, requests)
    }

    fn messages(count: usize) -> Vec<Message> {
        let message = || Message {
            url: None,
            body: "x".to_owned(),
        };
        std::iter::repeat_with(message).take(count).collect()
    }

    /// The topic comes after webhooks, and the function ends when its time is over.
    #[tokio::test]
    async fn a_slow_service_does_not_keep_the_alert_back() {
        let (url, _) = service(200, Duration::from_millis(20)).await;
        let slow = webhook_at(&url, "body = 'x'");
        let error = slow
            .post_all(messages(10_000), Duration::from_secs(1))
            .await
            .unwrap_err();
        assert!(
            error.starts_with("x was not notified: it took ") && error.ends_with(" of 10000 messages within 1 s"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn what_is_refused_for_its_contents_keeps_nothing_else_back() {
        for (status, requests) in [
            (200, 5),
            (400, 5),
            (413, 5),
            (422, 5),
            (401, 1),
            (403, 1),
            (404, 1),
            (410, 1),
        ] {
            let (url, seen) = service(status, Duration::ZERO).await;
            let outcome = webhook_at(&url, "body = 'x'").post_all(messages(5), TO_NOTIFY).await;
            assert_eq!(outcome.is_ok(), status == 200, "{status}");
            assert_eq!(seen.load(Ordering::Relaxed), requests, "{status}");
        }
    }

    /// What opened an incident has to close the same one.
    #[test]
    fn a_service_for_incidents_hears_of_each_from_its_begin_to_its_end() {
        let (digests, sender) = digests();
        let pager = webhook(
            "body = '{\"event_action\": \"{{action}}\", \"dedup_key\": \"{{incident}}\"}'\nper_incident = true\nmin_severity = \"critical\"",
        );
        let events: Vec<Value> = (digests.iter())
            .flat_map(|digest| pager.messages(digest, &sender))
            .map(|message| serde_json::from_str(&message.body).unwrap())
            .collect();
        let of = |action: &str| {
            let events = events.iter().filter(|event| event["event_action"] == action);
            events
                .map(|event| event["dedup_key"].as_str().unwrap())
                .collect::<Vec<_>>()
        };
        let shop = of("trigger")[0];
        assert_eq!(
            of("trigger").iter().filter(|key| **key == shop).count(),
            1,
            "{events:?}"
        );
        assert!(of("resolve").contains(&shop), "{events:?}");
        assert!(!pager.wants(Severity::Warning) && pager.wants(Severity::Critical) && pager.wants(Severity::Ok));
    }

    /// With a warning in the same run, the end of a critical incident was not sent to a service
    /// that wants what is critical.
    #[test]
    fn what_is_resolved_is_sent_whatever_else_a_run_found() {
        let (digests, sender) = digests();
        let mixed = digests.iter().find_map(|digest| {
            let mut mixed = digest.clone();
            mixed.severity = Severity::Warning;
            let mut entries = mixed.sections.iter_mut().flat_map(|section| &mut section.entries);
            let first = entries.next()?;
            first.change = Change::Resolved;
            first.severity = Severity::Critical;
            entries.for_each(|entry| entry.severity = Severity::Warning);
            Some(mixed)
        });
        for per_incident in [true, false] {
            let pager = webhook(&format!(
                "body = '{{{{action}}}}'\nmin_severity = \"critical\"\nper_incident = {per_incident}"
            ));
            assert_eq!(
                pager.messages(mixed.as_ref().unwrap(), &sender).len(),
                1,
                "{per_incident}"
            );
        }
    }

    #[test]
    fn the_examples_in_the_documentation() {
        let page = include_str!("../../../../docs/integrations.md");
        let (_, example) = page.split_once("```toml\n[[webhook]]").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let webhooks = parse(&format!("[[webhook]]{example}")).unwrap();
        assert_eq!(webhooks.len(), 4);

        let (digests, sender) = digests();
        for webhook in webhooks {
            let messages: Vec<_> = digests
                .iter()
                .flat_map(|digest| webhook.messages(digest, &sender))
                .collect();
            for Message { url, body } in messages {
                assert!(!body.contains("{{"), "{body}");
                // Opsgenie closes an alert at an address of its own.
                let is_closed =
                    url.is_some_and(|url| url.ends_with("/close?identifierType=alias") && !url.contains("{{"));
                assert_eq!(
                    is_closed,
                    webhook.name == "Opsgenie" && !body.contains("message"),
                    "{body}"
                );
                let json = serde_json::from_str::<Value>(&body).ok();
                assert_eq!(json.is_some(), webhook.is_json, "{}: {body}", webhook.name);
                // Opsgenie refuses a message of more than 130 characters, PagerDuty a summary of
                // more than 1,024.
                let json = json.unwrap_or_default();
                let subject = json["message"].as_str().or(json["payload"]["summary"].as_str());
                assert!(subject.unwrap_or_default().len() < 100, "{}: {body}", webhook.name);
            }
        }
    }

    #[test]
    fn an_error_names_no_secret() {
        for (text, expected) in [
            ("url = \"https://x/secret\"", "line 1 cannot be understood"),
            (
                "[[webhook]]\nname = \"x\"\nurl = \"ftp://secret\"\nbody = \"\"",
                "webhook \"x\": the URL is not one",
            ),
            (
                "[[webhook]]\nname = \"x\"\nurl = \"https://x\"\nbody = \"\"\nheaders = { A = \"secret\\u0000\" }",
                "the header \"A\" is not one, or its value is not",
            ),
            (
                "[[webhook]]\nname = \"x\"\nurl = \"https://secret\"\nmin_severity = \"loud\"",
                "line 4",
            ),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(expected) && !problem.contains("secret\""), "{problem}");
            assert!(
                !problem.contains("//secret") && !problem.contains("/secret"),
                "{problem}"
            );
        }
        let debug = format!("{:?}", webhook("body = \"\""));
        assert!(!debug.contains("x.example"), "{debug}");
    }
}
