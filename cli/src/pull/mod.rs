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

mod broken;
mod budget;
pub(crate) mod candidate;
pub(crate) mod check;
mod condition;
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
mod metrics;
#[cfg(test)]
mod model;
mod outcome;
mod plan;
mod program;
mod receipt;
mod relay;
mod report;
mod source;
mod state;
mod window;
mod withdrawal;
mod work;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Error, Result, anyhow, bail};
use clap::Args;
use futures::{StreamExt, stream};
use neverlapse::finding::Severity;
use neverlapse::isolation::isolated_async;
use neverlapse::timestamp::Timestamp;

use self::broken::Broken;
use self::budget::Budget;
use self::config::Config;
pub(crate) use self::config::schema;
use self::install::{Failures, install};
use self::instance::{Identity, Machine};
use self::journal::Journal;
use self::lock::Lock;
use self::metrics::Ending;
use self::outcome::{Outcome, SourceProblem, Verdict};
use self::plan::Plan;
use self::receipt::{Reporter, receipt};
use self::source::{RECEIPTS, Source, is_denied};
use self::state::Owner;
use self::withdrawal::Us;
use self::work::{Errand, Work};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// What to install, and where
    #[arg(long, value_name = "FILE", default_value = "/etc/neverlapse/pull.toml")]
    config: PathBuf,
    /// Take versions from a folder that is laid out like the bucket, and leave receipts there
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Download and verify, check what is served now, say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Change at once, outside of the window and however often it has failed
    #[arg(long)]
    now: bool,
    /// Remove this instance's receipts, so that the probe does not report it as silent. Installed
    /// certificates stay
    #[arg(long, conflicts_with_all = ["dry_run", "now"])]
    leave: bool,
}

/// One run over all certificates; the exit code is that of the worst thing that happened.
pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let budget = Budget::of_run();
    let config = Config::read(&arguments.config)?;
    let journal = Journal::open();
    let patience = if arguments.leave { LAST_RUN } else { Duration::ZERO };
    // Held until the end. A dry run changes nothing, and needs none.
    let lock = if arguments.dry_run {
        Ok(None)
    } else {
        match Lock::take(&config.state, patience).await {
            Ok(None) => bail!("{}", Lock::is_held(&config.state)),
            lock => lock,
        }
    };

    let machine = Machine::find().await;
    let owner = owner(&machine, &arguments.config, &config);
    let (source, identity) = source::open(arguments.from.as_deref(), &config, &machine).await?;
    if arguments.leave {
        lock?;
        let instance = identity.find(&machine).await.ok();
        let us = Us {
            owner: &owner,
            instance: instance.as_deref(),
        };
        let worst = withdrawal::leave(&config, &source, us, journal).await?;
        return Ok(worst.exit_code());
    }

    let run = Run {
        config: &config,
        source: &source,
        identity: &identity,
        machine: &machine,
        owner: &owner,
        errand: Errand {
            is_dry: arguments.dry_run,
            is_at_once: arguments.now,
        },
        budget,
        journal,
    };
    if arguments.dry_run {
        let worst = run.dry_run().await;
        return Ok(worst.exit_code());
    }

    // Certificates must be installed even if AWS does not say who this is.
    let instance = identity.find(&machine).await;
    let _lock = match lock {
        Ok(lock) => lock,
        Err(error) => {
            run.report_unlocked(&instance, &error).await;
            return Err(error);
        }
    };
    let endings = run.all(&instance).await;
    let worst = endings
        .iter()
        .map(|ending| ending.severity)
        .max()
        .unwrap_or(Severity::Ok);
    if let Some(file) = &config.metrics_file
        && let Err(error) = metrics::write(file, &endings, Timestamp::now())
    {
        journal.warning(&format!("{error:#}"));
    }

    let us = Us {
        owner: &owner,
        instance: instance.as_deref().ok(),
    };
    withdrawal::forget_others(&config, &source, us, journal).await;
    Ok(worst.exit_code())
}

/// Whose state and receipts these are. The folder of the state counts by what it is, not only by
/// its name: a copy of it is another one.
fn owner(machine: &Machine, path: &Path, config: &Config) -> Owner {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let inode = fs::metadata(&config.state).map_or(0, |found| found.ino());
    Owner {
        machine: machine.id.clone(),
        configuration: format!("{} {inode}", path.display()),
    }
}

