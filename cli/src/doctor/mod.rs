//! `neverlapse doctor`: checks a deployed stack, and says what is wrong, why it
//! matters, and which command corrects it. Reads only, unless it is to send a test alert.

mod bucket;
mod certificates;
mod collect;
mod deployment;
mod line;
mod messaging;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::Cell;
use neverlapse::alert::webhook::{Webhooks, listed};
use neverlapse::alert::{Sender, Topic, sample};
use neverlapse::bucket::store::LATEST_JSON;
use neverlapse::finding::Severity;
use neverlapse::report::Report;
use neverlapse::text::{printable, printable_json};
use neverlapse::timestamp::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use self::line::Line;
use crate::argument;
use crate::cell;
use crate::format::Listing;
use crate::stack::{Stack, StackName};
use crate::terminal::{self, Terminal};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Also send a test alert, to the topic and to every webhook
    #[arg(long)]
    send: bool,
    /// Also write what a bug report needs, and no secret, to this file
    #[arg(long, value_name = "FILE")]
    collect: Option<PathBuf>,
    /// Print also what is as it should be
    #[arg(long)]
    all: bool,
    /// The only name server to ask about zones and CAA records
    #[arg(long, value_name = "IP[:PORT]", value_parser = argument::nameserver)]
    nameserver: Option<SocketAddr>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Listing::Table)]
    format: Listing,
    #[command(flatten)]
    stack: StackName,
}

/// A deployed stack, and the means to look at it.
struct Patient {
    stack: Stack,
    nameserver: Option<SocketAddr>,
    /// Type and physical id of each resource, by logical id.
    resources: BTreeMap<String, (String, String)>,
    now: Timestamp,
}

/// What was found, as a document for programs.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Diagnosis<'d> {
    /// Always `neverlapse.diagnosis/1`.
    schema: &'static str,
    /// When it was made.
    at: Timestamp,
    /// What was looked at, worst first, also where nothing is wrong.
    lines: &'d [Line],
}

impl<'d> Diagnosis<'d> {
    fn of(lines: &'d [Line], now: Timestamp) -> Self {
        Self {
            schema: SCHEMA,
            at: now,
            lines,
        }
    }
}

/// Looks at everything, prints what is wrong, and returns the exit code of [`Severity`].
pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let patient = Patient::find(&arguments.stack, arguments.nameserver).await?;
    let lines = patient.examine(arguments.send).await;

    if let Some(path) = &arguments.collect {
        let collected = collect::document(&patient, &lines).await;
        let json = printable_json(serde_json::to_string(&collected)?);
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut out = io::stdout().lock();
    match arguments.format {
        Listing::Table => print(&mut out, &lines, arguments.all)?,
        Listing::Json => {
            let diagnosis = Diagnosis::of(&lines, patient.now);
            writeln!(out, "{}", printable_json(serde_json::to_string(&diagnosis)?))?;
        }
        Listing::Jsonl => {
            for line in &lines {
                writeln!(out, "{}", printable_json(serde_json::to_string(line)?))?;
            }
        }
    }
    out.flush()?;
    Ok(worst(&lines).exit_code())
}

impl Patient {
    async fn find(name: &StackName, nameserver: Option<SocketAddr>) -> Result<Self> {
        let stack = Stack::find(name).await?;
        let resources = stack.resources().await.context("cannot list the stack's resources")?;
        Ok(Self {
            nameserver,
            resources,
            stack,
            now: Timestamp::now(),
        })
    }

    /// The physical id of the template's resource of this name, if it was made.
    fn resource(&self, id: &str) -> Option<&str> {
        self.resources.get(id).map(|(_, physical)| physical.as_str())
    }

    /// The logical and physical ids of all resources of this type.
    fn resources_of(&self, kind: &str) -> impl Iterator<Item = (&str, &str)> {
        let resources = self.resources.iter().filter(move |(_, (known, _))| known == kind);
        resources.map(|(id, (_, physical))| (id.as_str(), physical.as_str()))
    }

