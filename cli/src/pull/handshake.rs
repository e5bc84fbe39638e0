//! What the local server really serves.

use std::time::Duration;

use neverlapse::bucket::version::Facts;
use neverlapse::chain::roots::Roots;
use neverlapse::endpoint::Host;
use neverlapse::finding::Kind;
use neverlapse::finding::Thresholds;
use neverlapse::observation::Observation;
use neverlapse::probe::{Options, Prober, Target, Timeouts};
use tokio::time::Instant;

use super::config::{Verify, Wanted};

/// Shakes hands with every place once; the error says who shows what instead.
pub(crate) async fn shows(wanted: &Wanted, facts: &Facts) -> Result<(), String> {
    if wanted.verify.is_empty() {
        return Ok(());
    }
    let prober = prober()?;
    for verify in &wanted.verify {
        look(&prober, verify, facts).await?;
    }
    Ok(())
}

/// Shakes hands with every place until it shows the certificate several times in a row, or time is up. After a reload a server takes a
/// moment to hand over, and in that moment old and new answer by turns.
pub(crate) async fn comes_to_show(wanted: &Wanted, facts: &Facts) -> Result<(), String> {
    let prober = prober()?;
    let deadline = Instant::now() + wanted.verify_timeout;
    for verify in &wanted.verify {
        let mut shown = 0;
        loop {
            let seen = look(&prober, verify, facts).await;
            shown = if seen.is_ok() { shown + 1 } else { 0 };
            if shown == IN_A_ROW || Instant::now() + PAUSE > deadline {
                seen?;
                break;
            }
            tokio::time::sleep(PAUSE).await;
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

async fn look(prober: &Prober, verify: &Verify, facts: &Facts) -> Result<(), String> {
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

/// It is served where the handshake got to its end with it: a server can show a certificate whose key it cannot use.
fn served(seen: &Observation, name: &Host, fingerprint: &str) -> Result<(), String> {
    let address = seen.address;
    let stopped = seen
        .findings
        .iter()
        .filter(|finding| finding.is_network() || matches!(finding.kind, Kind::LegacyTls { .. }))
        .map(|finding| finding.message.as_str());
    let stopped = stopped.collect::<Vec<_>>().join("; ");
    match &seen.leaf {
        None => Err(format!("{address} shows no certificate: {stopped}")),
        Some(leaf) if leaf.fingerprint != fingerprint => {
            let (end, fingerprint) = (leaf.not_after, &leaf.fingerprint);
            Err(format!(
                "{address} does not serve it for {name}, but a certificate that ends on {end} (fingerprint {fingerprint})"
            ))
        }
        Some(_) if !stopped.is_empty() => Err(format!(
            "{address} shows it, but no handshake comes to its end: {stopped}"
        )),
        Some(_) => Ok(()),
    }
}

const STEP: Duration = Duration::from_secs(5);
const IN_A_ROW: u32 = 3;
const PAUSE: Duration = Duration::from_millis(250);
