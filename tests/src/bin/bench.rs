//! What looking at 1,000 endpoints costs: the command as it ships, beside bare handshakes by the
//! same TLS library, blackbox_exporter, and the Python loop that most articles print. All in one
//! run, because machines differ and are busy.
//!
//! The command does all of its work: it asks a name server, judges, and writes the report. The
//! others read the names from a hosts file.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use neverlapse::chain::roots::Roots;
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::cost::Cost;
use neverlapse_tests::dns::Dns;
use neverlapse_tests::pki::Authority;
use neverlapse_tests::process::{eventually, free_port};
use neverlapse_tests::servers::{Nginx, Site};
use neverlapse_tests::stack::root;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next()) {
        // A process of its own, so that only this is measured.
        (Some(port), Some(ca)) => shake_hands(port.parse()?, Path::new(&ca)).await,
        _ => compare().await,
    }
}

async fn compare() -> Result<()> {
    let farm = Farm::open().await?;
    println!("{ENDPOINTS} endpoints on loopback, {CONCURRENT} at a time; the least of {ROUNDS} rounds\n");

    let mut rows = vec![
        Row::new("bare rustls handshakes", 1),
        Row::new("neverlapse check", 1),
        Row::new("blackbox_exporter", 1),
        Row::new("Python, one by one", SHARE),
    ];
    for _ in 0..ROUNDS {
        rows[0].add(farm.bare().await?);
        rows[1].add(farm.check().await?);
        if farm.can_name_hosts && which(BLACKBOX) {
            rows[2].add(farm.blackbox().await?);
        }
        if farm.can_name_hosts {
            rows[3].add(farm.naive().await?);
        }
    }
    print(&rows);

    if !farm.can_name_hosts {
        println!("\nthe others were NOT measured: only root can give them a hosts file (unshare --mount)");
    } else if !which(BLACKBOX) {
        println!("\nblackbox_exporter was NOT measured: it is not installed (Debian's {BLACKBOX})");
    }
    Ok(())
}

/// The endpoints, and the files that name them.
struct Farm {
    nginx: Nginx,
    dns: Dns,
    folder: TempDir,
    /// Whether a process can get a hosts file of its own.
    can_name_hosts: bool,
}