    /// What there is to say, worst first.
    async fn examine(&self, send: bool) -> Vec<Line> {
        let mut lines = deployment::examine(self).await;

        let heartbeat = self.stack.heartbeat();
        let report = match self.stack.store.document::<Report>(LATEST_JSON).await {
            Ok(report) => {
                let report = report.map(|report| report.value);
                let finished_at = report.as_ref().map(|report| report.finished_at);
                lines.push(deployment::of_last_run(
                    self.stack.name(),
                    finished_at,
                    self.now,
                    heartbeat,
                ));
                report
            }
            Err(error) => {
                lines.push(Line::unknown("last run", error));
                None
            }
        };

        lines.extend(messaging::examine(self).await);
        lines.extend(bucket::examine(self).await);
        lines.extend(certificates::examine(self, report.as_ref()).await);
        lines.push(deployment::of_clock(self.stack.services.clock_ahead()));
        if send {
            lines.push(self.send().await);
        }
        lines.sort_by_key(|line| std::cmp::Reverse(line.status));
        lines
    }

    /// Publishes one alert that says that it is a test, everywhere where alerts go.
    async fn send(&self) -> Line {
        let about = "test alert";
        match self.try_send().await {
            Ok(()) => Line::ok(about, "sent; see that it arrives"),
            Err(error) => Line::critical(
                about,
                format!("{error:#}"),
                "an alert that matters would not be sent from here either",
                "correct what it says; the functions publish with roles of their own, whose errors are in their logs",
            ),
        }
    }

    async fn try_send(&self) -> Result<()> {
        let arn = self.stack.output("AlertTopicArn")?;
        let store = &self.stack.store;
        let sender = Sender::of(self.stack.name(), arn, store.bucket());
        let digests = sample::digests(&sender, self.now);
        let digest = digests.first().context("there is no sample")?;
        Topic::new(aws_sdk_sns::Client::new(&self.stack.config), arn)
            .publish(digest, &sender)
            .await?;

        let webhooks = Webhooks::read(store).await;
        let mut posted = webhooks.notify(&[], Some(digest), &sender, self.now).await;
        posted.extend(webhooks.notify(&digest.ends(), None, &sender, self.now).await);
        let failed: BTreeSet<_> = posted.into_iter().filter_map(Result::err).collect();
        ensure!(failed.is_empty(), "{}", listed(&failed));
        Ok(())
    }
}

fn worst(lines: &[Line]) -> Severity {
    lines.iter().map(|line| line.status).max().unwrap_or(Severity::Ok)
}

fn print(out: &mut impl Write, lines: &[Line], all: bool) -> io::Result<()> {
    let mut grid = Terminal::of_stdout().grid(["STATUS", "ABOUT", "WHAT IS WRONG, WHY IT MATTERS, WHAT TO DO"]);
    for line in lines.iter().filter(|line| all || line.status != Severity::Ok) {
        let mut text = printable(&line.found);
        for (title, more) in [("why", &line.why), ("fix", &line.fix)] {
            if let Some(more) = more {
                text.push_str(&format!("\n{title}: {}", printable(more)));
            }
        }
        grid.add_row([
            cell::status(line.status),
            Cell::new(printable(&line.about)),
            Cell::new(text),
        ]);
    }
    terminal::print(grid, out)?;

    let wrong = lines.iter().filter(|line| line.status != Severity::Ok).count();
    writeln!(out, "{} things were checked, {wrong} to act on", lines.len())
}

const SCHEMA: &str = "neverlapse.diagnosis/1";
const EXAMPLES: &str = "\
Exit codes: 0 nothing is wrong, 1 a warning, 2 something does not work, 3 something could not be looked at

Examples:
  neverlapse doctor                            what is wrong, and what to do about it
  neverlapse doctor --all --send               everything, and one test alert
  neverlapse doctor --collect report.json      what a bug report needs, and no secret";
