//! How many instructions the processor needs for what is done most often. Other than time, that is
//! the same on a busy machine, so a bound on it can be a test.
//!
//! The work is done once, and then eleven times, by a debug build under valgrind; a tenth of the
//! difference counts. The bounds are twice what that was when it was last looked at.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use neverlapse::bucket::version::Current;
use neverlapse::chain::roots::Roots;
use neverlapse::chain::{Criteria, KeyUse, judge};
use neverlapse::finding::Thresholds;
use neverlapse::inventory::Inventory;
use neverlapse::renewal::{Decision, Renewal, decide};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::depot::Depot;
use neverlapse_tests::farm::{self, CA, Farm};
use neverlapse_tests::pki::Authority;
use tempfile::TempDir;
use time::Duration;
use tokio::runtime::Runtime;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

fn main() -> Result<ExitCode> {
    if let [_, work, folder, times] = &std::env::args().collect::<Vec<_>>()[..] {
        let (folder, times) = (Path::new(folder), times.parse()?);
        match work.as_str() {
            JUDGE => return judge_chain(folder, times).map(|()| ExitCode::SUCCESS),
            DECIDE => return decide_renewal(folder, times).map(|()| ExitCode::SUCCESS),
            _ => {}
        }
    }

    let arguments = Arguments::from_args();
    if Command::new("valgrind").arg("--version").output().is_err() || !cfg!(target_arch = "x86_64") {
        println!("WARNING: instructions were NOT counted: that needs valgrind, and x86_64");
        return Ok(ExitCode::SUCCESS);
    }
    let trials = vec![
        Trial::test("judging_a_chain", || Ok(of_own(JUDGE, 7_800_000)?)),
        Trial::test("a_renewal_decision", || Ok(of_own(DECIDE, 19_000)?)),
        Trial::test("a_loopback_probe", || Ok(of_probe(18_500_000)?)),
        Trial::test("what_pull_plans_for_a_certificate", || Ok(of_pull(6_100_000)?)),
    ];
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}

/// What this program does itself, with a certificate in a folder.
fn of_own(work: &str, bound: u64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new()?;
    let leaf = authority.leaf(NAME, Timestamp::now() + Duration::days(60))?;
    let current = serde_json::to_string(&Depot::new()?.publish(NAME, &leaf)?)?;
    for (file, text) in [(CHAIN, leaf.fullchain), (CA, authority.root()), (CURRENT, current)] {
        fs::write(folder.path().join(file), text)?;
    }

    within(bound, |times| {
        let mut own = valgrind(&std::env::current_exe()?);
        own.arg(work).arg(folder.path()).arg(times.to_string());
        count(&mut own)
    })
}

fn judge_chain(folder: &Path, times: usize) -> Result<()> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(folder.join(CHAIN))?.collect();
    let (chain, roots) = (chain?, Roots::public().with_pem(&fs::read(folder.join(CA))?)?);
    let name = ServerName::try_from(NAME)?;
    for _ in 0..times {
        let verdict = judge(
            &chain,
            &Criteria {
                name: &name,
                roots: &roots,
                thresholds: Thresholds::default(),
                now: Timestamp::now(),
                key_use: KeyUse::Signs,
                has_staple: None,
            },
        );
        ensure!(verdict.trusted, "{:?}", verdict.findings);
    }
    Ok(())
}

fn decide_renewal(folder: &Path, times: usize) -> Result<()> {
    let inventory = format!(
        "[[certificate]]\nidentifiers = [{NAME:?}]\nissuers = [\"test\"]\n[issuer.test]\ndirectory = \"https://ca.test/directory\"\n"
    );
    let inventory = Inventory::parse(&inventory);
    let certificate = inventory.certificates.first().context("it has one")?;
    let current: Current = serde_json::from_slice(&fs::read(folder.join(CURRENT))?)?;
    let (renewal, now) = (Renewal::new(NAME), Timestamp::now());
    for _ in 0..times {
        let decision = decide(
            &inventory.issuers,
            certificate,
            Some(&current),
            Some(&renewal),
            None,
            now,
        );
        ensure!(matches!(decision, Decision::NotDue { .. }), "{decision}");
    }
    Ok(())
}

/// What the command needs for an endpoint: look-up, both handshakes, judging, and a line of JSON.
fn of_probe(bound: u64) -> Result<()> {
    let runtime = Runtime::new()?;
    let farm = runtime.block_on(Farm::open(MANY))?;
    within(bound, |times| {
        let mut check = valgrind(Path::new(NEVERLAPSE));
        check.args([
            "check",
            "--format",
            "jsonl",
            "--nameserver",
            &farm.dns.address.to_string(),
        ]);
        check.arg("--ca").arg(farm.file(CA));
        // Under valgrind, and on a busy machine, a handshake takes seconds.
        check.args(["--timeout", "600", "--concurrency", "1"]);
        check.args(farm.endpoints().take(times));
        count(&mut check)
    })
}

/// What `neverlapse pull` needs to find out that a certificate is to be installed.
fn of_pull(bound: u64) -> Result<()> {
    let host = tempfile::tempdir()?;
    let (mut depot, authority) = (Depot::new()?, Authority::new()?);
    for name in farm::names(MANY) {
        let leaf = authority.leaf(&name, Timestamp::now() + Duration::days(60))?;
        depot.publish(&name, &leaf)?;
    }
    within(bound, |times| {
        let mut pull = valgrind(Path::new(NEVERLAPSE));
        pull.args(["pull", "--dry-run", "--config"])
            .arg(configured(&host, times)?);
        pull.arg("--from").arg(depot.path());
        count(&mut pull)
    })
}

fn configured(host: &TempDir, certificates: usize) -> Result<std::path::PathBuf> {
    let (folder, state) = (host.path().join("tls"), host.path().join("state"));
    let mut text = format!("instance = \"web-1\"\nfolder = {folder:?}\nstate = {state:?}\n");
    for name in farm::names(certificates) {
        text += &format!("[[certificate]]\nname = {name:?}\nreload_command = \"true\"\n");
    }
    let file = host.path().join("pull.toml");
    fs::write(&file, text)?;
    Ok(file)
}

/// Counts what one more costs.
fn within(bound: u64, count: impl Fn(usize) -> Result<u64>) -> Result<()> {
    let (once, often) = (count(1)?, count(MANY)?);
    let each = often.saturating_sub(once) / (MANY as u64 - 1);
    println!("{each} instructions of {bound}");
    ensure!(
        each > 0,
        "nothing was done: {once} instructions for one, {often} for {MANY}"
    );
    ensure!(each <= bound, "{each} instructions, and not at most {bound}");
    Ok(())
}

fn valgrind(program: &Path) -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    valgrind.arg(program);
    valgrind
}

/// The instructions of a command that succeeds.
fn count(command: &mut Command) -> Result<u64> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    let line = said.lines().find(|line| line.contains("I   refs:"));
    let number = line
        .and_then(|line| line.rsplit(' ').next())
        .with_context(|| said.to_string())?;
    Ok(number.replace(',', "").parse()?)
}

const NEVERLAPSE: &str = env!("CARGO_BIN_EXE_neverlapse");
const JUDGE: &str = "judge";
const DECIDE: &str = "decide";
const NAME: &str = "d0.farm.test";
const CHAIN: &str = "fullchain.pem";
const CURRENT: &str = "current.json";
const MANY: usize = 11;
