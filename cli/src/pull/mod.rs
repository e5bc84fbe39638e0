//! `neverlapse pull`: installs what the bucket says is current, safely, and reports.
//!
//! Each certificate goes one way. The pointer is read, the version behind it is downloaded and
//! verified in memory ([`candidate`]), stored in a folder of its own ([`folder`]), and made live by
//! one rename. Then the server's configuration is tested, and the server reloaded and probed by a
//! handshake: one reload for all certificates with the same commands ([`mod@install`]). A version
//! that fails there is switched back.
//!
//! What is to be done, and when, is decided by [`plan`] from the [`state`]. Work is written down
//! there before it begins and removed when a handshake has shown it, so that whatever interrupts a
//! run, the next one finishes it. The [`receipt`] comes last.

mod candidate;
mod config;
mod folder;
mod guard;
mod handshake;
mod install;
mod instance;
mod journal;
mod keystore;
mod layout;
mod lock;
mod outcome;
mod plan;
mod program;
mod receipt;
mod source;
mod state;
mod window;
mod withdrawal;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use clap::Args;
use futures::{StreamExt, stream};
use neverlapse::finding::Severity;
use neverlapse::timestamp::Timestamp;

use self::config::Config;
use self::install::{Failures, install};
use self::instance::{Identity, Machine};
use self::journal::Journal;
use self::lock::Lock;
use self::outcome::{Outcome, Problem, Verdict};
use self::plan::Plan;
use self::receipt::{Reporter, receipt};
use self::source::{RECEIPTS, Source, is_denied};
use self::work::Work;

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// What to install, and where
    #[arg(long, value_name = "FILE", default_value = "/etc/neverlapse/pull.toml")]
    config: PathBuf,
    /// Take versions from a folder that is laid out like the bucket, and leave receipts there
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Download and verify, say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Change at once, outside of the window and however often it has failed
    #[arg(long)]
    now: bool,
    /// Say goodbye: remove this instance's receipts, so that nobody waits for it. What is installed stays
    #[arg(long, conflicts_with_all = ["dry_run", "now"])]
    leave: bool,
}

/// One run over all certificates; the exit code is that of the worst thing that happened.
pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let config = Config::read(&arguments.config)?;
    let journal = Journal::open();
    let patience = if arguments.leave { LAST_RUN } else { Duration::ZERO };
    // Held until the end. A dry run changes nothing, and needs none.
    let _lock = if arguments.dry_run {
        None
    } else {
        Some(Lock::take(&config.state, patience).await?)
    };

    let machine = Machine::find().await;
    let (source, identity) = source::open(arguments.from.as_deref(), &config, &machine).await?;
    if arguments.leave {
        let worst = withdrawal::leave(&config, &source, journal).await?;
        return Ok(worst.exit_code());
    }

    let run = Run {
        config: &config,
        source: &source,
        identity: &identity,
        machine: &machine,
        journal,
    };
    let (works, mut worst) = run.open(arguments.now, Timestamp::now());
    if arguments.dry_run {
        worst = worst.max(run.dry_run(works).await);
        return Ok(worst.exit_code());
    }

    let mut jobs: Vec<_> = stream::iter(works).map(prepare).buffered(TOGETHER).collect().await;
    let ready = jobs.iter_mut().filter(|job| job.plan == Plan::Install);
    let failures = install(ready.map(|job| &mut job.work).collect(), journal).await;
    worst = worst.max(run.report(&mut jobs, &failures).await);

    withdrawal::forget_others(&config, &source, journal).await;
    Ok(worst.exit_code())
}

/// What is the same for all certificates of a run.
struct Run<'a> {
    config: &'a Config,
    source: &'a Source,
    identity: &'a Identity,
    machine: &'a Machine,
    journal: Journal,
}

/// A certificate, what is to be done about it, and what is wrong with the source.
struct Job<'a> {
    work: Work<'a>,
    plan: Plan,
    problem: Option<Problem>,
}

