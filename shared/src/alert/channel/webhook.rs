//! Webhooks: Slack's, and those that people describe in `secrets/webhooks.toml`, each with the body
//! that its service wants.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::Range;
use std::time::Duration;

use futures::future::join_all;
use serde::Deserialize;
use thiserror::Error;
use tokio::time::timeout;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::post::{self, Address};
use super::slack;
use crate::alert::digest::message::{Digest, Entry};
use crate::alert::sender::Sender;
use crate::bucket::store::{LONGEST_FILE, Store};
use crate::finding::Severity;
use crate::text::{cut, cut_utf16};
use crate::timestamp::Timestamp;

/// Where the webhooks are described in the bucket. URLs and headers in it are secrets.
pub const KEY: &str = "secrets/webhooks.toml";

/// The webhooks that the bucket knows. An error in one of them costs that one alone.
#[derive(Debug, Default)]
pub struct Webhooks {
    slack: Option<Address>,
    described: Vec<Webhook>,
    /// Those that cannot be understood, and so are never notified.
    pub broken: Vec<NotNotified>,
}

/// A webhook that is not notified, and why. It has no URL in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
#[error("{problem}")]
pub struct NotNotified {
    /// Its name, or its number if it has none; [`KEY`], if it is every one of that file.
    pub name: String,
    problem: String,
}

impl NotNotified {
    fn new(name: &str, problem: String) -> Self {
        let name = name.to_owned();
        Self { name, problem }
    }
}

/// All of them in one sentence.
pub fn listed<'a>(failed: impl IntoIterator<Item = &'a NotNotified>) -> String {
    let problems: Vec<_> = failed.into_iter().map(|failed| failed.problem.as_str()).collect();
    problems.join("; ")
}

impl Webhooks {
    /// Reads what the bucket has.
    pub async fn read(store: &Store) -> Self {
        let (slack, text) = tokio::join!(slack::address(store), store.text(KEY, LONGEST_FILE));
        let described = match text {
            Ok(Some(text)) => parse(&text),
            Ok(None) => Vec::new(),
            Err(error) => vec![Err(NotNotified::new(KEY, format!("{KEY} cannot be read: {error}")))],
        };

        let mut webhooks = Self::default();
        match slack {
            Ok(address) => webhooks.slack = address,
            Err(error) => {
                let problem = format!("{} cannot be notified: {error}", slack::NAME);
                webhooks.broken.push(NotNotified::new(slack::NAME, problem));
            }
        }
        for webhook in described {
            match webhook {
                Ok(webhook) => webhooks.described.push(webhook),
                Err(broken) => webhooks.broken.push(broken),
            }
        }
        webhooks
    }

    /// The names of those that can be notified.
    pub fn names(&self) -> Vec<&str> {
        let slack = self.slack.iter().map(|_| slack::NAME);
        slack
            .chain(self.described.iter().map(|webhook| webhook.name.as_str()))
            .collect()
    }

    /// Those that missed something, and the others. The broken ones miss whatever there is.
    pub fn split(self, missed: &BTreeSet<String>) -> (Self, Self) {
        let (behind, others) = self.described.into_iter().partition(|webhook| webhook.is_among(missed));
        let slack_missed = missed.contains(slack::NAME);
        (
            Self {
                slack: self.slack.clone().filter(|_| slack_missed),
                described: behind,
                broken: self.broken,
            },
            Self {
                slack: self.slack.filter(|_| !slack_missed),
                described: others,
                broken: Vec::new(),
            },
        )
    }

    /// Posts to every webhook, all at the same time: first the ends of incidents that no alert
    /// reports, to services that have an incident for each message, then an alert. Answers with the
    /// names of those that took what there was for them, and with those that were not notified.
    pub async fn notify(
        &self,
        ended: &[Entry],
        digest: Option<&Digest>,
        sender: &Sender,
        at: Timestamp,
    ) -> Vec<Result<String, NotNotified>> {
        let slack = async {
            let (address, digest) = self.slack.as_ref().zip(digest)?;
            let message = slack::message(digest, sender).to_string();
            Some(named(slack::NAME, address.post(&message).await))
        };
        let described = self
            .described
            .iter()
            .map(|webhook| webhook.notify(ended, digest, sender, at));
        let (slack, described) = tokio::join!(slack, join_all(described));

        let broken = self.broken.iter().cloned().map(Err);
        broken.chain(slack).chain(described.into_iter().flatten()).collect()
    }
}

/// What became of the posts to a webhook.
fn named(name: &str, outcome: Result<(), impl Display>) -> Result<String, NotNotified> {
    match outcome {
        Ok(()) => Ok(name.to_owned()),
        Err(error) => Err(NotNotified::new(name, format!("{name} was not notified: {error}"))),
    }
}