/// What is the same for all certificates of a run.
struct Run<'a> {
    config: &'a Config,
    source: &'a Source,
    identity: &'a Identity,
    machine: &'a Machine,
    owner: &'a Owner,
    errand: Errand,
    budget: Budget,
    journal: Journal,
}

/// A certificate, what is to be done about it, and what is wrong with the source.
struct Prepared<'a> {
    work: Work<'a>,
    plan: Plan,
    problem: Option<SourceProblem>,
}

/// Has a version ready on the disk: what the source shows, or else what is there already.
async fn prepare(mut work: Work<'_>) -> Prepared<'_> {
    // What is in the source may be what our own code cannot cope with; the others are installed.
    let (plan, mut problem) = match isolated_async(work.prepare()).await {
        Ok(Ok(plan)) => (plan, None),
        Ok(Err(problem)) => {
            let plan = isolated_async(work.carry_on()).await;
            (plan.unwrap_or(Plan::Nothing), Some(problem))
        }
        Err(panicked) => (Plan::Nothing, Some(SourceProblem::Failed(panicked.to_string()))),
    };

    // A version that is about to be installed takes the place of what is damaged.
    if plan != Plan::Install
        && let Some(damage) = &work.damage
    {
        problem = Some(SourceProblem::Damaged(damage.clone()));
    }

    // An installation writes the state itself, once there is a way back.
    if plan.is_postponed()
        && let Err(error) = work.save()
    {
        problem = Some(SourceProblem::failed(&error));
    }
    Prepared { work, plan, problem }
}

impl<'a> Run<'a> {
    /// Installs and reports everything. Each certificate is reported as soon as it is done: the run
    /// may be ended before all are.
    async fn all(&self, instance: &Result<String>) -> Vec<Ending> {
        let (works, broken) = self.open(Timestamp::now());
        for broken in &broken {
            self.journal
                .error(&format!("{}: {}", broken.wanted.name, broken.reason));
        }
        let mut endings = self.report_broken(broken, instance).await;

        let all: Vec<_> = stream::iter(works).map(prepare).buffered(TOGETHER).collect().await;
        let (mut ready, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|prepared| prepared.plan == Plan::Install);
        for mut prepared in others {
            if let Err(reason) = prepared.work.load_restored(self.budget).await {
                prepared.problem = Some(SourceProblem::Failed(reason));
            }
            endings.push(self.report(&mut prepared, &Failures::new(), instance).await);
        }

        while let Some(first) = ready.first() {
            let wanted = first.work.wanted;
            let (mut batch, rest): (Vec<_>, Vec<_>) = ready
                .into_iter()
                .partition(|prepared| wanted.shares_reload(prepared.work.wanted));
            ready = rest;

            let works = batch.iter_mut().map(|prepared| &mut prepared.work).collect();
            let failures = install(works, self.budget, self.journal).await;
            for prepared in &mut batch {
                endings.push(self.report(prepared, &failures, instance).await);
            }
        }
        endings
    }

    /// Opens every certificate. One that cannot be opened does not keep the others from being
    /// installed.
    fn open(&self, now: Timestamp) -> (Vec<Work<'a>>, Vec<Broken<'a>>) {
        let mut works = Vec::new();
        let mut broken = Vec::new();

        for wanted in &self.config.certificates {
            match Work::open(self.config, wanted, self.source, self.errand, self.budget, now) {
                Ok(work) => works.push(work),
                Err(error) => broken.push(*error),
            }
        }
        (works, broken)
    }

    async fn dry_run(&self) -> Severity {
        let (works, broken) = self.open(Timestamp::now());
        let mut worst = Severity::Ok;

        for broken in broken {
            self.journal
                .error(&format!("{}: {}", broken.wanted.name, broken.reason));
            worst = Severity::Unknown;
        }
        for mut work in works {
            match work.dry_run().await {
                Ok(lines) => {
                    for line in lines {
                        self.journal.info(&format!("{}: {line}", work.wanted.name));
                    }
                }
                Err(problem) => {
                    let prepared = Prepared {
                        work,
                        plan: Plan::Nothing,
                        problem: Some(problem),
                    };
                    worst = worst.max(self.log(&prepared.outcome(&Failures::new()).verdict()));
                }
            }
        }
        worst
    }

    /// Reports how it ended, to the probe and in the journal.
    async fn report(&self, prepared: &mut Prepared<'a>, failures: &Failures<'_>, instance: &Result<String>) -> Ending {
        let outcome = prepared.outcome(failures);
        let verdict = outcome.verdict();
        let receipt = receipt(&outcome, self.reporter(instance));

        let sent = match (instance, &receipt) {
            (Ok(_), Some(receipt)) => prepared.work.report(receipt.clone(), self.owner).await,
            (Ok(_), None) => Ok(()),
            (Err(error), _) => Err(anyhow!("{error:#}")),
        };

        let name = &prepared.work.wanted.name;
        let worst = match sent {
            Ok(()) => Severity::Ok,
            Err(error) => self.not_reported(name, &error),
        };
        for line in prepared.work.repaired.iter().chain(&prepared.work.warnings) {
            self.journal.warning(&format!("{name}: {line}"));
        }
        Ending {
            severity: worst.max(self.log(&verdict)),
            receipt,
        }
    }

    /// Reports certificates whose files or state cannot be opened.
    async fn report_broken(&self, broken: Vec<Broken<'a>>, instance: &Result<String>) -> Vec<Ending> {
        let mut endings = Vec::new();

        for mut broken in broken {
            let name = &broken.wanted.name;
            let state = broken.known().await;
            let problem = SourceProblem::Failed(broken.reason.clone());
            let outcome = Outcome {
                name,
                state: &state,
                plan: Plan::Nothing,
                problem: Some(&problem),
                failure: None,
                repaired: None,
                now: Timestamp::now(),
            };
            let receipt = receipt(&outcome, self.reporter(instance));
            if let (Ok(_), Some(receipt)) = (instance, &receipt)
                && let Err(error) = broken.report(receipt.clone(), self.owner).await
            {
                self.not_reported(name, &error);
            }
            endings.push(Ending {
                severity: Severity::Unknown,
                receipt,
            });
        }
        endings
    }

    /// Reports that no certificate can be looked after, because the state's folder is of no use.
    async fn report_unlocked(&self, instance: &Result<String>, error: &Error) {
        let broken = self
            .config
            .certificates
            .iter()
            .map(|wanted| Broken::without_state(wanted, self.source, format!("{error:#}")));
        self.report_broken(broken.collect(), instance).await;
    }

    /// Where AWS does not say who this is, what is reported goes nowhere, and to no receipt.
    fn reporter<'r>(&'r self, instance: &'r Result<String>) -> Reporter<'r> {
        Reporter {
            instance: instance.as_deref().unwrap_or_default(),
            host: &self.machine.host,
            runs_every: self.config.runs_every,
        }
    }

    fn not_reported(&self, name: &str, error: &Error) -> Severity {
        let line = format!("{name}: the receipt is not written: {error:#}");
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

impl Prepared<'_> {
    fn outcome<'o>(&'o self, failures: &'o Failures<'_>) -> Outcome<'o> {
        let name = self.work.wanted.name.as_str();
        Outcome {
            name,
            state: &self.work.state,
            plan: self.plan,
            problem: self.problem.as_ref(),
            failure: failures.get(name).map(String::as_str),
            repaired: self.work.repaired.as_deref(),
            now: self.work.now,
        }
    }
}

/// How long `--leave` waits for a run that is still at work.
const LAST_RUN: Duration = Duration::from_secs(30);
/// This many certificates are fetched, and the servers of those that are installed probed, at the
/// same time.
const TOGETHER: usize = 50;
const HELP: &str = "\
Exit codes: 0 everything is installed (or waits for its window), 1 a new version was refused or could not be installed while the old \
one is good for some time, 2 the same with nothing installed or little time left, 3 it could not be found out (no network, no access, an error in \
the configuration, another run at work).

Files are in FOLDER/live/NAME/: cert.pem, chain.pem, fullchain.pem, privkey.pem, and combined.pem and keystore.p12 if \
they are asked for.";
