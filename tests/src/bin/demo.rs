//! The demo: a local AWS, servers in every state, and one certificate on its whole way: seen,
//! renewed, pulled, stuck, repaired, served. With the argument `play` it only sets all of this up,
//! and leaves it running to try commands on.

use std::fmt;
use std::io::{IsTerminal as _, stdout};
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use neverlapse::bucket::version::{Current, Facts, current_key};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::cluster::{Cluster, Ran, current, neverlapse};
use neverlapse_tests::emulator::Emulator;
use neverlapse_tests::inbox::{Inbox, Message};
use neverlapse_tests::pebble::{self, Pebble};
use neverlapse_tests::pki::Authority;
use neverlapse_tests::program::program;
use neverlapse_tests::shop::{CA, Shop};
use neverlapse_tests::stack::{Stack, root};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut screen = Screen::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let is_play = std::env::args().nth(1).is_some_and(|argument| argument == "play");
    let shown = async {
        let world = World::open(&mut screen).await?;
        if is_play {
            return play(&mut screen, &world).await;
        }
        show(&mut screen, &world).await
    };
    tokio::select! {
        shown = shown => shown?,
        // Dropping what runs ends it: nothing is left behind.
        _ = tokio::signal::ctrl_c() => return Ok(stopped(INTERRUPTED)),
        _ = terminate.recv() => return Ok(stopped(TERMINATED)),
    }
    screen.times();
    Ok(ExitCode::SUCCESS)
}

fn stopped(code: u8) -> ExitCode {
    eprintln!("\nstopped, with everything that was started");
    ExitCode::from(code)
}

/// What runs: the local AWS with the stack, servers, a name server and an ACME server.
struct World {
    stack: Stack,
    inbox: Inbox,
    zone: String,
    www: Cluster,
    shop: Shop,
    _pebble: Pebble,
}

impl World {
    async fn open(screen: &mut Screen) -> Result<Self> {
        screen.step("A local AWS, and neverlapse on it by sam deploy of template.yaml: about half a minute");
        screen.aside("nothing leaves this machine");
        let emulator = screen.during("starting ministack", Emulator::start()).await?;
        let mut shop = Shop::open_on(Timestamp::now(), &emulator.config).await?;
        // The managed one has three servers, below.
        shop.forget("soon");
        let nameserver = shop.dns.address.to_string();
        let parameters = [("Nameserver", &*nameserver), ("RenewerNameserver", &*nameserver)];
        let deployed = Stack::deploy_to(emulator, &parameters);
        let stack = screen.during("deploying", deployed).await?;
        let inbox = Inbox::subscribe(&stack.config, &stack.topic, "demo-inbox").await?;
        let pebble = Pebble::start(pebble::Options::default(), shop.dns.address).await?;
        let zone = stack.create_zone("shop.test").await?;

        screen.step("Six TLS endpoints, as a fleet has them");
        let authority = Authority::new()?;
        let nine_days = Timestamp::now() + time::Duration::days(9) + time::Duration::HOUR;
        let old = authority.leaf(WWW, nine_days)?;
        let www = Cluster::open(&stack, &zone, WWW, &old).await?;
        for (endpoint, state) in &shop.endpoints {
            screen.line(format!("{endpoint:<26} {state}"));
        }
        screen.line(format!(
            "{:<26} 9 days left; three nginx, web-1 to web-3 at {} to {}",
            www.endpoint(),
            www.instances[0].place().ip(),
            www.instances[2].place().ip()
        ));
        let managed = www.inventory("issuers = [\"pebble\"]");
        let issuer = format!("[issuer.pebble]\ndirectory = {:?}\nca = {ROOTS:?}\n", pebble.directory);
        stack
            .put(ROOTS, &format!("{}{}", pebble.roots, authority.root()))
            .await?;
        stack.put(CA, &shop.root).await?;
        let inventory = format!("{}{managed}{issuer}", shop.inventory_by_name());
        stack.put("inventory.toml", &inventory).await?;

        Ok(Self {
            stack,
            inbox,
            zone,
            www,
            shop,
            _pebble: pebble,
        })
    }
}