/// The file's webhooks, each on its own. An error names a place and a name at most: the rest of the
/// file is a secret.
fn parse(text: &str) -> Vec<Result<Webhook, NotNotified>> {
    let (entries, errors) = match entries(text) {
        Ok(found) => found,
        Err(problem) => return vec![Err(NotNotified::new(KEY, problem))],
    };

    let mut webhooks: Vec<_> = errors.into_iter().map(Err).collect();
    for (entry, number) in entries.into_iter().zip(1..) {
        let name = entry.get_ref().get("name").and_then(|name| name.get_ref().as_str());
        let name = name.map(|name| cut(name, NAME));
        let label = match &name {
            Some(name) => format!("{} ({name:?})", numbered(number)),
            None => numbered(number),
        };
        let webhook = understood(text, entry, number, &label);
        webhooks.push(webhook.map_err(|problem| NotNotified {
            name: name.unwrap_or(label),
            problem,
        }));
    }
    webhooks
}

/// What stands below each `[[webhook]]`, and each other table or key, which is an error.
fn entries(text: &str) -> Result<(Vec<Spanned<DeValue<'_>>>, Vec<NotNotified>), String> {
    let expected = "cannot be understood (expected [[webhook]] with name, url and body)";
    let table = DeTable::parse(text).map_err(|error| format!("{} {expected}", place(text, error.span())))?;

    let mut entries = Vec::new();
    let mut errors = Vec::new();
    for (key, value) in table.into_inner() {
        match value.into_inner() {
            DeValue::Array(array) if key.get_ref() == "webhook" => entries.extend(array),
            _ => {
                let problem = format!("{} {expected}", place(text, Some(key.span())));
                errors.push(NotNotified::new(&cut(key.get_ref(), NAME), problem));
            }
        }
    }
    if entries.len() + errors.len() > MOST {
        return Err(format!(
            "{KEY} has {} webhooks (expected at most {MOST})",
            entries.len() + errors.len()
        ));
    }
    Ok((entries, errors))
}

fn understood(text: &str, entry: Spanned<DeValue<'_>>, number: usize, label: &str) -> Result<Webhook, String> {
    let written = WrittenWebhook::deserialize(ValueDeserializer::from(entry)).map_err(|error| {
        let place = place(text, error.span());
        format!("{place}, {label} cannot be understood (expected name, url and body)")
    })?;
    written
        .parsed(number)
        .map_err(|error| format!("{KEY}, {label}: {error}"))
}

/// The file, and the line of it if that is known.
fn place(text: &str, span: Option<Range<usize>>) -> String {
    match span {
        Some(span) => format!("{KEY} line {}", 1 + text[..span.start].matches('\n').count()),
        None => KEY.to_owned(),
    }
}

