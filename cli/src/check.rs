//! `neverlapse check`: targets in, one of five formats out.

use std::fs;
use std::io::{self, BufWriter, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::process::exit;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use futures::stream::{Stream, StreamExt, unfold};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use neverlapse::chain::roots::Roots;
use neverlapse::endpoint::Endpoint;
use neverlapse::finding::Severity;
use neverlapse::finding::Thresholds;
use neverlapse::probe::{Options, Prober, Target, Timeouts};
use neverlapse::report::Counts;
use neverlapse::resolve;
use neverlapse::timestamp::Timestamp;
use tokio::select;
use tokio::signal::ctrl_c;
use tokio::sync::mpsc;

use crate::output::Output;
use crate::source::{Mistakes, Source};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = USAGE)]
pub(crate) struct Arguments {
    /// host, host:port, [v6]:port, smtp://host[:port] (STARTTLS; also imap, pop3, ftp, ldap, postgres, mysql), or smtps://host
    #[arg(value_name = "ENDPOINT", required_unless_present_any = ["file", "inventory"])]
    pub(crate) endpoints: Vec<Endpoint>,
    /// Read endpoints from a file, one a line, # for comments; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Read an inventory: a file, whose `ca` are paths beside it, or s3://bucket[/key], whose `ca` are keys
    #[arg(long, value_name = "FILE|s3://BUCKET")]
    pub(crate) inventory: Option<String>,
    /// Trust the roots in this PEM file too; may be given several times
    #[arg(long, value_name = "PEM")]
    pub(crate) ca: Vec<PathBuf>,
    /// Judge as of another time, such as 2027-01-31T12:00:00Z
    #[arg(long, value_name = "RFC3339", value_parser = instant)]
    at: Option<Timestamp>,
    /// Ask this name server instead of the system's
    #[arg(long, value_name = "IP[:PORT]", value_parser = nameserver)]
    nameserver: Option<SocketAddr>,
    /// Warn below this many days, or below a third of the certificate's lifetime [default: 14]
    #[arg(long, value_name = "N", value_parser = days, allow_negative_numbers = true)]
    warn_days: Option<u32>,
    /// Critical below this many days, or below a tenth of the certificate's lifetime [default: 3]
    #[arg(long, value_name = "N", value_parser = days, allow_negative_numbers = true)]
    critical_days: Option<u32>,
    /// Give an address this long in all
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds, allow_negative_numbers = true)]
    timeout: Duration,
    /// Look at this many endpoints together [default: 200, or what the limit on open files allows]
    #[arg(long, value_name = "N", value_parser = together, allow_negative_numbers = true)]
    concurrency: Option<u32>,
    /// Do not fetch revocation lists
    #[arg(long)]
    no_revocation: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// No progress bar, even when standard error is a terminal
    #[arg(long)]
    no_progress: bool,
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
    /// One self-contained web page
    Html,
}

impl Arguments {
    /// What was set here wins over an inventory. Critical is never sooner than a warning, unless both were set.
    pub(crate) fn thresholds(&self, other: Thresholds) -> Thresholds {
        let warn_days = self.warn_days.unwrap_or(other.warn_days);
        let critical_days = self.critical_days.unwrap_or(other.critical_days.min(warn_days));
        Thresholds {
            warn_days,
            critical_days,
        }
    }

    fn options(&self) -> Options {
        Options {
            at: self.at,
            nameserver: self.nameserver,
            timeouts: Timeouts::within(self.timeout),
            sockets: concurrency(self.concurrency),
            revocation: !self.no_revocation,
            ..Options::default()
        }
    }
}

/// Looks at everything and returns the exit code.
pub(crate) async fn run(arguments: Arguments) -> Result<u8> {
    if let (Some(warn), Some(critical)) = (arguments.warn_days, arguments.critical_days)
        && warn < critical
    {
        bail!("--warn-days {warn} is less than --critical-days {critical} (expected at least as many)");
    }
    let progress = ProgressBar::hidden();
    let mistakes = Mistakes::new(progress.clone());
    let source = Source::open(&arguments, roots(&arguments)?, &mistakes).await?;
    let prober = Prober::new(arguments.options())?;
    if !arguments.no_progress {
        show(&progress, source.expected);
    }
    let mut counts = Counts::default();
    let out = BufWriter::new(io::stdout().lock());
    let mut output = Output::new(arguments.format, out, Timestamp::now())?;
    let mut reports = pin!(prober.run(stream_of(source.targets)));
    let mut interrupt = pin!(ctrl_c());
    let interrupted = loop {
        let report = select! {
            biased;
            Ok(()) = &mut interrupt => break true,
            report = reports.next() => report,
        };
        let Some(report) = report else { break false };
        counts.add(report.status);
        progress.suspend(|| output.endpoint(&report))?;
        progress.inc(1);
    };
    progress.finish_and_clear();
    if interrupted {
        // Whoever does not want to wait for the rest of the output either.
        tokio::spawn(async { ctrl_c().await.map(|()| exit(INTERRUPTED.into())) });
        output.finish(counts, Timestamp::now(), &mistakes)?;
        eprintln!("error: interrupted; this is what was looked at by then");
        return Ok(INTERRUPTED);
    }
    if counts.total() == 0 && mistakes.count() == 0 {
        bail!("there is nothing to look at (expected at least one endpoint)");
    }
    output.finish(counts, Timestamp::now(), &mistakes)?;
    let rest = if mistakes.count() > 0 {
        Severity::Unknown
    } else {
        Severity::Ok
    };
    Ok(counts.worst().max(rest).exit_code())
}

