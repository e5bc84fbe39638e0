//! The text format of Prometheus, for node_exporter's textfile collector: the endpoints as
//! `neverlapse check` writes them, and the managed certificates.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::overview::{self, Overview};
use crate::check::prometheus::{Metrics, describe, sample};

pub(super) fn print(overview: &Overview, out: &mut impl Write) -> io::Result<()> {
    let mut endpoints = Metrics::default();
    for endpoint in overview.watched() {
        endpoints.add(endpoint);
    }
    endpoints.print_endpoints(out)?;

    let name = "neverlapse_certificate_not_after_timestamp_seconds";
    describe(out, name, "When the current version of the certificate expires.")?;
    for certificate in &overview.certificates {
        if let Some(not_after) = certificate.not_after() {
            sample(out, name, &[("certificate", &certificate.name)], not_after.unix())?;
        }
    }

    let name = "neverlapse_certificate_status";
    describe(
        out,
        name,
        "State of the certificate: 0 ok, 1 warning, 2 critical, 3 unknown.",
    )?;
    for certificate in &overview.certificates {
        let status = overview::status(certificate, overview.now).exit_code();
        sample(out, name, &[("certificate", &certificate.name)], status)?;
    }

    let name = "neverlapse_certificate_renewal_failing";
    describe(out, name, "Whether the last try to renew the certificate failed.")?;
    for certificate in &overview.certificates {
        let is_failing = u8::from(certificate.renewal.failure.is_some());
        sample(out, name, &[("certificate", &certificate.name)], is_failing)?;
    }

    let name = "neverlapse_certificate_instances";
    describe(
        out,
        name,
        "Instances that install the certificate, by how far they are with its current version.",
    )?;
    for certificate in &overview.certificates {
        let stages = certificate.instances.iter().map(|instance| instance.stage.to_string());
        print_stages(out, name, &certificate.name, stages)?;
    }

    let name = "neverlapse_certificate_addresses";
    describe(
        out,
        name,
        "Addresses where the certificate should be served, by what they serve.",
    )?;
    for certificate in &overview.certificates {
        let stages = certificate.addresses.iter().map(|address| address.stage.to_string());
        print_stages(out, name, &certificate.name, stages)?;
    }
    Ok(())
}

/// A sample for each stage, with how many there are of it.
fn print_stages(
    out: &mut impl Write,
    name: &str,
    certificate: &str,
    stages: impl Iterator<Item = String>,
) -> io::Result<()> {
    let mut counts = BTreeMap::<_, u64>::new();
    for stage in stages {
        *counts.entry(stage).or_default() += 1;
    }
    for (stage, count) in counts {
        sample(out, name, &[("certificate", &certificate), ("stage", &stage)], count)?;
    }
    Ok(())
}
