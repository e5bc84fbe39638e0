//! `neverlapse check`: probes targets, and prints the result in one of six formats.

mod concurrency;
mod file;
pub(crate) mod output;
pub(crate) mod plugin;
mod problems;
pub(crate) mod prometheus;
mod source;
pub(crate) mod summary;
pub(crate) mod table;
mod thresholds;

use std::io::{self, BufWriter, IsTerminal};
use std::net::SocketAddr;
use std::pin::pin;
use std::process::exit;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use futures::stream::{Stream, StreamExt, unfold};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use neverlapse::ehlo::Ehlo;
use neverlapse::probe::{Options, Prober, Target, Timeouts};
use neverlapse::report::Counts;
use neverlapse::timestamp::Timestamp;
use tokio::select;
use tokio::signal::ctrl_c;
use tokio::sync::mpsc;

use self::concurrency::concurrency;
use self::output::Output;
use self::problems::Problems;
use self::source::Source;
use self::summary::Summary;
use crate::argument;
use crate::format::Format;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = USAGE)]
#[group(skip)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::Arguments,
    /// Judge as of another time, such as 2027-01-31 or 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = argument::time)]
    at: Option<Timestamp>,
    /// Use this name server instead of the system's
    #[arg(long, value_name = "IP[:PORT]", value_parser = argument::nameserver)]
    nameserver: Option<SocketAddr>,
    #[command(flatten)]
    thresholds: thresholds::Arguments,
    /// Limit for each address, all steps together; above the usual 15, a single step may use all of
    /// it
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = argument::seconds, allow_negative_numbers = true)]
    timeout: Duration,
    /// Check this many endpoints at the same time [default: 200, or fewer if the limit on open
    /// files is low]
    #[arg(long, value_name = "N", value_parser = argument::concurrency, allow_negative_numbers = true)]
    concurrency: Option<u32>,
    /// The name to give mail servers in EHLO [default: the address that they see]
    #[arg(long, value_name = "NAME")]
    ehlo: Option<Ehlo>,
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

impl Arguments {
    fn options(&self) -> Options {
        Options {
            at: self.at,
            nameserver: self.nameserver,
            timeouts: Timeouts::within(self.timeout),
            sockets: concurrency(self.concurrency),
            revocation: !self.no_revocation,
            ehlo: self.ehlo.clone(),
            ..Options::default()
        }
    }
}

/// Probes everything, prints it, and returns the exit code.
pub(crate) async fn run(arguments: Arguments) -> Result<u8> {
    arguments.thresholds.validate()?;

    let progress = ProgressBar::hidden();
    let problems = Problems::new(progress.clone());
    let source = Source::open(&arguments.source, &arguments.thresholds, &problems).await?;
    let prober = Prober::new(arguments.options())?;
    if !arguments.no_progress {
        show(&progress, source.expected);
    }

    let began = Timestamp::now();
    let mut counts = Counts::default();
    let out = BufWriter::new(io::stdout().lock());
    let mut output = Output::new(arguments.format, out, began)?;

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
        // A second Ctrl-C does not wait for the rest of the output.
        tokio::spawn(async { ctrl_c().await.map(|()| exit(INTERRUPTED.into())) });
    } else if counts.total() == 0 && problems.count() == 0 {
        bail!("there is nothing to check (expected at least one endpoint)");
    }

    let summary = Summary {
        counts,
        began,
        ended: Timestamp::now(),
        problem_count: problems.count(),
        problems: problems.first(),
    };
    output.finish(&summary)?;
    if interrupted {
        eprintln!("error: interrupted; these are the results so far");
        return Ok(INTERRUPTED);
    }
    Ok(summary.status().exit_code())
}

/// Reads targets on a thread of its own, because a pipe may pause: the targets before the pause are
/// probed and printed meanwhile.
fn stream_of(mut targets: Box<dyn Iterator<Item = Target> + Send>) -> impl Stream<Item = Target> {
    let (sender, receiver) = mpsc::channel(1);
    thread::spawn(move || targets.all(|target| sender.blocking_send(target).is_ok()));
    unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)))
}

/// Shows the progress where a person watches, and may wonder how long it takes.
fn show(progress: &ProgressBar, expected: Option<u64>) {
    if !io::stderr().is_terminal() || expected.is_some_and(|count| count <= FEW) {
        return;
    }

    let template = match expected {
        Some(_) => "{bar:30} {pos}/{len} endpoints, {eta} left",
        None => "{spinner} {pos} endpoints, {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        progress.set_style(style);
    }
    if let Some(count) = expected {
        progress.set_length(count);
    }
    progress.set_draw_target(ProgressDrawTarget::stderr());
    progress.enable_steady_tick(TICK);
}

/// What shells report for a command that Ctrl-C ended: 128 and the signal's number.
const INTERRUPTED: u8 = 130;
/// So few endpoints need no progress bar.
const FEW: u64 = 20;
const TICK: Duration = Duration::from_millis(100);
const USAGE: &str = "neverlapse check [OPTIONS] [ENDPOINT]... [--file FILE] [--inventory FILE|s3://BUCKET]";
const EXAMPLES: &str = "\
Examples:
  neverlapse check example.com api.example.com:8443 smtp://mail.example.com:587
  neverlapse check --file names.txt --format jsonl | jq 'select(.status != \"ok\")'
  neverlapse check --inventory s3://my-bucket
  neverlapse check vault.internal:8200 --ca internal.pem --at 2027-01-31T12:00:00Z
  neverlapse check --inventory inventory.toml --format prometheus | sponge neverlapse.prom
  neverlapse check --inventory inventory.toml --format html > report.html
  neverlapse check --file names.txt --format plugin         as a plugin of Nagios, Icinga or Checkmk

Exit codes: 0 ok, 1 warning, 2 critical, 3 unknown (could not be checked, or not understood);
130 after Ctrl-C, which prints the results so far";