async fn show(screen: &mut Screen, world: &World) -> Result<()> {
    let World {
        stack,
        inbox,
        zone,
        www,
        ..
    } = world;

    screen.step("The daily schedule wakes the probe; this alert arrives through SNS");
    screen.during("probing", probe(stack)).await?;
    screen.alert(&alert(inbox).await?, &[]);

    screen.step(&format!(
        "Nobody has to renew {WWW}: the probe has asked the renewer to"
    ));
    let new = renewed(screen, stack, zone, &www.first).await?;

    screen.step("Each instance runs neverlapse pull; on web-2 somebody has broken nginx.conf");
    www.instances[1].host.configure(BROKEN)?;
    for instance in &www.instances {
        let ran = instance.pull().await?;
        screen.ran(&instance.id, "neverlapse pull", &ran);
    }
    served(screen, www, &new.facts).await?;

    screen.step("Renewed is not served: the next probe names the instance and where it is stuck");
    screen.during("probing", probe(stack)).await?;
    screen.alert(&alert(inbox).await?, &[WWW]);
    println!();
    let status = Ran::of(neverlapse(stack).await?.arg("status")).await?;
    screen.ran("you", "neverlapse status", &status);

    screen.step("nginx.conf is repaired; the next hourly run of neverlapse pull finishes by itself");
    www.instances[1].host.configure("")?;
    let ran = www.instances[1].pull().await?;
    screen.ran("web-2", "neverlapse pull", &ran);
    served(screen, www, &new.facts).await?;

    screen.step("The probe sees the new certificate at every address, and reports that once");
    screen.during("probing", probe(stack)).await?;
    screen.alert(&alert(inbox).await?, &[WWW]);

    let (page, _) = stack.object("reports/latest.html").await?;
    std::fs::create_dir_all(FOLDER)?;
    std::fs::write(format!("{FOLDER}/report.html"), page)?;
    println!();
    screen.line(format!(
        "The report page of the last run: {FOLDER}/report.html (open it in a browser)"
    ));
    screen.line("To try commands on this: make play. To use it: \"Deploy it\" in README.md.");
    Ok(())
}

/// Says how to reach what runs, and waits until somebody ends it.
async fn play(screen: &mut Screen, world: &World) -> Result<()> {
    world.stack.restore_encryption().await?;
    screen.during("probing", probe(&world.stack)).await?;
    let variables = world.stack.environment().map(|(key, value)| format!("{key}={value}"));
    let web = &world.www.instances[0];

    screen.step("It runs until Ctrl-C. In another terminal, first:");
    println!(
        "\nexport PATH=\"{}:{}:$PATH\" \\",
        program("neverlapse").await?.with_file_name("").display(),
        root().join(".local/aws/bin").display()
    );
    println!("  {}\n", variables.join(" \\\n  "));
    println!("Then, for example:\n");
    for (command, what) in [
        ("neverlapse status".to_owned(), "every certificate and endpoint"),
        ("neverlapse run".to_owned(), "have the probe check now"),
        ("neverlapse plan".to_owned(), "what would be renewed"),
        (format!("neverlapse renew {WWW} --force"), "have it renewed"),
        (
            format!("neverlapse pull --config {}", web.config().display()),
            "install it on web-1",
        ),
        ("neverlapse report --output report.html".to_owned(), "the page"),
        (
            format!("neverlapse doctor --nameserver {}", world.shop.dns.address),
            "is the stack as it should be?",
        ),
        (
            format!("aws s3 ls --recursive s3://{}", world.stack.bucket),
            "what is in the bucket",
        ),
        (
            format!(
                "neverlapse check {} --nameserver {}",
                world.www.endpoint(),
                world.shop.dns.address
            ),
            "check from here",
        ),
        (
            format!("curl -s {}/_ministack/health", world.stack.endpoint()),
            "the local AWS itself",
        ),
    ] {
        println!("  {command:<72} # {what}");
    }
    println!();
    std::future::pending().await
}

/// Sends the schedule's event.
async fn probe(stack: &Stack) -> Result<()> {
    let event = serde_json::from_str(include_str!("../../../events/schedule.json"))?;
    let answer = stack.invoke(&event).await?;
    ensure!(!answer.failed, "the probe failed: {}", answer.payload);
    Ok(())
}

async fn alert(inbox: &Inbox) -> Result<Message> {
    inbox.next(PATIENCE).await?.context("no alert arrived")
}

