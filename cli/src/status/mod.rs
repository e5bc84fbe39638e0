//! `neverlapse status`: every managed certificate, how far it is at each instance and each address,
//! and what the renewer does about it; and every other endpoint, as the probe saw it.

mod overview;
mod plugin;
mod prometheus;
mod served;
mod table;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use neverlapse::bucket::store::{LATEST_JSON, Store};
use neverlapse::delivery;
use neverlapse::finding::{Kind, Span};
use neverlapse::inventory::{Inventory, Managed, Problem};
use neverlapse::renewal::decide;
use neverlapse::report::Report;
use neverlapse::report::page::page;
use neverlapse::text::printable_json;
use neverlapse::timestamp::Timestamp;
use tokio::time::Instant;

use self::overview::Overview;
use self::served::{SeenBy, Served};
use self::table::Table;
use crate::argument;
use crate::format::Format;
use crate::stack::{Stack, StackName, certificate};
use crate::terminal::Terminal;

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// Only these certificates, by their names in the inventory
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Check the endpoints now, from here, instead of showing what the probe saw last
    #[arg(long)]
    look: bool,
    /// With --look: use this name server instead of the system's
    #[arg(long, value_name = "IP[:PORT]", value_parser = argument::nameserver, requires = "look")]
    nameserver: Option<SocketAddr>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    stack: StackName,
}

/// Reads the bucket, probes if that was requested, prints the overview, and returns the exit code.
pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let stack = Stack::find(&arguments.stack).await?;
    let inventory = stack.inventory().await?;
    let certificates = chosen(&inventory, &arguments.names)?;

    let overview = overview(arguments, &stack, &inventory, &certificates).await?;

    let mut out = io::stdout().lock();
    match arguments.format {
        Format::Table => Table::of(&overview).print(&mut out, Terminal::of_stdout())?,
        Format::Json => {
            let json = serde_json::to_string(&overview.report())?;
            writeln!(out, "{}", printable_json(json))?;
        }
        Format::Jsonl => print_lines(&overview.report(), &mut out)?,
        Format::Prometheus => prometheus::print(&overview, &mut out)?,
        Format::Plugin => plugin::print(&overview, &mut out)?,
        Format::Html => out.write_all(page(&overview.report(), None)?.as_bytes())?,
    }
    out.flush()?;
    print_hints(&overview);
    Ok(overview.status().exit_code())
}

/// One JSON object per line: certificates first, then endpoints, worst first.
fn print_lines(report: &Report, out: &mut impl Write) -> Result<()> {
    for certificate in &report.certificates {
        writeln!(out, "{}", printable_json(serde_json::to_string(certificate)?))?;
    }
    for endpoint in &report.endpoints {
        writeln!(out, "{}", printable_json(serde_json::to_string(endpoint)?))?;
    }
    Ok(())
}

/// The certificates of these names, or all of them if there are no names.
fn chosen(inventory: &Inventory, names: &[String]) -> Result<Vec<Managed>> {
    for name in names {
        certificate(inventory, name)?;
    }

    let mut certificates = inventory.certificates.clone();
    certificates.retain(|certificate| names.is_empty() || names.contains(&certificate.name));
    Ok(certificates)
}

async fn overview(
    arguments: &Arguments,
    stack: &Stack,
    inventory: &Inventory,
    certificates: &[Managed],
) -> Result<Overview> {
    let began = Timestamp::now();
    let last = last_report(&stack.store).await;
    // Without names it is about everything that is watched.
    let only = (!arguments.names.is_empty()).then_some(certificates);
    let served = if arguments.look {
        Served::probe(only, inventory, stack, arguments.nameserver, timeout()).await?
    } else {
        Served::seen_by_probe(only, last.as_ref())
    };
    let before = last.as_ref().map_or(&[][..], |last| &last.certificates);
    let stored = delivery::read(&stack.store, certificates, before, timeout()).await;
    let now = Timestamp::now();

    let mut decisions = Vec::new();
    for (certificate, stored) in certificates.iter().zip(&stored) {
        // Where one of both cannot be read, the report has a finding for it.
        if let (Ok(current), Ok(renewal)) = (&stored.current, &stored.renewal) {
            let decision = decide(
                &inventory.issuers,
                certificate,
                current.as_ref(),
                renewal.as_ref(),
                None,
                now,
            );
            decisions.push((certificate.name.clone(), decision));
        }
    }

    let mut reports = delivery::reports(certificates, &stored, &served.endpoints, now);
    let mut problems = inventory.problems.clone();
    // What is missing from an inventory with problems may be one of them.
    if arguments.names.is_empty() && problems.is_empty() {
        let (left_out, unreadable) = delivery::left_out(&stack.store, certificates, timeout()).await;
        reports.extend(left_out.iter().map(|facts| delivery::not_renewed(facts, false, now)));
        problems.extend(unreadable.into_iter().map(Problem::new));
    }

    Ok(Overview {
        certificates: reports,
        decisions,
        problems,
        is_everything: only.is_none(),
        served,
        probe_period: stack.heartbeat(),
        began,
        now,
    })
}

/// The probe's last report. Without it the status shows less, and the rest stands.
async fn last_report(store: &Store) -> Option<Report> {
    match store.document::<Report>(LATEST_JSON).await {
        Ok(last) => last.map(|last| last.value),
        Err(error) => {
            eprintln!("warning: {error}");
            None
        }
    }
}

fn timeout() -> Instant {
    Instant::now() + TIMEOUT
}

/// What to do where this command could not do its work.
fn print_hints(overview: &Overview) {
    match overview.served.by {
        SeenBy::Nobody if overview.is_everything || overview.is_served_somewhere() => {
            eprintln!("warning: there is no {LATEST_JSON} yet, so it is not known what is served");
            eprintln!("hint: `neverlapse run` has the probe check now; --look checks from here");
        }
        SeenBy::Probe(at) if overview.is_old() => {
            let ago = Span(overview.now - at);
            let period = Span(overview.probe_period);
            eprintln!("warning: the last run of the probe was {ago} ago; it should run at least every {period}");
            eprintln!("hint: its log and its schedule show why; --look checks now, from here");
        }
        _ => {}
    }

    let mut findings = overview.certificates.iter().flat_map(|report| &report.findings);
    if findings.any(|finding| matches!(finding.kind, Kind::CertificateUnreadable { .. })) {
        eprintln!("hint: {RIGHTS}");
    }
}

/// For each step: nobody waits longer at a terminal.
const TIMEOUT: Duration = Duration::from_secs(240);
const RIGHTS: &str = "this needs s3:ListBucket in the bucket, kms:Decrypt with its key, and s3:GetObject on inventory.toml, \
                      certificates/*/current.json, certificates/*/versions/*/manifest.json, receipts/*, state/renewals/* and \
                      reports/latest.json";
const HELP: &str = "\
Examples:
  neverlapse status
  neverlapse status example.com --look
  neverlapse status --format plugin
  neverlapse status --format json | jq '.certificates[] | select(.status != \"ok\") | .name'

Versions, receipts and renewals are read from the bucket as they are now. What endpoints serve is what the probe saw in its last \
run, unless --look checks them now, from here.

Exit codes: 0 ok, 1 warning, 2 critical, 3 unknown (something could not be read or checked, or not understood).";
