//! `neverlapse check`: targets in, one of four formats out.

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use neverlapse::endpoint::Endpoint;
use neverlapse::finding::Severity;
use neverlapse::probe::{Options, Prober, Thresholds, Timeouts};
use neverlapse::report::Counts;
use neverlapse::roots::Roots;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::output::Output;
use crate::source::{Source, Targets};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// host, host:port, [v6]:port, or smtp://host[:port] (imap, pop3, ftp, ldap, postgres, mysql)
    #[arg(value_name = "ENDPOINT", required_unless_present_any = ["file", "inventory"])]
    pub(crate) endpoints: Vec<Endpoint>,
    /// Read endpoints from a file, one a line, # for comments; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Read an inventory: a file, or s3://bucket[/key]
    #[arg(long, value_name = "FILE|s3://BUCKET")]
    pub(crate) inventory: Option<String>,
    /// Trust the roots in this PEM file too; may be given several times
    #[arg(long, value_name = "PEM")]
    pub(crate) ca: Vec<PathBuf>,
    /// Judge as of another time, such as 2027-01-31T12:00:00Z
    #[arg(long, value_name = "RFC3339", value_parser = instant)]
    at: Option<OffsetDateTime>,
    /// Ask this name server instead of the system's
    #[arg(long, value_name = "IP[:PORT]", value_parser = nameserver)]
    nameserver: Option<SocketAddr>,
    /// Warn below this many days, or below a third of the certificate's lifetime [default: 14]
    #[arg(long, value_name = "N")]
    warn_days: Option<u32>,
    /// Critical below this many days, or below a tenth of the certificate's lifetime [default: 3]
    #[arg(long, value_name = "N")]
    critical_days: Option<u32>,
    /// Give an address this long in all
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds, allow_negative_numbers = true)]
    timeout: Duration,
    /// Open at most this many connections together
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    concurrency: u32,
    /// Do not fetch revocation lists
    #[arg(long)]
    no_revocation: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// How to print the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people, worst first
    Table,
    /// One neverlapse.report/1 document
    Json,
    /// One endpoint a line, in the order they finish
    Jsonl,
    /// For the textfile collector of node_exporter
    Prometheus,
}

impl Arguments {
    /// What was set here wins over an inventory's defaults.
    pub(crate) fn thresholds(&self, defaults: Thresholds) -> Thresholds {
        Thresholds {
            warn_days: self.warn_days.unwrap_or(defaults.warn_days),
            critical_days: self.critical_days.unwrap_or(defaults.critical_days),
        }
    }
}

/// Looks at everything and returns the exit code.
pub(crate) async fn run(arguments: Arguments) -> Result<u8> {
    let source = Source::open(&arguments, roots(&arguments)?).await?;
    let prober = Prober::new(Options {
        at: arguments.at,
        nameserver: arguments.nameserver,
        timeouts: Timeouts::within(arguments.timeout),
        sockets: arguments.concurrency as usize,
        revocation: !arguments.no_revocation,
        ..Options::default()
    })?;
    let progress = progress(source.expected);
    let Source { targets, mistakes, .. } = source;
    for mistake in &mistakes {
        progress.suspend(|| eprintln!("error: {mistake}"));
    }
    let Targets { iterator, skipped } = targets;
    let mut counts = Counts::default();
    let mut output = Output::new(arguments.format, io::stdout().lock(), OffsetDateTime::now_utc())?;
    let mut reports = Box::pin(prober.run(iterator));
    while let Some(report) = reports.next().await {
        counts.add(report.status);
        progress.suspend(|| output.endpoint(report))?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    output.finish(&counts, OffsetDateTime::now_utc(), &mistakes)?;
    io::stdout().flush()?;
    let unread = mistakes.len() as u64 + skipped.load(std::sync::atomic::Ordering::Relaxed);
    let rest = if unread > 0 || counts.total() == 0 {
        Severity::Unknown
    } else {
        Severity::Ok
    };
    Ok(counts.worst().max(rest).exit_code())
}

fn roots(arguments: &Arguments) -> Result<Roots> {
    let mut roots = Roots::public();
    for path in &arguments.ca {
        let pem = std::fs::read(path).with_context(|| format!("cannot read --ca {}", path.display()))?;
        roots = roots
            .with_pem(&pem)
            .with_context(|| format!("--ca {}", path.display()))?;
    }
    Ok(roots)
}

/// On standard error when a person watches it and it takes long enough to wonder.
fn progress(expected: Option<u64>) -> ProgressBar {
    match expected {
        Some(count) if count > SHORT && io::stderr().is_terminal() => {
            let template = "{bar:30} {pos}/{len} endpoints, {eta} left";
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(count).with_style(style)
        }
        None if io::stderr().is_terminal() => ProgressBar::new_spinner(),
        _ => ProgressBar::hidden(),
    }
}

fn instant(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "expected a time such as 2027-01-31T12:00:00Z".to_owned())
}

fn nameserver(text: &str) -> Result<SocketAddr, String> {
    let address = text
        .parse()
        .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
    address
        .map_err(|_| "expected an address, with or without a port, such as 10.0.0.2 or [2001:db8::53]:5353".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=3_600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected seconds, from 0.001 to 3600".to_owned()),
    }
}

const SHORT: u64 = 20;
const EXAMPLES: &str = "\
Examples:
  neverlapse check example.com api.example.com:8443 smtp://mail.example.com:587
  neverlapse check --file names.txt --format jsonl | jq 'select(.status != \"ok\")'
  neverlapse check --inventory s3://my-bucket
  neverlapse check vault.internal:8200 --ca internal.pem --at 2027-01-31T12:00:00Z

Exit codes: 0 ok, 1 warning, 2 critical, 3 unknown (could not look, or not understood)";
