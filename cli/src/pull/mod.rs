//! `neverlapse pull`: installs what the bucket says is current, safely, and reports.
//!
//! Each certificate goes one way: the pointer is read, the version behind it downloaded and verified in memory, stored in a folder of its
//! own, and made live by one rename. Then the server's configuration is tested, the server told, and shaken hands with: one reload for
//! all certificates with the same commands. What fails is switched back. Work is written down before it begins and struck out when a
//! handshake has shown it, so that whatever interrupts a run, the next one finishes it. The receipt is the last thing.

mod candidate;
mod command;
mod config;
mod folder;
mod handshake;
mod instance;
mod journal;
mod keystore;
mod source;
mod state;
mod window;
mod work;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::{StreamExt, stream};
use neverlapse::bucket::receipt;
use neverlapse::bucket::store::Store;
use neverlapse::bucket::version::Current;
use neverlapse::timestamp::Timestamp;
use tokio::time::{Instant, sleep};

use self::command::Program;
use self::config::{Config, Wanted};
use self::instance::{Identity, Machine};
use self::journal::Journal;
use self::source::{Source, is_denied};
use self::state::{Lock, State};
use self::window::is_urgent;
use self::work::{Back, Next, Trouble, Work};

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

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let config = Config::read(&arguments.config)?;
    let journal = Journal::open();
    let lock = match arguments.dry_run {
        true => None,
        false => Some(lock(&config, if arguments.leave { LAST_RUN } else { Duration::ZERO }).await?),
    };
    let machine = Machine::find().await;
    let (source, identity) = source(arguments, &config, &machine).await?;
    if arguments.leave {
        return Ok(leave(&config, &source, journal).await?.exit());
    }
    let now = Timestamp::now();
    let mut worst = Code::Ok;
    let mut works = Vec::new();
    for wanted in &config.certificates {
        match Work::open(&config, wanted, &source, arguments.now, now) {
            Ok(work) => works.push(work),
            Err(error) => {
                journal.error(&format!("{}: {error:#}", wanted.name));
                worst = worst.max(Code::Unknown);
            }
        }
    }
    if arguments.dry_run {
        return Ok(rehearse(works, worst, journal, now).await.exit());
    }
    let mut planned: Vec<_> = stream::iter(works).map(prepare).buffered(TOGETHER).collect().await;
    install(&mut planned, journal).await;
    // Only now: that AWS does not say who this is must not keep anything from being installed.
    let instance = identity.find(&machine).await;
    for (work, next) in &mut planned {
        let reported = match &instance {
            Ok(instance) => work.report(instance, &machine.host, config.runs_every).await,
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        if let Err(error) = reported {
            let line = format!("{}: the receipt is not written: {error:#}", work.wanted.name);
            if source.is_read_only(&error) {
                journal.info(&line);
            } else {
                journal.warning(&line);
                if is_denied(&error) {
                    identity.doubt();
                    journal.hint(RECEIPTS);
                }
                worst = worst.max(Code::Warning);
            }
        }
        worst = worst.max(told(work, *next, journal, now));
    }
    forget_others(&config, &source, journal).await;
    drop(lock);
    Ok(worst.exit())
}

async fn prepare(mut work: Work<'_>) -> (Work<'_>, Next) {
    let next = work.prepare().await;
    (work, next)
}

/// Waits so long for another run to end.
async fn lock(config: &Config, patience: Duration) -> Result<Lock> {
    let deadline = Instant::now() + patience;
    loop {
        match Lock::take(&config.state)? {
            Some(lock) => return Ok(lock),
            None if Instant::now() < deadline => sleep(PAUSE).await,
            None => bail!(
                "another run is at work (it holds {})",
                config.state.join("lock").display()
            ),
        }
    }
}

/// Removes every receipt of ours; a later run writes them anew.
async fn leave(config: &Config, source: &Source, journal: Journal) -> Result<Code> {
    let mut worst = Code::Ok;
    for (name, file) in State::all(&config.state)? {
        match goodbye(&name, &file, source).await {
            Ok(true) => journal.info(&format!("{name}: the receipt is removed")),
            Ok(false) => {}
            Err(error) => {
                journal.warning(&format!("{name}: the receipt is not removed: {error:#}"));
                if is_denied(&error) {
                    journal.hint(RECEIPTS);
                }
                worst = Code::Unknown;
            }
        }
    }
    Ok(worst)
}

