//! What the local server really serves.

use std::time::Duration;

use neverlapse::bucket::version::Facts;
use neverlapse::chain::roots::Roots;
use neverlapse::endpoint::Host;
use neverlapse::finding::{Kind, Thresholds};
use neverlapse::observation::Observation;
use neverlapse::probe::{Options, Prober, Target, Timeouts};
use tokio::time::{Instant, sleep};

use super::config::{Verify, Wanted};

/// Probes every place once. The error says which one serves what instead.
pub(crate) async fn serves(wanted: &Wanted, facts: &Facts) -> Result<(), String> {
    if wanted.verify.is_empty() {
        return Ok(());
    }
    let prober = prober()?;
    for verify in &wanted.verify {
        probe(&prober, verify, facts).await?;
    }
    Ok(())
}

/// Probes every place until it serves the certificate several times in a row, or time is up.
///
/// After a reload a server takes a moment to hand over, in which old and new processes answer in
/// turn.
pub(crate) async fn comes_to_serve(wanted: &Wanted, facts: &Facts) -> Result<(), String> {
    let prober = prober()?;
    let deadline = Instant::now() + wanted.verify_timeout;

    for verify in &wanted.verify {
        let mut in_a_row = 0;
        loop {
            let probed = probe(&prober, verify, facts).await;
            in_a_row = if probed.is_ok() { in_a_row + 1 } else { 0 };
            if in_a_row == IN_A_ROW || Instant::now() + PAUSE > deadline {
                probed?;
                break;
            }
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

fn prober() -> Result<Prober, String> {
    let options = Options {
        tries: 1,
        revocation: false,
        timeouts: Timeouts::within(STEP),
        ..Options::default()
    };
    Prober::new(options).map_err(|error| error.to_string())
}

async fn probe(prober: &Prober, verify: &Verify, facts: &Facts) -> Result<(), String> {
    let target = Target {
        endpoint: verify.endpoint.clone(),
        sni: Some(verify.server_name.clone()),
        addresses: Vec::new(),
        roots: Roots::public().into(),
        thresholds: Thresholds::default(),
    };
    let report = prober.probe(&target).await;

    for observation in &report.observations {
        served(observation, &verify.server_name, &facts.fingerprint)?;
    }
    match report.findings.first() {
        Some(finding) if report.observations.is_empty() => Err(format!("{}: {}", verify.endpoint, finding.message)),
        _ => Ok(()),
    }
}

/// Whether an address serves this certificate: one handshake must be complete, because a server can
/// show a certificate whose key it cannot use.
fn served(observation: &Observation, name: &Host, fingerprint: &str) -> Result<(), String> {
    let address = observation.address;
    let stopped = observation
        .findings
        .iter()
        .filter(|finding| finding.is_network() || matches!(finding.kind, Kind::LegacyTls { .. }))
        .map(|finding| finding.message.as_str())
        .collect::<Vec<_>>()
        .join("; ");

    match &observation.leaf {
        None => Err(format!("{address} shows no certificate: {stopped}")),
        Some(leaf) if leaf.fingerprint != fingerprint => Err(format!(
            "{address} does not serve it for {name}, but a certificate that ends on {} (fingerprint {})",
            leaf.not_after, leaf.fingerprint
        )),
        Some(_) if !stopped.is_empty() => Err(format!(
            "{address} shows it, but no handshake comes to its end: {stopped}"
        )),
        Some(_) => Ok(()),
    }
}

const STEP: Duration = Duration::from_secs(5);
const IN_A_ROW: u32 = 3;
const PAUSE: Duration = Duration::from_millis(250);
