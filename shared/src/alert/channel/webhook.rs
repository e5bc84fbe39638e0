//! Webhooks: Slack's, and those that people describe in `secrets/webhooks.toml`, each with the body
//! that its service wants.

use std::collections::BTreeMap;
use std::fmt;

use futures::future::join_all;
use serde::Deserialize;
use thiserror::Error;

use super::post::{self, Address};
use super::slack;
use crate::alert::digest::message::{Digest, Entry};
use crate::alert::sender::Sender;
use crate::bucket::store::Store;
use crate::finding::Severity;
use crate::timestamp::Timestamp;

/// Where the webhooks are described in the bucket. URLs and headers in it are secrets.
pub const KEY: &str = "secrets/webhooks.toml";

/// Which webhooks were not notified, and why. It has no URL in it.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{}", failed.join("; "))]
pub struct NotNotified {
    failed: Vec<String>,
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
        let wanted = webhooks.iter().filter(|webhook| webhook.wants(digest.severity));
        join_all(wanted.map(|webhook| webhook.notify(digest, sender))).await
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
    if failed.is_empty() {
        Ok(notified)
    } else {
        Err(NotNotified { failed })
    }
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
    if failed.is_empty() {
        Ok(names)
    } else {
        Err(NotNotified { failed })
    }
}

async fn read(store: &Store) -> Result<Vec<Webhook>, String> {
    match store.text(KEY).await {
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
        Ok(Webhook {
            name: self.name,
            address,
            template: self.body,
            is_json,
            min_severity: self.min_severity,
            per_incident: self.per_incident,
        })
    }
}

impl Webhook {
    /// What is resolved is sent too: a service that opened an incident has to close it.
    fn wants(&self, severity: Severity) -> bool {
        severity == Severity::Ok || self.min_severity.is_none_or(|least| severity >= least)
    }

    async fn notify(&self, digest: &Digest, sender: &Sender) -> Result<String, String> {
        for body in self.bodies(digest, sender) {
            let posted = self.address.post(&body).await;
            posted.map_err(|error| format!("{} was not notified: {error}", self.name))?;
        }
        Ok(self.name.clone())
    }

    /// The messages of a digest: one, or one for each incident in it.
    fn bodies(&self, digest: &Digest, sender: &Sender) -> Vec<String> {
        let entries: Vec<_> = (digest.sections.iter()).flat_map(|section| &section.entries).collect();
        if !self.per_incident || entries.is_empty() {
            return vec![self.filled(&Values::of(digest, sender))];
        }

        let wanted = entries.into_iter().filter(|entry| {
            let severity = if entry.change.is_firing() {
                entry.severity
            } else {
                Severity::Ok
            };
            self.wants(severity)
        });
        wanted
            .map(|entry| self.filled(&Values::of_entry(entry, digest, sender)))
            .collect()
    }

    fn filled(&self, values: &Values) -> String {
        let mut body = self.template.clone();
        for (name, value) in &values.0 {
            let value = if self.is_json {
                json_escaped(value)
            } else {
                value.clone()
            };
            body = body.replace(&format!("{{{{{name}}}}}"), &value);
        }
        body
    }
}

/// What can stand in a template between double braces.
struct Values(Vec<(&'static str, String)>);

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

    fn of_entry(entry: &Entry, digest: &Digest, sender: &Sender) -> Self {
        let severity = if entry.change.is_firing() {
            entry.severity
        } else {
            Severity::Ok
        };
        let subject = format!(
            "{}: {}, {}",
            severity.to_string().to_uppercase(),
            entry.place,
            entry.words()
        );
        let mut text = format!("{}\n{}\n", entry.words(), entry.history);
        if let Some(step) = &entry.next_step {
            text.push_str(&format!("What to do: {step}\n"));
        }
        Self::new(severity, &subject, &text, &entry.incident, digest.at, sender)
    }

    /// The text comes last: what looks like a placeholder in it stays as it is.
    fn new(severity: Severity, subject: &str, text: &str, incident: &str, at: Timestamp, sender: &Sender) -> Self {
        let action = if severity == Severity::Ok { "resolve" } else { "trigger" };
        Self(vec![
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
        ])
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// As it stands between the quotes of a JSON string.
fn json_escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// Services cut what is longer, or refuse it.
const TEXT: usize = 8_000;

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::alert::sample;
    use crate::timestamp;

    fn webhook(text: &str) -> Webhook {
        parse(&format!(
            "[[webhook]]\nname = \"x\"\nurl = \"https://x.example/secret\"\n{text}"
        ))
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
            let [body] = teams.bodies(digest, &sender).try_into().unwrap();
            let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
            assert!(body["text"].as_str().unwrap().starts_with(&digest.subject), "{body}");
            assert_eq!(body["at"], digest.at.rfc3339());
        }

        let ntfy = webhook("body = '{{subject}}'\nheaders = { Content-Type = \"text/plain\" }");
        assert_eq!(ntfy.bodies(&digests[0], &sender), [digests[0].subject.clone()]);
    }

    /// What opened an incident has to close the same one.
    #[test]
    fn a_service_for_incidents_hears_of_each_from_its_begin_to_its_end() {
        let (digests, sender) = digests();
        let pager = webhook(
            "body = '{\"event_action\": \"{{action}}\", \"dedup_key\": \"{{incident}}\"}'\nper_incident = true\nmin_severity = \"critical\"",
        );
        let events: Vec<Value> = (digests.iter().filter(|digest| pager.wants(digest.severity)))
            .flat_map(|digest| pager.bodies(digest, &sender))
            .map(|body| serde_json::from_str(&body).unwrap())
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

    #[test]
    fn the_examples_in_the_documentation() {
        let page = include_str!("../../../../docs/integrations.md");
        let (_, example) = page.split_once("```toml\n[[webhook]]").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let webhooks = parse(&format!("[[webhook]]{example}")).unwrap();
        assert_eq!(webhooks.len(), 4);

        let (digests, sender) = digests();
        for webhook in webhooks {
            let bodies: Vec<_> = digests
                .iter()
                .flat_map(|digest| webhook.bodies(digest, &sender))
                .collect();
            for body in bodies {
                assert!(!body.contains("{{"), "{body}");
                let is_json = serde_json::from_str::<Value>(&body).is_ok();
                assert_eq!(is_json, webhook.is_json, "{}: {body}", webhook.name);
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
