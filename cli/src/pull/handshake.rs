//! What the local server really serves.

use std::time::Duration;

use anyhow::Result;
use neverlapse::finding::date;
use neverlapse::probe::{Options, Prober, Target, Thresholds, Timeouts};
use neverlapse::roots::Roots;
use neverlapse::version::Facts;
use tokio::time::Instant;

use super::config::{Verify, Wanted};

/// Shakes hands with every place until it shows the certificate several times in a row or time is up; the error says who shows what
/// instead. No time at all means one look.
pub(crate) async fn shows(wanted: &Wanted, facts: &Facts, limit: Duration) -> Result<(), String> {
    let options = Options {
        tries: 1,
        revocation: false,
        timeouts: Timeouts::within(STEP),
        ..Options::default()
    };
    let prober = Prober::new(options).map_err(|error| error.to_string())?;
    let deadline = Instant::now() + limit;
    for verify in &wanted.verify {
        let (mut shown, mut seen) = (0, look(&prober, verify, facts).await);
        // A server takes a moment to hand over after a reload, and in that moment old and new answer by turns.
        while !limit.is_zero() {
            shown = if seen.is_ok() { shown + 1 } else { 0 };
            if shown == IN_A_ROW || Instant::now() + PAUSE > deadline {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            seen = look(&prober, verify, facts).await;
        }
        seen?;
    }
    Ok(())
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
        let (address, name) = (observation.address, &verify.server_name);
        match &observation.leaf {
            Some(leaf) if leaf.fingerprint == facts.fingerprint => {}
            Some(leaf) => {
                let (end, fingerprint) = (date(leaf.not_after), &leaf.fingerprint);
                return Err(format!(
                    "{address} does not serve it for {name}, but a certificate that ends on {end} (fingerprint {fingerprint})"
                ));
            }
            None => {
                let why = observation
                    .findings
                    .iter()
                    .map(|finding| finding.message.as_str())
                    .collect::<Vec<_>>()
                    .join("; ");
                return Err(format!("{address} shows no certificate: {why}"));
            }
        }
    }
    match report.findings.first() {
        Some(finding) if report.observations.is_empty() => Err(format!("{}: {}", verify.endpoint, finding.message)),
        _ => Ok(()),
    }
}

const STEP: Duration = Duration::from_secs(5);
const IN_A_ROW: u32 = 3;
const PAUSE: Duration = Duration::from_millis(250);