/// Of certificates that are no longer wanted here nobody is to expect a receipt.
async fn forget_others(config: &Config, source: &Source, journal: Journal) {
    let all = State::all(&config.state).unwrap_or_default();
    let is_wanted = |name: &String| config.certificates.iter().any(|wanted| wanted.name == *name);
    for (name, file) in all.into_iter().filter(|(name, _)| !is_wanted(name)) {
        match goodbye(&name, &file, source).await {
            Ok(true) => journal.info(&format!(
                "{name}: is no longer in the configuration; the receipt is removed"
            )),
            Ok(false) => {}
            Err(error) => journal.warning(&format!("{name}: is no longer in the configuration, but {error:#}")),
        }
    }
}

/// Removes the last receipt, under the name that it was written under; answers whether there was one.
async fn goodbye(name: &str, file: &Path, source: &Source) -> Result<bool> {
    let mut state = State::read(file)?;
    let Some(last) = state.receipt.take() else {
        return Ok(false);
    };
    source.remove(&receipt::key(name, &last.instance)).await?;
    state.write(file)?;
    Ok(true)
}

async fn source(arguments: &Arguments, config: &Config, machine: &Machine) -> Result<(Source, Identity)> {
    let configured = config.instance.clone().map(Identity::Name);
    if let Some(folder) = &arguments.from {
        let name = machine.ec2.as_ref().unwrap_or(&machine.host).clone();
        return Ok((
            Source::Folder(folder.clone()),
            configured.unwrap_or(Identity::Name(name)),
        ));
    }
    let bucket = config
        .bucket
        .clone()
        .context("no bucket is set (expected bucket = \"…\" in the configuration, or --from DIR)")?;
    let shared = neverlapse::aws::config().await;
    let mut s3 = aws_sdk_s3::config::Builder::from(&shared);
    if let (None, Some(region)) = (shared.region(), &machine.region) {
        s3 = s3.region(aws_sdk_s3::config::Region::new(region.clone()));
    }
    let client = aws_sdk_s3::Client::from_conf(s3.build());
    let identity = configured.unwrap_or_else(|| Identity::by_user_id(&shared, machine, &config.state));
    Ok((Source::Bucket(Store::new(client, bucket)), identity))
}

async fn rehearse(works: Vec<Work<'_>>, mut worst: Code, journal: Journal, now: Timestamp) -> Code {
    for mut work in works {
        match work.rehearse().await {
            Ok(plan) => journal.info(&format!("{}: {plan}", work.wanted.name)),
            Err(trouble) => {
                work.trouble = Some(trouble);
                worst = worst.max(told(&work, Next::Nothing, journal, now));
            }
        }
    }
    worst
}