/// Has a version ready on the disk: what the source shows, or else what is there already.
async fn prepare(mut work: Work<'_>) -> Job<'_> {
    let (plan, mut problem) = match work.prepare().await {
        Ok(plan) => (plan, None),
        Err(problem) => (work.carry_on().await, Some(problem)),
    };

    // An installation writes the state itself, once there is a way back.
    if plan.is_postponed()
        && let Err(error) = work.save()
    {
        problem = Some(Problem::failed(&error));
    }
    Job { work, plan, problem }
}

impl<'a> Run<'a> {
    /// Opens every certificate. One that cannot be opened does not keep the others from being
    /// installed.
    fn open(&self, at_once: bool, now: Timestamp) -> (Vec<Work<'a>>, Severity) {
        let mut works = Vec::new();
        let mut worst = Severity::Ok;

        for wanted in &self.config.certificates {
            match Work::open(self.config, wanted, self.source, at_once, now) {
                Ok(work) => works.push(work),
                Err(error) => {
                    self.journal.error(&format!("{}: {error:#}", wanted.name));
                    worst = Severity::Unknown;
                }
            }
        }
        (works, worst)
    }

    async fn dry_run(&self, works: Vec<Work<'_>>) -> Severity {
        let mut worst = Severity::Ok;

        for mut work in works {
            match work.dry_run().await {
                Ok(line) => self.journal.info(&format!("{}: {line}", work.wanted.name)),
                Err(problem) => {
                    let job = Job {
                        work,
                        plan: Plan::Nothing,
                        problem: Some(problem),
                    };
                    worst = worst.max(self.log(&job.outcome(&Failures::new()).verdict()));
                }
            }
        }
        worst
    }

    /// Reports how it ended, to the probe and in the journal.
    async fn report(&self, jobs: &mut [Job<'_>], failures: &Failures<'_>) -> Severity {
        // Only now: certificates must be installed even if AWS does not say who this is.
        let instance = self.identity.find(self.machine).await;
        let mut worst = Severity::Ok;

        for job in jobs {
            let outcome = job.outcome(failures);
            let verdict = outcome.verdict();

            let sent = match &instance {
                Ok(instance) => {
                    let reporter = Reporter {
                        instance,
                        host: &self.machine.host,
                        runs_every: self.config.runs_every,
                    };
                    match receipt(&outcome, reporter) {
                        Some(receipt) => job.work.report(receipt).await,
                        None => Ok(()),
                    }
                }
                Err(error) => Err(anyhow!("{error:#}")),
            };

            if let Err(error) = sent {
                worst = worst.max(self.not_reported(&job.work, &error));
            }
            worst = worst.max(self.log(&verdict));
        }
        worst
    }

    fn not_reported(&self, work: &Work<'_>, error: &Error) -> Severity {
        let line = format!("{}: the receipt is not written: {error:#}", work.wanted.name);
        if self.source.is_read_only(error) {
            self.journal.info(&line);
            return Severity::Ok;
        }

        self.journal.warning(&line);
        if is_denied(error) {
            self.identity.forget();
            self.journal.hint(RECEIPTS);
        }
        Severity::Warning
    }

    fn log(&self, verdict: &Verdict) -> Severity {
        match verdict.severity {
            Severity::Ok => self.journal.info(&verdict.line),
            Severity::Warning | Severity::Unknown => self.journal.warning(&verdict.line),
            Severity::Critical => self.journal.error(&verdict.line),
        }
        if let Some(hint) = verdict.hint {
            self.journal.hint(hint);
        }
        verdict.severity
    }
}

impl Job<'_> {
    fn outcome<'o>(&'o self, failures: &'o Failures<'_>) -> Outcome<'o> {
        let name = self.work.wanted.name.as_str();
        Outcome {
            name,
            state: &self.work.state,
            plan: self.plan,
            problem: self.problem.as_ref(),
            failure: failures.get(name).map(String::as_str),
            now: self.work.now,
        }
    }
}

/// How long a goodbye waits for a run that is still at work.
const LAST_RUN: Duration = Duration::from_secs(30);
/// This many certificates are fetched, and the servers of those that are installed probed, at the
/// same time.
const TOGETHER: usize = 50;
const HELP: &str = "\
Exit codes: 0 everything is installed (or waits for its window), 1 a new version was refused or could not be installed while the old \
one is good for some time, 2 the same with nothing installed or little time left, 3 could not look (no network, no access, a mistake in \
the configuration, another run at work).

Files are in FOLDER/live/NAME/: cert.pem, chain.pem, fullchain.pem, privkey.pem, and combined.pem and keystore.p12 if \
they are asked for.";