/// Shows the TXT value while it is there, and the version that comes of it.
async fn renewed(screen: &Screen, stack: &Stack, zone: &str, before: &Current) -> Result<Current> {
    let (mut seen, until) = (false, Instant::now() + PATIENCE);
    while Instant::now() < until {
        let txt = stack.txt(zone).await?;
        if !seen && !txt.is_empty() {
            seen = true;
            for (name, value) in &txt {
                screen.line(format!("Route 53    {name} TXT {value}"));
            }
        }
        let now = current(stack, WWW).await?;
        if now.facts.version != before.facts.version {
            screen.line(format!(
                "ACME        issued by {}, valid until {}",
                now.facts.issuer.name, now.facts.not_after
            ));
            screen.line(format!(
                "S3          {} names version {}",
                current_key(WWW),
                now.facts.version
            ));
            return Ok(now);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("no certificate was published in time")
}

/// Looks at every instance, the way a client does.
async fn served(screen: &Screen, www: &Cluster, new: &Facts) -> Result<()> {
    for instance in &www.instances {
        let seen = instance.host.served().await?;
        let word = match seen == new.fingerprint {
            true => screen.paint(GREEN, "serves the new one,"),
            false => screen.paint(RED, "still serves the old one,"),
        };
        screen.line(format!(
            "{} {} {word} fingerprint {}…",
            instance.id,
            instance.place(),
            &seen[..16]
        ));
    }
    Ok(())
}

/// Standard output: numbered steps with their times, in colour where a terminal shows it.
struct Screen {
    colors: bool,
    begun: Instant,
    steps: Vec<(String, Instant)>,
}

impl Screen {
    fn new() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colors: stdout().is_terminal() && !plain,
            begun: Instant::now(),
            steps: Vec::new(),
        }
    }

    fn paint(&self, color: &str, text: &str) -> String {
        match self.colors {
            true => format!("\x1b[{color}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn step(&mut self, title: &str) {
        self.steps.push((title.to_owned(), Instant::now()));
        let gap = if self.steps.len() > 1 { "\n" } else { "" };
        println!("{gap}{}", self.paint(BOLD, &format!("{}. {title}", self.steps.len())));
    }

    /// A line, folded where it is too long to read, and cut where it is longer than that.
    fn line(&self, text: impl fmt::Display) {
        let text = text.to_string();
        let words = text.trim_start();
        let indent = text.len() - words.len();
        let mut line = format!("     {:indent$}", "");
        let (margin, mut used) = (line.len() + if words.starts_with("- ") { 2 } else { 0 }, 0);
        for word in words.split_inclusive(' ') {
            let length = line.trim_start().chars().count() + word.trim_end().chars().count();
            if used + word.len() > LONGEST {
                line.push_str("[…]");
                break;
            }
            if length > WIDTH && !line.trim().is_empty() {
                println!("{}", line.trim_end());
                line = format!("{:margin$}", "");
            }
            used += word.len();
            line.push_str(word);
        }
        println!("{}", line.trim_end());
    }

    fn aside(&self, text: &str) {
        println!("     {}", self.paint(DIM, text));
    }

    /// Waits for what may take long, and says so as long as it does.
    async fn during<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let mut work = pin!(work);
        loop {
            match timeout(SILENCE, &mut work).await {
                Ok(done) => return done,
                Err(_) => self.aside(&format!("{what}, {} s so far …", begun.elapsed().as_secs())),
            }
        }
    }

    /// What a command printed.
    fn ran(&self, who: &str, what: &str, ran: &Ran) {
        println!("     {}", self.paint(BOLD, &format!("{who}$ {what}")));
        let is_text = |line: &&str| line.chars().any(char::is_alphanumeric);
        // Without the rules of tables.
        ran.said.lines().filter(is_text).for_each(|line| self.line(line));
        if ran.code != 0 {
            let meaning = "0 ok, 1 warning, 2 critical, 3 unknown";
            self.aside(&format!("exit code {} ({meaning})", ran.code));
        }
    }

    /// Subject and findings; all of the sections about `whole`, and of the others only what is
    /// wrong.
    fn alert(&self, message: &Message, whole: &[&str]) {
        self.line(format!("Subject: {}", self.paint(BOLD, &message.subject)));
        let mut cut = false;
        for section in message.text.trim_end().split("\n\n") {
            let mut lines = section.lines();
            let Some((severity, place)) = lines.next().and_then(|title| title.split_once("  ")) else {
                continue;
            };
            let Some(color) = color(severity) else {
                continue;
            };
            println!("\n     {}  {place}", self.paint(color, severity));
            let is_whole = whole.iter().any(|name| place.contains(name));
            for line in lines {
                match is_whole || line.starts_with("  - ") {
                    true => self.line(line),
                    false => cut = true,
                }
            }
        }
        if cut {
            println!();
            self.aside("(shortened: it also says since when, and what to do)");
        }
    }

    /// How long each step took.
    fn times(&self) {
        let total = self.begun.elapsed().as_secs_f32();
        let ends = self
            .steps
            .iter()
            .skip(1)
            .map(|(_, begun)| *begun)
            .chain([Instant::now()]);
        let times: Vec<_> = (1..)
            .zip(self.steps.iter().zip(ends))
            .map(|(number, ((_, begun), end))| format!("{number}: {:.0} s", (end - *begun).as_secs_f32()))
            .collect();
        println!();
        self.aside(&format!("{total:.0} s in all; {}", times.join(", ")));
    }
}

fn color(severity: &str) -> Option<&'static str> {
    Some(match severity {
        "CRITICAL" => RED,
        "WARNING" => YELLOW,
        "UNKNOWN" => BLUE,
        "OK" => GREEN,
        _ => return None,
    })
}

/// Where the report page is kept.
const FOLDER: &str = ".local/demo";
/// The managed certificate.
const WWW: &str = "www.shop.test";
/// Roots of its old and its new certificate, and of the ACME server.
const ROOTS: &str = "ca/pebble.pem";
/// Makes every `nginx -t` fail, and has nothing to do with certificates.
const BROKEN: &str = "proxy_cache_pth /tmp;";
const PATIENCE: Duration = Duration::from_secs(60);
/// Nobody has to look at a screen that stands still for longer.
const SILENCE: Duration = Duration::from_secs(5);
/// As shells report SIGINT and SIGTERM.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;
/// In characters.
const WIDTH: usize = 100;
const LONGEST: usize = 260;
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "1;31";
const YELLOW: &str = "1;33";
const BLUE: &str = "1;34";
const GREEN: &str = "1;32";