/// Reads targets on a thread of its own, because a pipe may pause: what came before is looked at and reported meanwhile.
fn stream_of(mut targets: Box<dyn Iterator<Item = Target> + Send>) -> impl Stream<Item = Target> {
    let (sender, receiver) = mpsc::channel(1);
    thread::spawn(move || targets.all(|target| sender.blocking_send(target).is_ok()));
    unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)))
}

/// How many endpoints to have under way, so that files enough are left: one that cannot be opened would look like a
/// server that does not answer. An endpoint needs two at most, for its A and AAAA look-ups or for its connection.
fn concurrency(asked: Option<u32>) -> usize {
    let asked_or_usual = asked.unwrap_or(CONCURRENCY) as usize;
    let Some(files) = open_files() else {
        return asked_or_usual;
    };
    let possible = files.saturating_sub(FILES_BESIDE) / 2;
    if asked_or_usual <= possible {
        return asked_or_usual;
    }
    let possible = possible.max(1);
    if let Some(asked) = asked {
        let needed = asked as usize * 2 + FILES_BESIDE;
        eprintln!(
            "warning: --concurrency {asked} is lowered to {possible}, because only {files} files may be open\n\
             hint: run `ulimit -n {needed}` first"
        );
    }
    possible
}

/// The limit on open files, where the system says it in a file.
fn open_files() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    soft.split_whitespace().next()?.parse().ok()
}

fn roots(arguments: &Arguments) -> Result<Roots> {
    let mut roots = Roots::public();
    for path in &arguments.ca {
        let pem = fs::read(path).with_context(|| format!("cannot read --ca {}", path.display()))?;
        roots = roots
            .with_pem(&pem)
            .with_context(|| format!("--ca {}", path.display()))?;
    }
    Ok(roots)
}

/// Shows the progress where a person watches and it takes long enough to wonder.
fn show(progress: &ProgressBar, expected: Option<u64>) {
    if !io::stderr().is_terminal() || expected.is_some_and(|count| count <= SHORT) {
        return;
    }
    let template = match expected {
        Some(_) => "{bar:30} {pos}/{len} endpoints, {eta} left",
        None => "{spinner} {pos} endpoints, {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        progress.set_style(style);
    }
    expected.into_iter().for_each(|count| progress.set_length(count));
    progress.set_draw_target(ProgressDrawTarget::stderr());
    progress.enable_steady_tick(TICK);
}

fn instant(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|_| "expected a time such as 2027-01-31T12:00:00Z".to_owned())
}

pub(crate) fn nameserver(text: &str) -> Result<SocketAddr, String> {
    resolve::nameserver(text).ok_or_else(|| {
        "expected an address, with or without a port, such as 10.0.0.2 or [2001:db8::53]:5353".to_owned()
    })
}

fn days(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "expected a whole number of days, 0 or more".to_owned())
}

fn together(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 1..=50_000) => Ok(count),
        _ => Err("expected a whole number, from 1 to 50000".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=3_600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected seconds, from 0.001 to 3600".to_owned()),
    }
}

/// What shells say of a command that Ctrl-C ended: 128 and the signal's number.
const INTERRUPTED: u8 = 130;
const SHORT: u64 = 20;
const TICK: Duration = Duration::from_millis(100);
const CONCURRENCY: u32 = 200;
/// Standard streams, the runtime, name servers, revocation lists.
const FILES_BESIDE: usize = 64;
const USAGE: &str = "neverlapse check [OPTIONS] [ENDPOINT]... [--file FILE] [--inventory FILE|s3://BUCKET]";
const EXAMPLES: &str = "\
Examples:
  neverlapse check example.com api.example.com:8443 smtp://mail.example.com:587
  neverlapse check --file names.txt --format jsonl | jq 'select(.status != \"ok\")'
  neverlapse check --inventory s3://my-bucket
  neverlapse check vault.internal:8200 --ca internal.pem --at 2027-01-31T12:00:00Z
  neverlapse check --inventory inventory.toml --format prometheus | sponge neverlapse.prom
  neverlapse check --inventory inventory.toml --format html > report.html

Exit codes: 0 ok, 1 warning, 2 critical, 3 unknown (could not look, or not understood);
130 after Ctrl-C, which prints what was looked at by then";