/// What a webhook without a name is called.
fn numbered(number: usize) -> String {
    format!("webhook {number}")
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
    /// Its place among those of the file, from 1.
    number: usize,
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
    fn parsed(self, number: usize) -> Result<Webhook, post::Error> {
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
            name: cut(&self.name, NAME),
            number,
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
    /// Whether it missed something: by its name, by its number if it had no name then, or with all
    /// of the file.
    fn is_among(&self, missed: &BTreeSet<String>) -> bool {
        missed.contains(KEY) || missed.contains(&self.name) || missed.contains(&numbered(self.number))
    }

    /// What is resolved is sent too: a service that opened an incident has to close it.
    fn wants(&self, severity: Severity) -> bool {
        severity == Severity::Ok || self.min_severity.is_none_or(|least| severity >= least)
    }

    /// Posts what there is for it, if there is anything.
    async fn notify(
        &self,
        ended: &[Entry],
        digest: Option<&Digest>,
        sender: &Sender,
        at: Timestamp,
    ) -> Option<Result<String, NotNotified>> {
        let closings = self.closings(ended, at, sender);
        let messages = digest.map_or_else(Vec::new, |digest| self.messages(digest, sender));
        if closings.is_empty() && messages.is_empty() {
            return None;
        }
        let closed = self.post_all(closings, TO_CLOSE).await;
        let notified = self.post_all(messages, TO_NOTIFY).await;
        Some(closed.and(notified))
    }

    /// Posts each of the messages, as long as there is time: a slow service must not keep back what
    /// is sent to others after it.
    async fn post_all(&self, messages: Vec<Message>, limit: Duration) -> Result<String, NotNotified> {
        let count = messages.len();
        let mut posted = 0;
        let in_time = timeout(limit, self.post_each(messages, &mut posted)).await;
        let outcome = in_time.unwrap_or_else(|_| {
            let seconds = limit.as_secs();
            Err(format!("it took {posted} of {count} messages within {seconds} s"))
        });
        named(&self.name, outcome)
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
/// Of one file. It bounds what is posted at the same time, and what is remembered of it.
const MOST: usize = 100;
/// Of a name, in characters.
const NAME: usize = 60;
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
            .remove(0)
            .unwrap()
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
            .unwrap_err()
            .to_string();
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
        let webhooks: Result<Vec<_>, _> = parse(&format!("[[webhook]]{example}")).into_iter().collect();
        let webhooks = webhooks.unwrap();
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

    /// A misspelt key in one webhook silenced all of them.
    #[test]
    fn an_error_costs_the_webhook_that_it_is_in() {
        let good = |name: &str| format!("[[webhook]]\nname = '{name}'\nurl = 'https://x.example/secret'\nbody = ''\n");
        for (entry, name, problem) in [
            (
                "name = 'pager'\nurl = 'https://x.example/secret'\nbody = ''\nper_incidnet = true",
                "pager",
                "secrets/webhooks.toml line 9, webhook 2 (\"pager\") cannot be understood (expected name, url and body)",
            ),
            (
                "name = 'pager'\nurl = 7\nbody = ''",
                "pager",
                "secrets/webhooks.toml line 7, webhook 2 (\"pager\") cannot be understood (expected name, url and body)",
            ),
            (
                "nmae = 'pager'\nurl = 'https://x.example/secret'\nbody = ''",
                "webhook 2",
                "secrets/webhooks.toml line 6, webhook 2 cannot be understood (expected name, url and body)",
            ),
            (
                "name = 'pager'\nurl = 'x.example/secret'\nbody = ''",
                "pager",
                "secrets/webhooks.toml, webhook 2 (\"pager\"): the URL is not one (expected https://…)",
            ),
        ] {
            let webhooks = parse(&format!("{}[[webhook]]\n{entry}\n{}", good("Teams"), good("ntfy")));
            let [teams, broken, ntfy] = webhooks.try_into().unwrap();
            assert_eq!([teams.unwrap().name, ntfy.unwrap().name], ["Teams", "ntfy"]);
            assert_eq!(broken.unwrap_err(), NotNotified::new(name, problem.to_owned()));
        }

        let misspelt = good("pager").replace("[[webhook]]", "[[webhok]]");
        let [broken, teams] = parse(&format!("{}{misspelt}", good("Teams"))).try_into().unwrap();
        let problem =
            "secrets/webhooks.toml line 5 cannot be understood (expected [[webhook]] with name, url and body)";
        assert_eq!(broken.unwrap_err(), NotNotified::new("webhok", problem.to_owned()));
        assert_eq!(teams.unwrap().name, "Teams");

        let long = parse(&good(&"x".repeat(1_000))).remove(0).unwrap();
        assert_eq!(long.name.chars().count(), NAME + 1, "with its …");
        let [many] = parse(&good("x").repeat(101)).try_into().unwrap();
        let problem = "secrets/webhooks.toml has 101 webhooks (expected at most 100)";
        assert_eq!(many.unwrap_err(), NotNotified::new(KEY, problem.to_owned()));
    }

    /// One webhook that failed made all others repeat everything that was open.
    #[test]
    fn only_who_missed_something_is_behind() {
        let text = "[[webhook]]\nname = 'Teams'\nurl = 'https://x.example'\nbody = ''\n\
                    [[webhook]]\nname = 'pager'\nurl = 'https://x.example'\nbody = ''\n\
                    [[webhook]]\nname = 'broken'";
        for (missed, behind, others) in [
            (vec![], vec![], vec!["Slack", "Teams", "pager"]),
            (vec!["Slack"], vec!["Slack"], vec!["Teams", "pager"]),
            (vec!["pager", "broken"], vec!["pager"], vec!["Slack", "Teams"]),
            // It had no name when it missed something.
            (vec!["webhook 1"], vec!["Teams"], vec!["Slack", "pager"]),
            // Or nothing of the file could be understood.
            (vec![KEY], vec!["Teams", "pager"], vec!["Slack"]),
        ] {
            let (described, broken): (Vec<_>, Vec<_>) = parse(text).into_iter().partition(Result::is_ok);
            let webhooks = Webhooks {
                slack: Some(Address::new("https://x.example").unwrap()),
                described: described.into_iter().filter_map(Result::ok).collect(),
                broken: broken.into_iter().filter_map(Result::err).collect(),
            };
            let missed: BTreeSet<_> = missed.into_iter().map(str::to_owned).collect();
            let split = webhooks.split(&missed);
            assert_eq!((split.0.names(), split.1.names()), (behind, others), "{missed:?}");
            assert_eq!((split.0.broken.len(), split.1.broken.len()), (1, 0), "{missed:?}");
        }
    }

    #[test]
    fn an_error_names_no_secret() {
        for (text, expected) in [
            ("url = \"https://x/secret\"", "line 1 cannot be understood"),
            ("[webhook]\nurl = \"https://x/secret\"", "line 1 cannot be understood"),
            ("[[webhook]]\nurl = \"https://x/secret", "line 2 cannot be understood"),
            (
                "webhook = [\"https://x/secret\"]",
                "line 1, webhook 1 cannot be understood",
            ),
            (
                "[[webhook]]\nname = \"x\"\nurl = \"ftp://secret\"\nbody = \"\"",
                "webhook 1 (\"x\"): the URL is not one",
            ),
            (
                "[[webhook]]\nname = \"x\"\nurl = \"https://x\"\nbody = \"\"\nheaders = { A = \"secret\\u0000\" }",
                "the header \"A\" is not one, or its value is not",
            ),
            (
                "[[webhook]]\nname = \"x\"\nurl = \"https://secret\"\nmin_severity = \"loud\"",
                "line 4, webhook 1 (\"x\") cannot be understood",
            ),
        ] {
            let problem = parse(text).remove(0).unwrap_err().to_string();
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
