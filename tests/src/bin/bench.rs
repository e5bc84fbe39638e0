//! What the probe costs: CPU time for 1,000 endpoints, beside bare rustls handshakes with the same server, in one run.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use neverlapse::chain::roots::Roots;
use neverlapse::endpoint::Endpoint;
use neverlapse::finding::Thresholds;
use neverlapse::probe::{Options, Prober, Target};
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::pki::Authority;
use neverlapse_tests::servers::{Nginx, Site};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

#[tokio::main]
async fn main() -> Result<()> {
    let authority = Authority::new()?;
    let leaf = authority.leaf("*.farm.test", Timestamp::now() + time::Duration::days(60))?;
    let nginx = Nginx::start(&[Site {
        chain: leaf.fullchain,
        key: leaf.key,
    }])
    .await?;
    let roots = Arc::new(Roots::public().with_pem(authority.root().as_bytes())?);
    let targets = targets(nginx.ports[0], &roots)?;
    let connector = connector(&roots)?;
    let prober = Prober::new(Options {
        sockets: CONCURRENT,
        ..Options::default()
    })?;
    println!("CPU time of this process for {ENDPOINTS} endpoints on loopback, {CONCURRENT} at once");
    let (mut bare_sum, mut probe_sum) = (Duration::ZERO, Duration::ZERO);
    for round in 1..=ROUNDS {
        let bare = cpu(shake_hands(&connector, &targets)).await?;
        let probe = cpu(look(&prober, &targets)).await?;
        println!(
            "round {round}: bare rustls {:>4} ms, probe {:>4} ms",
            bare.as_millis(),
            probe.as_millis()
        );
        (bare_sum, probe_sum) = (bare_sum + bare, probe_sum + probe);
    }
    println!("ratio {:.2}", probe_sum.as_secs_f64() / bare_sum.as_secs_f64());
    Ok(())
}

fn targets(port: u16, roots: &Arc<Roots>) -> Result<Vec<Target>> {
    let target = |index: usize| {
        let endpoint: Endpoint = format!("d{index}.farm.test:{port}").parse()?;
        let (addresses, thresholds) = (vec!["127.0.0.1".parse()?], Thresholds::default());
        Ok(Target {
            endpoint,
            sni: None,
            addresses,
            timeout: None,
            ehlo: None,
            roots: roots.clone(),
            thresholds,
        })
    };
    (0..ENDPOINTS).map(target).collect()
}

fn connector(roots: &Roots) -> Result<TlsConnector> {
    let store = RootCertStore {
        roots: roots.anchors().to_vec(),
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn shake_hands(connector: &TlsConnector, targets: &[Target]) -> Result<()> {
    let one = |target: Target| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect((target.addresses[0], target.endpoint.port)).await?;
            let name = target
                .endpoint
                .host
                .server_name()
                .context("a name that TLS does not take")?;
            let done = tokio::spawn(async move { connector.connect(name, stream).await });
            done.await?.map(drop).context("a bare handshake failed")
        }
    };
    let mut done = futures::stream::iter(targets.iter().cloned().map(one)).buffer_unordered(CONCURRENT);
    while let Some(result) = done.next().await {
        result?;
    }
    Ok(())
}

async fn look(prober: &Prober, targets: &[Target]) -> Result<()> {
    let mut reports = Box::pin(prober.run(futures::stream::iter(targets.iter().cloned())));
    while let Some(report) = reports.next().await {
        let findings: Vec<_> = report.all_findings().collect();
        anyhow::ensure!(findings.is_empty(), "{}: {findings:?}", report.endpoint);
    }
    Ok(())
}

/// What a step costs, user and system time together.
async fn cpu(step: impl Future<Output = Result<()>>) -> Result<Duration> {
    let before = ticks()?;
    step.await?;
    Ok(Duration::from_millis(10 * (ticks()? - before)))
}

/// utime and stime of proc(5); a tick is 10 ms on every Linux.
fn ticks() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().context("no process name in /proc/self/stat")?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

const ENDPOINTS: usize = 1_000;
const CONCURRENT: usize = 200;
const ROUNDS: usize = 5;