/// All certificates with the same commands together: one test, one reload.
async fn install(planned: &mut [(Work<'_>, Next)], journal: Journal) {
    let mut ready: Vec<_> = planned
        .iter_mut()
        .filter(|(_, next)| *next == Next::Install)
        .map(|(work, _)| work)
        .collect();
    while let Some(first) = ready.first() {
        let commands = commands(first.wanted);
        let (mut batch, rest): (Vec<_>, Vec<_>) = ready
            .into_iter()
            .partition(|work| self::commands(work.wanted) == commands);
        ready = rest;
        let rejected = attempt(&mut batch, journal).await;
        if rejected && batch.len() > 1 {
            // One of them may be at fault; the others shall not wait for it.
            for work in &mut batch {
                work.trouble = None;
                attempt(std::slice::from_mut(work), journal).await;
            }
        }
    }
}

fn commands(wanted: &Wanted) -> (Option<Program>, Option<Program>) {
    (wanted.test.clone(), wanted.reload.clone())
}

/// Switches, tests, reloads and looks; answers whether the server would not have them.
async fn attempt(batch: &mut [&mut Work<'_>], journal: Journal) -> bool {
    let mut begun: Vec<&mut Work<'_>> = Vec::new();
    for work in batch {
        match work.begin() {
            Ok(()) => begun.push(work),
            Err(error) => {
                if work.back_out(format!("{error:#}")) == Back::WasLive {
                    again(work.wanted, journal).await;
                }
            }
        }
    }
    let Some(wanted) = begun.first().map(|work| work.wanted) else {
        return false;
    };
    if let Some(test) = &wanted.test
        && let Err(reason) = test.run(wanted.timeout).await
    {
        let back: Vec<_> = begun
            .into_iter()
            .map(|work| work.back_out(format!("the test failed: {reason}")))
            .collect();
        // Nobody was told of the new ones, unless a run before this one was cut off: a server may have found them at its start, and ended.
        if back.contains(&Back::WasLive) {
            again(wanted, journal).await;
        }
        return true;
    }
    if let Err(reason) = reload(wanted).await {
        let back = begun
            .into_iter()
            .map(|work| work.back_out(format!("the reload failed: {reason}")));
        if back.fold(false, |any, back| any | (back != Back::Nothing)) {
            again(wanted, journal).await;
        }
        return true;
    }
    let looks: Vec<_> = stream::iter(begun.iter().map(|work| work.look()))
        .buffered(TOGETHER)
        .collect()
        .await;
    let mut switched = false;
    for (work, look) in begun.into_iter().zip(looks) {
        match look {
            Ok(()) => {
                if let Err(error) = work.finish() {
                    work.trouble = Some(Trouble::Failed(format!("{error:#}")));
                }
            }
            Err(reason) => switched |= work.not_shown(format!("after the reload {reason}")) != Back::Nothing,
        }
    }
    if switched {
        again(wanted, journal).await;
    }
    false
}

async fn reload(wanted: &Wanted) -> Result<(), String> {
    match &wanted.reload {
        Some(reload) => reload.run(wanted.timeout).await,
        None => Ok(()),
    }
}

/// The server shall know that the old files are back.
async fn again(wanted: &Wanted, journal: Journal) {
    if let Err(reason) = reload(wanted).await {
        journal.error(&format!("{}: the old files are back, but {reason}", wanted.name));
    }
}

/// Says how it ended.
fn told(work: &Work<'_>, next: Next, journal: Journal, now: Timestamp) -> Code {
    let name = &work.wanted.name;
    let installed = work.installed();
    let lapses = |installed: &Current| is_urgent(installed.facts.not_before, installed.facts.not_after, now);
    let (reason, code) = match &work.trouble {
        None => {
            journal.info(&work.summary(next));
            return Code::Ok;
        }
        Some(Trouble::Unreachable(reason) | Trouble::Denied(reason)) => (reason.clone(), Code::Unknown),
        Some(Trouble::NotPublished) => ("no version is published under this name".to_owned(), Code::Unknown),
        Some(Trouble::Failed(reason)) => (reason.clone(), Code::Warning),
    };
    let stays = match installed {
        Some(installed) => format!(
            "version {} stays installed, valid until {}",
            installed.facts.version, installed.facts.not_after
        ),
        None => "nothing is installed".to_owned(),
    };
    let again = match next {
        Next::Later(at) => format!(" (tried again from {} on, or by neverlapse pull --now)", at),
        Next::Wait => " (tried again in its window, or by neverlapse pull --now)".to_owned(),
        Next::Nothing | Next::Install => String::new(),
    };
    let line = format!("{name}: {reason}{again}; {stays}");
    let hint = || {
        if let Some(Trouble::Denied(_)) = &work.trouble {
            journal.hint(VERSIONS);
        }
    };
    if installed.is_none_or(lapses) {
        journal.error(&line);
        hint();
        return Code::Critical;
    }
    journal.warning(&line);
    hint();
    code
}

/// How it ended, mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Code {
    Ok,
    Warning,
    Unknown,
    Critical,
}

impl Code {
    /// As monitoring plugins have it.
    fn exit(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

/// How long a goodbye waits for a run that is still at work.
const LAST_RUN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// So many certificates are asked for, and servers looked at, together: a server that is down takes the time of one look, not of a hundred.
const TOGETHER: usize = 50;
const VERSIONS: &str = "the instance needs s3:GetObject on certificates/NAME/* and kms:Decrypt with the bucket's key; S3 also says this \
                        while nothing is published under the name";
const RECEIPTS: &str = "the instance may need s3:PutObject and s3:DeleteObject on receipts/NAME/${aws:userid}.json; with instance = \"…\" \
                        in the configuration, on receipts/NAME/INSTANCE.json";
const HELP: &str = "\
Exit codes: 0 everything is installed (or waits for its window), 1 a new version was refused or could not be installed while the old \
one is good for some time, 2 the same with nothing installed or little time left, 3 could not look (no network, no access, a mistake in \
the configuration, another run at work).

Files are in FOLDER/live/NAME/: cert.pem, chain.pem, fullchain.pem, privkey.pem, and combined.pem and keystore.p12 if \
they are asked for.";