impl Farm {
    async fn open() -> Result<Self> {
        let authority = Authority::new()?;
        let leaf = authority.leaf("*.farm.test", Timestamp::now() + time::Duration::days(60))?;
        let nginx = Nginx::start(&[Site {
            chain: leaf.fullchain,
            key: leaf.key,
        }])
        .await?;

        let addresses = names().map(|name| (name, vec![Ipv4Addr::LOCALHOST.into()]));
        let dns = Dns::start(addresses.collect()).await?;

        let folder = tempfile::Builder::new().prefix("neverlapse-bench-").tempdir()?;
        let hosts: String = names().map(|name| format!("127.0.0.1 {name}\n")).collect();
        let endpoints: String = names().map(|name| format!("{name}:{}\n", nginx.ports[0])).collect();
        std::fs::write(folder.path().join("hosts"), hosts)?;
        std::fs::write(folder.path().join("names"), endpoints)?;
        std::fs::write(folder.path().join("ca.pem"), authority.root())?;
        // The Python loop reads the system's roots for each endpoint, as the articles have it.
        let system = std::fs::read_to_string(SYSTEM_ROOTS).unwrap_or_default();
        std::fs::write(folder.path().join("roots.pem"), system + &authority.root())?;

        let mounts = Command::new("unshare").args(["--mount", "true"]).status().await;
        Ok(Self {
            nginx,
            dns,
            folder,
            can_name_hosts: mounts.is_ok_and(|status| status.success()),
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn bare(&self) -> Result<Cost> {
        let mut bare = Command::new(std::env::current_exe()?);
        bare.arg(self.nginx.ports[0].to_string()).arg(self.file("ca.pem"));
        Cost::of(bare).await
    }

    async fn check(&self) -> Result<Cost> {
        let mut check = Command::new(root().join("target/release/neverlapse"));
        check.args(["check", "--format", "json", "--concurrency", &CONCURRENT.to_string()]);
        check.args(["--nameserver", &self.dns.address.to_string()]);
        check.arg("--file").arg(self.file("names"));
        check.arg("--ca").arg(self.file("ca.pem"));
        Cost::of(check).await
    }

    async fn naive(&self) -> Result<Cost> {
        let mut naive = self.named("python3");
        naive.arg(root().join("tests/benches/naive.py"));
        naive.arg(self.file("names")).arg((ENDPOINTS / SHARE).to_string());
        naive.env("SSL_CERT_FILE", self.file("roots.pem"));
        Cost::of(naive).await
    }

    async fn blackbox(&self) -> Result<Cost> {
        let config = format!(
            "modules: {{tls: {{prober: tcp, timeout: 5s, tcp: {{tls: true, tls_config: {{ca_file: {:?}}}}}}}}}\n",
            self.file("ca.pem")
        );
        std::fs::write(self.file("blackbox.yml"), config)?;
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut exporter = self.named(BLACKBOX);
        exporter.arg(format!("--web.listen-address={at}"));
        exporter.arg(format!("--config.file={}", self.file("blackbox.yml").display()));
        let mut exporter = exporter.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        eventually("blackbox_exporter's answer", async || {
            Ok(TcpStream::connect(at).await.ok().map(drop))
        })
        .await?;

        let id = exporter.id().context("it has ended")?;
        let before = Cost::so_far(id)?;
        let client = client()?;
        let scrapes = names().map(|name| {
            let request = client.get(format!(
                "http://{at}/probe?module=tls&target={name}:{}",
                self.nginx.ports[0]
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
        command.arg(self.file("hosts")).arg(program);
        command.kill_on_drop(true);
        command
    }
}

fn names() -> impl Iterator<Item = String> {
    (0..ENDPOINTS).map(|index| format!("d{index}.farm.test"))
}

fn which(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn client() -> Result<reqwest::Client> {
    let _ = aws_lc_rs::default_provider().install_default();
    Ok(reqwest::Client::builder().no_proxy().build()?)
}

/// Every endpoint, with nothing but the handshake and its verification.
async fn shake_hands(port: u16, ca: &Path) -> Result<()> {
    let roots = Roots::public().with_pem(&std::fs::read(ca)?)?;
    let store = RootCertStore {
        roots: roots.anchors().to_vec(),
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let connector = TlsConnector::from(Arc::new(config));

    let handshakes = names().map(|name| {
        let connector = connector.clone();
        let handshake = async move {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            let name = ServerName::try_from(name)?;
            connector
                .connect(name, stream)
                .await
                .map(drop)
                .context("a bare handshake failed")
        };
        async { tokio::spawn(handshake).await? }
    });
    let done = futures::stream::iter(handshakes).buffer_unordered(CONCURRENT);
    done.try_collect().await
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
    println!("{:<24}{:>8}{:>12}{:>14}", "", "CPU s", "of bare", "peak MiB");
    for row in rows {
        let mut line = format!("{:<24}", row.name);
        let peak = row.costs.iter().map(|cost| cost.peak).max();
        let _ = match row.cpu().zip(peak) {
            Some((cpu, peak)) => write!(line, "{cpu:>8.2}{:>12.2}{:>14.1}", cpu / bare, peak as f64 / 1024.0),
            None => write!(line, "{:>8}", "-"),
        };
        println!("{line}");
    }
}

const ENDPOINTS: usize = 1_000;
const CONCURRENT: usize = 200;
const ROUNDS: usize = 5;
/// The Python loop takes half a minute for all.
const SHARE: usize = 20;
const BLACKBOX: &str = "prometheus-blackbox-exporter";
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
