//! `neverlapse status`: every managed certificate, how far it is at each instance and each address, and what the renewer does about it.

mod table;

use std::io::{self, Write};
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use neverlapse::bucket::store::{LATEST_JSON, Store};
use neverlapse::chain::roots::Roots;
use neverlapse::delivery;
use neverlapse::finding::{Kind, Severity, Span};
use neverlapse::inventory::{Inventory, Managed, Problem};
use neverlapse::probe::{Options, Prober, Target};
use neverlapse::renewal::{Decision, decide};
use neverlapse::report::{AddressStage, CertificateReport, EndpointReport, Report};
use neverlapse::text::{printable, printable_json};
use neverlapse::timestamp::Timestamp;
use time::Duration;
use tokio::time::Instant;

use self::table::Table;
use crate::check::nameserver;
use crate::stack::{Stack, StackName, certificate};
use crate::terminal::Terminal;

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// Only these certificates, by their names in the inventory
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Look at where they are served now, from here, instead of telling what the probe saw last
    #[arg(long)]
    look: bool,
    /// With --look: ask this name server instead of the system's
    #[arg(long, value_name = "IP[:PORT]", value_parser = nameserver, requires = "look")]
    nameserver: Option<SocketAddr>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    stack: StackName,
}

/// How to print the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people, worst first
    Table,
    /// One neverlapse.report/1 document
    Json,
}

/// Reads, puts side by side, prints, and answers with the exit code.
pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let stack = Stack::find(&arguments.stack).await?;
    let inventory = stack.inventory().await?;
    for mistake in &inventory.problems {
        eprintln!("error: inventory.toml {}", printable(&mistake.to_string()));
    }
    let certificates = chosen(&inventory, &arguments.names)?;
    let began = Timestamp::now();
    let last = last(&stack.store).await;
    let before = last.as_ref().map_or(&[][..], |last| &last.certificates);
    let wire = match arguments.look {
        true => look(arguments.nameserver, &stack, &inventory, &certificates).await?,
        false => remembered(last.as_ref(), &certificates),
    };
    let stored = delivery::read(&stack.store, &certificates, before, Instant::now() + PATIENCE).await;
    let now = Timestamp::now();
    let decisions = certificates.iter().zip(&stored).map(|(certificate, stored)| {
        let (current, renewal) = (stored.current.as_ref().ok()?, stored.renewal.as_ref().ok()?);
        let decision = decide(certificate, current.as_ref(), renewal.as_ref(), None, now);
        Some((certificate.name.clone(), decision))
    });
    let mut reports = delivery::reports(&certificates, &stored, &wire.endpoints, now);
    let mut mistakes: Vec<_> = inventory.problems.clone();
    if arguments.names.is_empty() && mistakes.is_empty() {
        let (left_out, problems) = delivery::left_out(&stack.store, &certificates, Instant::now() + PATIENCE).await;
        reports.extend(
            left_out
                .iter()
                .map(|current| delivery::not_renewed(current, false, now)),
        );
        mistakes.extend(problems.into_iter().map(Problem::new));
    }
    let status = Status {
        certificates: reports,
        decisions: decisions.flatten().collect(),
        mistakes,
        wire,
        old_after: period(&stack),
        began,
        now,
    };
    let mut out = io::stdout().lock();
    match arguments.format {
        Format::Table => Table::of(&status).print(&mut out, Terminal::of_stdout())?,
        Format::Json => {
            let json = serde_json::to_string(&status.report())?;
            writeln!(out, "{}", printable_json(json))?;
        }
    }
    out.flush()?;
    status.advise();
    Ok(status.verdict().exit_code())
}

/// Everything that is known, as of `now`.
struct Status {
    certificates: Vec<CertificateReport>,
    /// By name: what the renewer makes of it.
    decisions: Vec<(String, Decision)>,
    mistakes: Vec<Problem>,
    wire: Wire,
    /// How long what the probe saw is good.
    old_after: Duration,
    began: Timestamp,
    now: Timestamp,
}

/// What was seen of the endpoints, when, and by whom.
struct Wire {
    endpoints: Vec<EndpointReport>,
    seen: Seen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// By this command.
    Here,
    /// By the probe.
    ByProbe(Timestamp),
    /// By nobody.
    Never,
}

impl Status {
    /// The worst of all. What nobody could see, or saw too long ago, is unknown.
    fn verdict(&self) -> Severity {
        let rest = match self.mistakes.is_empty() && !self.is_old() {
            true => Severity::Ok,
            false => Severity::Unknown,
        };
        let each = self
            .certificates
            .iter()
            .map(|certificate| verdict(certificate, self.now));
        each.fold(rest, Severity::max)
    }

    /// As a document, which `neverlapse report -` makes a page of.
    fn report(&self) -> Report {
        let endpoints = self.wire.endpoints.iter().map(|seen| EndpointReport {
            seconds_left: seen.not_after.map(|end| (end - self.now).whole_seconds()),
            ..seen.clone()
        });
        let mut report = Report::new(self.began, self.now, endpoints.collect());
        report.certificates = self.certificates.clone();
        report.mistakes = self.mistakes.clone();
        if let Seen::ByProbe(at) = self.wire.seen {
            report.looked_at = Some(at);
        }
        report
    }

