//! What looking at 1,000 endpoints costs: the command as it ships, beside bare handshakes by the
//! same TLS library, blackbox_exporter, and the Python loop that most articles print. All in one
//! run, because machines differ and are busy.
//!
//! The command does all of its work: it asks a name server, asks each server for a certificate of
//! either kind of key, judges, and writes the report. The others read the names from a hosts file,
//! and ask for one certificate.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use neverlapse::chain::roots::Roots;
use neverlapse_tests::cost::Cost;
use neverlapse_tests::emulator::http;
use neverlapse_tests::farm::{self, CA, Farm, NAMES};
use neverlapse_tests::process::{eventually, free_port};
use neverlapse_tests::servers::Silent;
use neverlapse_tests::stack::root;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SignatureScheme};

#[tokio::main]
async fn main() -> Result<()> {
    // `cargo bench` gives every program --bench.
    let arguments: Vec<_> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match &arguments[..] {
        // A process of its own, so that only this is measured.
        [port, ca, asks_twice] => shake_hands(port.parse()?, Path::new(ca), asks_twice.parse()?).await,
        _ => compare().await,
    }
}

async fn compare() -> Result<()> {
    let field = Field::open().await?;
    println!("{ENDPOINTS} endpoints on loopback, {CONCURRENT} at a time; the least of {ROUNDS} rounds\n");

    let mut once = Row::new("bare rustls handshakes", 1);
    let mut twice = Row::new("the same, for both kinds of key", 1);
    let mut check = Row::new("neverlapse check", 1);
    let mut blackbox = Row::new("blackbox_exporter", 1);
    let mut naive = Row::new("Python, one by one", SHARE);
    for _ in 0..ROUNDS {
        once.add(field.bare(false).await?);
        twice.add(field.bare(true).await?);
        check.add(field.check().await?);
        if field.can_name_hosts && which(BLACKBOX) {
            blackbox.add(field.blackbox().await?);
        }
        if field.can_name_hosts {
            naive.add(field.naive().await?);
        }
    }
    print(&[once, twice, check, blackbox, naive]);
    let (silent, took) = field.with_silence().await?;
    println!("\nWith {silent} that never say a word among them, neverlapse check ends after {took:.1} s.");

    if !field.can_name_hosts {
        println!("\nthe others were NOT measured: only root can give them a hosts file (unshare --mount)");
    } else if !which(BLACKBOX) {
        println!("\nblackbox_exporter was NOT measured: it is not installed (Debian's {BLACKBOX})");
    }
    Ok(())
}

/// The endpoints, and what the others need to find them.
struct Field {
    farm: Farm,
    /// Whether a process can get a hosts file of its own.
    can_name_hosts: bool,
}

impl Field {
    async fn open() -> Result<Self> {
        let farm = Farm::open(ENDPOINTS).await?;
        let hosts: String = farm.names().map(|name| format!("127.0.0.1 {name}\n")).collect();
        std::fs::write(farm.file("hosts"), hosts)?;
        // The Python loop reads the system's roots for each endpoint, as the articles have it.
        let system = std::fs::read_to_string(SYSTEM_ROOTS).unwrap_or_default();
        let own = std::fs::read_to_string(farm.file(CA))?;
        std::fs::write(farm.file("roots.pem"), system + &own)?;

        let mounts = Command::new("unshare").args(["--mount", "true"]).status().await;
        Ok(Self {
            farm,
            can_name_hosts: mounts.is_ok_and(|status| status.success()),
        })
    }

    async fn bare(&self, asks_twice: bool) -> Result<Cost> {
        let mut bare = Command::new(std::env::current_exe()?);
        bare.arg(self.farm.port().to_string()).arg(self.farm.file(CA));
        bare.arg(asks_twice.to_string());
        Cost::of(bare).await
    }

    async fn check(&self) -> Result<Cost> {
        Cost::of(self.check_of(NAMES)).await
    }

    fn check_of(&self, names: &str) -> Command {
        let mut check = Command::new(root().join("target/release/neverlapse"));
        check.args(["check", "--format", "json", "--concurrency", &CONCURRENT.to_string()]);
        check.args(["--nameserver", &self.farm.dns.address.to_string()]);
        check.arg("--file").arg(self.farm.file(names));
        check.arg("--ca").arg(self.farm.file(CA));
        check
    }

    /// How many of the endpoints are silent, and how many seconds it takes with them.
    async fn with_silence(&self) -> Result<(usize, f64)> {
        let silent = Silent::start().await?;
        let ports = (0..ENDPOINTS).map(|index| match index % SILENT {
            0 => silent.port,
            _ => self.farm.port(),
        });
        let endpoints = self.farm.names().zip(ports);
        let endpoints: String = endpoints.map(|(name, port)| format!("{name}:{port}\n")).collect();
        std::fs::write(self.farm.file("silent"), endpoints)?;

        let began = Instant::now();
        let output = self.check_of("silent").output().await?;
        let took = began.elapsed().as_secs_f64();
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let unknown = report["counts"]["unknown"].as_u64().unwrap_or_default() as usize;
        ensure!(unknown == ENDPOINTS / SILENT, "{}", report["counts"]);
        Ok((unknown, took))
    }

    async fn naive(&self) -> Result<Cost> {
        let mut naive = self.named("python3");
        naive.arg(root().join("tests/benches/naive.py"));
        naive.arg(self.farm.file(NAMES)).arg((ENDPOINTS / SHARE).to_string());
        naive.env("SSL_CERT_FILE", self.farm.file("roots.pem"));
        Cost::of(naive).await
    }