    /// What to do where this command could not do its work.
    fn advise(&self) {
        match self.wire.seen {
            Seen::Never if self.is_served_somewhere() => {
                eprintln!("warning: there is no {LATEST_JSON} yet, so nobody has seen what is served");
                eprintln!("hint: --look looks now, from here");
            }
            Seen::ByProbe(at) if self.is_old() => {
                let (ago, every) = (Span(self.now - at), Span(self.old_after));
                eprintln!("warning: the probe looked {ago} ago; it should every {every} at the latest");
                eprintln!("hint: its log and its schedule say why; --look looks now, from here");
            }
            _ => {}
        }
        let findings = self.certificates.iter().flat_map(|certificate| &certificate.findings);
        let mut kinds = findings.map(|finding| &finding.kind);
        if kinds.any(|kind| matches!(kind, Kind::CertificateUnreadable { .. })) {
            eprintln!("hint: {RIGHTS}");
        }
    }

    fn is_old(&self) -> bool {
        matches!(self.wire.seen, Seen::ByProbe(at) if self.now - at > self.old_after)
    }

    fn is_served_somewhere(&self) -> bool {
        self.certificates
            .iter()
            .any(|certificate| !certificate.addresses.is_empty())
    }
}

/// How bad it is with a certificate: what is found, what could not be seen, and whether it has ended.
fn verdict(certificate: &CertificateReport, now: Timestamp) -> Severity {
    let unseen = certificate
        .addresses
        .iter()
        .any(|seen| seen.stage == AddressStage::Unseen);
    let rest = match unseen {
        _ if certificate.not_after.is_some_and(|end| end <= now) => Severity::Critical,
        true => Severity::Unknown,
        false => Severity::Ok,
    };
    certificate.status.max(rest)
}

fn chosen(inventory: &Inventory, names: &[String]) -> Result<Vec<Managed>> {
    if names.is_empty() && inventory.certificates.is_empty() {
        bail!("the inventory has no [[certificate]]");
    }
    for name in names {
        certificate(inventory, name)?;
    }
    let is_asked = |one: &&Managed| names.is_empty() || names.contains(&one.name);
    Ok(inventory.certificates.iter().filter(is_asked).cloned().collect())
}

/// The time within which a run must have ended, or the stack alarms.
fn period(stack: &Stack) -> Duration {
    let hours = stack.parameter("HeartbeatHours").and_then(|hours| hours.parse().ok());
    Duration::hours(hours.unwrap_or(DAILY))
}

/// The probe's last report. Without it there is less to tell, and the rest stands.
async fn last(store: &Store) -> Option<Report> {
    match store.json::<Report>(LATEST_JSON).await {
        Ok(last) => last.map(|last| last.value),
        Err(error) => {
            eprintln!("warning: {error}");
            None
        }
    }
}

/// What the probe saw of these certificates' endpoints.
fn remembered(last: Option<&Report>, certificates: &[Managed]) -> Wire {
    let Some(last) = last else {
        return Wire {
            endpoints: Vec::new(),
            seen: Seen::Never,
        };
    };
    let places = places(certificates);
    let endpoints = last.endpoints.iter().filter(|seen| places.contains(&seen.endpoint));
    Wire {
        endpoints: endpoints.cloned().collect(),
        seen: Seen::ByProbe(last.finished_at),
    }
}

fn places(certificates: &[Managed]) -> std::collections::BTreeSet<String> {
    let places = certificates.iter().flat_map(|certificate| &certificate.served_at);
    places.map(ToString::to_string).collect()
}

/// Looks at them the way that the probe does.
async fn look(
    nameserver: Option<SocketAddr>,
    stack: &Stack,
    inventory: &Inventory,
    certificates: &[Managed],
) -> Result<Wire> {
    let mut asked = Inventory {
        thresholds: inventory.thresholds,
        ..Inventory::default()
    };
    for endpoint in certificates.iter().flat_map(|certificate| &certificate.served_at) {
        asked.watch_as_in(inventory, endpoint.clone());
    }
    let load = async |key: &str| match stack.store.object(key).await {
        Ok(Some(pem)) => Ok(pem),
        Ok(None) => Err("there is no such object in the bucket (expected a PEM file)".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let mut roots = Roots::public();
    if let Some(key) = stack.parameter("TrustBundleKey") {
        let pem = load(key).await.map_err(anyhow::Error::msg);
        let with = pem.and_then(|pem| Ok(roots.with_pem(&pem)?));
        roots = with.with_context(|| format!("trust bundle {key:?}"))?;
    }
    let (targets, mistakes) = Target::all(&asked, &roots, load).await;
    for mistake in mistakes {
        eprintln!("error: inventory.toml {}", printable(&mistake.to_string()));
    }
    let prober = Prober::new(Options {
        nameserver,
        sockets: SOCKETS,
        ..Options::default()
    })?;
    let report = prober.report(targets, Instant::now() + PATIENCE).await;
    Ok(Wire {
        endpoints: report.endpoints,
        seen: Seen::Here,
    })
}

/// Hours: a day, and some slack.
const DAILY: i64 = 26;
/// Nobody waits longer at a terminal.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(240);
const SOCKETS: usize = 200;
const RIGHTS: &str = "this needs s3:ListBucket in the bucket, kms:Decrypt with its key, and s3:GetObject on inventory.toml, \
                      certificates/*/current.json, certificates/*/versions/*/manifest.json, receipts/*, state/renewals/* and \
                      reports/latest.json";
const HELP: &str = "\
Examples:
  neverlapse status
  neverlapse status example.com --look
  neverlapse status --format json | jq '.certificates[] | select(.status != \"ok\") | .name'

Pointers, receipts and renewals are read from the bucket as they are now; what addresses show is what the probe saw in its last run, \
unless --look looks now, from here.

Exit codes: 0 ok, 1 warning, 2 critical, 3 unknown (something could not be read or seen, or not understood).";