    async fn blackbox(&self) -> Result<Cost> {
        let config = format!(
            "modules: {{tls: {{prober: tcp, timeout: 5s, tcp: {{tls: true, tls_config: {{ca_file: {:?}}}}}}}}}\n",
            self.farm.file(CA)
        );
        std::fs::write(self.farm.file("blackbox.yml"), config)?;
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut exporter = self.named(BLACKBOX);
        exporter.arg(format!("--web.listen-address={at}"));
        exporter.arg(format!("--config.file={}", self.farm.file("blackbox.yml").display()));
        let mut exporter = exporter.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        eventually("blackbox_exporter's answer", async || {
            Ok(TcpStream::connect(at).await.ok().map(drop))
        })
        .await?;

        let id = exporter.id().context("it has ended")?;
        let before = Cost::so_far(id)?;
        let client = http()?;
        let scrapes = self.farm.names().map(|name| {
            let request = client.get(format!(
                "http://{at}/probe?module=tls&target={name}:{}",
                self.farm.port()
            ));
            async {
                let text = request.send().await?.text().await?;
                ensure!(text.contains("\nprobe_success 1\n"), "a probe failed:\n{text}");
                Ok(())
            }
        });
        let scraped = futures::stream::iter(scrapes).buffer_unordered(CONCURRENT);
        scraped.try_collect::<()>().await?;
        let after = Cost::so_far(id)?;

        exporter.kill().await?;
        Ok(Cost {
            cpu: after.cpu - before.cpu,
            peak: after.peak,
        })
    }

    /// A program that finds the names of the endpoints in /etc/hosts.
    fn named(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
        command.arg(self.farm.file("hosts")).arg(program);
        command.kill_on_drop(true);
        command
    }
}

fn which(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Every endpoint, with nothing but the handshake and its verification; if it asks twice, also for
/// a certificate with an RSA key, which the server does not have.
async fn shake_hands(port: u16, ca: &Path, asks_twice: bool) -> Result<()> {
    let roots = Roots::public().with_pem(&std::fs::read(ca)?)?;
    let provider = aws_lc_rs::default_provider();
    let usual = connector(&roots, provider.clone())?;
    let rsa = connector(&roots, of_rsa(provider))?;

    let handshakes = farm::names(ENDPOINTS).map(|name| {
        let (usual, rsa) = (usual.clone(), rsa.clone());
        let handshake = async move {
            let at = (Ipv4Addr::LOCALHOST, port);
            let name = ServerName::try_from(name)?;
            let done = usual.connect(name.clone(), TcpStream::connect(at).await?).await;
            done.context("a bare handshake failed")?;
            if asks_twice {
                let refused = rsa.connect(name, TcpStream::connect(at).await?).await;
                ensure!(refused.is_err(), "the server has a certificate with an RSA key");
            }
            Ok(())
        };
        async { tokio::spawn(handshake).await? }
    });
    let done = futures::stream::iter(handshakes).buffer_unordered(CONCURRENT);
    done.try_collect().await
}

fn connector(roots: &Roots, provider: CryptoProvider) -> Result<TlsConnector> {
    let store = RootCertStore {
        roots: roots.anchors().to_vec(),
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A client that understands signatures by RSA keys alone.
fn of_rsa(mut provider: CryptoProvider) -> CryptoProvider {
    let all = &mut provider.signature_verification_algorithms;
    let mapping = all.mapping.iter().copied();
    let of_rsa: Vec<_> = mapping.filter(|(scheme, _)| RSA.contains(scheme)).collect();
    all.mapping = of_rsa.leak();
    provider
}

/// One contender.
struct Row {
    name: &'static str,
    /// It has done so much less of the work, which is made up for.
    share: usize,
    costs: Vec<Cost>,
}

impl Row {
    fn new(name: &'static str, share: usize) -> Self {
        Self {
            name,
            share,
            costs: Vec::new(),
        }
    }

    fn add(&mut self, cost: Cost) {
        self.costs.push(cost);
    }

    /// In seconds. The least, because whatever else runs can only add to it.
    fn cpu(&self) -> Option<f64> {
        let least = self.costs.iter().map(|cost| cost.cpu).min()?;
        Some(least.as_secs_f64() * self.share as f64)
    }
}

fn print(rows: &[Row]) {
    let bare = rows[0].cpu().unwrap_or(f64::NAN);
    println!("{:<34}{:>8}{:>12}{:>14}", "", "CPU s", "of bare", "peak MiB");
    for row in rows {
        let mut line = format!("{:<34}", row.name);
        let peak = row.costs.iter().map(|cost| cost.peak).max();
        let _ = match row.cpu().zip(peak) {
            Some((cpu, peak)) => write!(line, "{cpu:>8.2}{:>12.2}{:>14.1}", cpu / bare, peak as f64 / 1024.0),
            None => write!(line, "{:>8}", "-"),
        };
        println!("{line}");
    }
}

const RSA: [SignatureScheme; 6] = [
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];
const ENDPOINTS: usize = 1_000;
const CONCURRENT: usize = 200;
const ROUNDS: usize = 5;
/// One of so many is silent.
const SILENT: usize = 20;
/// The Python loop takes half a minute for all.
const SHARE: usize = 20;
const BLACKBOX: &str = "prometheus-blackbox-exporter";
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
