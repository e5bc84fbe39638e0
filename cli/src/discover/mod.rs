//! `neverlapse discover`: what serves TLS in the account and is not watched, by the names in its
//! hosted zones and certificates; and the certificates that it keeps in ACM and IAM.

mod certificate;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Result, anyhow};
use aws_config::SdkConfig;
use aws_sdk_route53::Client;
use aws_sdk_route53::types::RrType;
use clap::Args;
use comfy_table::Cell;
use futures::future::join_all;
use neverlapse::aws;
use neverlapse::certificate::common_name;
use neverlapse::chain::roots::Roots;
use neverlapse::endpoint::Endpoint;
use neverlapse::finding::{Severity, Thresholds};
use neverlapse::inventory::Inventory;
use neverlapse::probe::{Options, Prober, Target};
use neverlapse::report::{EndpointReport, Report};
use neverlapse::text::{counted, printable, some_of};
use neverlapse::timestamp::Timestamp;
use tokio::time::Instant;

use self::certificate::Certificate;
use crate::cell;
use crate::service::Services;
use crate::stack::{Stack, StackName};
use crate::terminal::{self, Terminal};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    stack: StackName,
}

/// A public hosted zone, and the names in it that have an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Zone {
    pub(crate) name: String,
    pub(crate) endpoints: BTreeSet<Endpoint>,
}

/// What an account has that clients may connect to.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) zones: Vec<Zone>,
    pub(crate) stores: Stores,
}

impl Found {
    /// Asks Route 53, which has to answer, and ACM and IAM.
    pub(crate) async fn read(config: &SdkConfig) -> Result<Self> {
        Ok(Self {
            zones: zones(config).await?,
            stores: Stores::read(&Services::new(config)?).await,
        })
    }

    /// All names, on the usual port.
    pub(crate) fn endpoints(&self) -> BTreeSet<Endpoint> {
        let in_zones = self.zones.iter().flat_map(|zone| zone.endpoints.iter().cloned());
        in_zones.chain(self.stores.endpoints()).collect()
    }
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let stack = Stack::find(&arguments.stack).await?;
    let inventory = stack.inventory().await?;
    let watched: BTreeSet<_> = inventory.watched.iter().map(|watched| &watched.endpoint.host).collect();

    let found = Found::read(&stack.config).await?;
    let names = found.endpoints();
    let unwatched = names.iter().filter(|endpoint| !watched.contains(&endpoint.host));
    let unwatched: Vec<_> = unwatched.cloned().collect();
    let report = probe(&unwatched).await?;
    let mut problems = found.stores.problems.clone();
    problems.extend(not_reached(&report));
    let seen = serving(report);

    let now = Timestamp::now();
    let mut out = io::stdout().lock();
    print_unwatched(&mut out, &seen)?;
    found.stores.print(&mut out, now)?;

    let serve = counted(seen.len() as u64, "serves", "serve");
    let are = if seen.len() == 1 { "is" } else { "are" };
    let names = counted(names.len() as u64, "name", "names");
    let in_zones = counted(found.zones.len() as u64, "hosted zone", "hosted zones");
    let certificates = counted(found.stores.certificates.len() as u64, "certificate", "certificates");
    writeln!(
        out,
        "{names} in {in_zones} and {certificates} of ACM and IAM: {serve} TLS on port 443 and {are} not watched"
    )?;

    for problem in &problems {
        eprintln!("error: {}", printable(problem));
    }
    Ok(if !problems.is_empty() {
        UNKNOWN
    } else if seen.is_empty() && found.stores.ending(now).next().is_none() {
        0
    } else {
        UNWATCHED
    })
}

/// What ACM and IAM keep. If one of them does not answer, the others still count.
#[derive(Default)]
pub(crate) struct Stores {
    certificates: Vec<Certificate>,
    pub(crate) problems: Vec<String>,
}

impl Stores {
    async fn read(services: &Services) -> Self {
        let of_cloudfront = certificate::of_cloudfront(services.region()).map(|region| services.at(region));
        let regions = [Some(services), of_cloudfront.as_ref()].into_iter().flatten();
        let acm = join_all(regions.map(async |services| {
            let store = format!("ACM in {}", services.region());
            (store, certificate::in_acm(services).await)
        }));
        let (acm, iam) = tokio::join!(acm, certificate::in_iam(services));

        let mut all = Self::default();
        for (store, answer) in acm.into_iter().chain([("IAM".to_owned(), iam)]) {
            match answer {
                Ok(certificates) => all.certificates.extend(certificates),
                Err(refused) => all
                    .problems
                    .push(format!("cannot list the certificates in {store}: {refused}")),
            }
        }
        all
    }

    /// Where clients may meet them.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        self.certificates.iter().flat_map(Certificate::endpoints)
    }

    /// Those that expire soon, or whose end is not known.
    fn ending(&self, now: Timestamp) -> impl Iterator<Item = &Certificate> {
        let certificates = self.certificates.iter();
        certificates.filter(move |certificate| certificate.status(now) > Severity::Ok)
    }

    fn print(&self, out: &mut impl Write, now: Timestamp) -> io::Result<()> {
        let mut sorted: Vec<_> = self.certificates.iter().collect();
        sorted.sort_by_key(|certificate| (Reverse(certificate.status(now)), certificate.not_after));

        let mut grid = Terminal::of_stdout().grid(["STATUS", "TIME LEFT", "IN ACM OR IAM, AND WHO RENEWS IT"]);
        for certificate in sorted {
            let left = cell::time_left(certificate.left(now), certificate.not_after);
            grid.add_row([
                cell::status(certificate.status(now)),
                Cell::new(left),
                Cell::new(format!("{}\n{}", cell::cut(&certificate.name), certificate.kept)),
            ]);
        }
        terminal::print(grid, out)
    }
}

fn print_unwatched(out: &mut impl Write, seen: &[EndpointReport]) -> io::Result<()> {
    let mut grid = Terminal::of_stdout().grid(["STATUS", "TIME LEFT", "NOT WATCHED, AND ITS ISSUER"]);
    for report in seen {
        let issuer = report.leaf().map(|leaf| common_name(&leaf.issuer)).unwrap_or_default();
        grid.add_row([
            cell::status(report.status),
            Cell::new(cell::time_left(report.left(), report.not_after)),
            Cell::new(format!("{}\n{}", report.endpoint, printable(&issuer))),
        ]);
    }
    terminal::print(grid, out)
}

/// The account's public hosted zones.
async fn zones(config: &SdkConfig) -> Result<Vec<Zone>> {
    let route53 = Client::new(config);
    let mut zones = Vec::new();
    let mut pages = route53.list_hosted_zones().into_paginator().items().send();
    while let Some(zone) = pages.next().await {
        let zone = zone.map_err(|error| anyhow!("cannot list the hosted zones: {}", aws::reason(&error)))?;
        if zone.config().is_some_and(|config| config.private_zone()) {
            continue;
        }
        zones.push(Zone {
            name: zone.name().trim_end_matches('.').to_owned(),
            endpoints: endpoints(&route53, zone.id()).await?,
        });
    }
    zones.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(zones)
}

/// The names in a zone that have an address, on the usual port.
async fn endpoints(route53: &Client, zone: &str) -> Result<BTreeSet<Endpoint>> {
    let mut endpoints = BTreeSet::new();
    let mut start = None;
    loop {
        let page = route53
            .list_resource_record_sets()
            .hosted_zone_id(zone)
            .set_start_record_name(start.take())
            .send()
            .await
            .map_err(|error| anyhow!("cannot list the records of {zone}: {}", aws::reason(&error)))?;

        for set in page.resource_record_sets() {
            endpoints.extend(endpoint(set.name(), set.r#type()));
        }

        match page.next_record_name {
            Some(next) if page.is_truncated => start = Some(next),
            _ => return Ok(endpoints),
        }
    }
}

/// The endpoint at a record. Wildcards and names for other purposes, such as challenges, have none.
fn endpoint(name: &str, kind: &RrType) -> Option<Endpoint> {
    let is_address = matches!(kind, RrType::A | RrType::Aaaa | RrType::Cname);
    // Route 53 writes an asterisk as an octal number.
    let is_other = name.starts_with(['*', '_', '\\']) || name.contains("._");
    (is_address && !is_other).then(|| name.parse().ok())?
}

/// What the endpoints serve, as seen from here.
pub(crate) async fn probe(endpoints: &[Endpoint]) -> Result<Report> {
    let list: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
    let inventory = Inventory::of_endpoints(&list.join(" "), Thresholds::default());
    let (targets, _) = Target::all(&inventory, &Roots::public(), async |_: &str| {
        Err("no file is named".to_owned())
    })
    .await;

    let prober = Prober::new(Options {
        sockets: SOCKETS,
        ..Options::default()
    })?;
    Ok(prober.report(targets, Instant::now() + LONGEST).await)
}

/// Those that showed a certificate.
pub(crate) fn serving(report: Report) -> Vec<EndpointReport> {
    let mut seen = report.endpoints;
    seen.retain(|report| report.leaf().is_some());
    seen
}

/// That there was no time for some of them, if there was not.
pub(crate) fn not_reached(report: &Report) -> Option<String> {
    let names = &report.not_reached;
    (!names.is_empty()).then(|| {
        let number = counted(names.len() as u64, "name", "names");
        format!(
            "no time was left to look at {number}: {}",
            some_of(names, NOT_REACHED_SHOWN)
        )
    })
}

/// Something is served that nobody watches, or a certificate in ACM or IAM expires soon.
const UNWATCHED: u8 = 1;
/// Something could not be found out.
const UNKNOWN: u8 = 3;
const SOCKETS: usize = 200;
const NOT_REACHED_SHOWN: usize = 10;
const LONGEST: Duration = Duration::from_secs(600);
const HELP: &str = "\
Looks for A, AAAA and CNAME records in the public hosted zones of the account, and for the names of certificates in ACM, in the stack's \
region and in us-east-1, where CloudFront's are; connects to each name on port 443 from here, and shows those that serve TLS and are \
neither in the stack's inventory nor in its parameter Domains. So it finds what load balancers and distributions serve, too. Below, it \
lists the certificates in ACM and IAM.

It only reads, with your own permissions: route53:ListHostedZones, route53:ListResourceRecordSets, acm:ListCertificates and \
iam:ListServerCertificates.

Exit codes: 0 everything found is watched, 1 something is not, or a certificate in ACM or IAM expires soon, 3 something could not be found out";

#[cfg(test)]
impl Stores {
    /// One certificate of ACM, for these names.
    pub(crate) fn with_names<const N: usize>(names: [&str; N]) -> Self {
        Self {
            certificates: vec![Certificate {
                name: names.concat(),
                names: names.map(str::to_owned).into(),
                not_after: None,
                kept: certificate::Kept::Imported("eu-central-1".to_owned()),
            }],
            problems: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They were left out without a word, and everything was said to be watched.
    #[test]
    fn names_that_there_was_no_time_for() {
        let now = Timestamp::now();
        let mut report = Report::new(now, now, Vec::new());
        assert_eq!(not_reached(&report), None);
        report.not_reached = (1..=12).map(|number| format!("h{number}.test:443")).collect();
        let problem = not_reached(&report).unwrap();
        assert!(
            problem.starts_with("no time was left to look at 12 names: h1.test:443, ")
                && problem.ends_with(" and 2 more"),
            "{problem}"
        );
    }

    #[test]
    fn records_that_are_endpoints() {
        for (name, kind, expected) in [
            ("example.com.", RrType::A, Some("example.com:443")),
            ("www.example.com.", RrType::Cname, Some("www.example.com:443")),
            ("v6.example.com.", RrType::Aaaa, Some("v6.example.com:443")),
            ("example.com.", RrType::Mx, None),
            ("\\052.example.com.", RrType::A, None),
            ("_acme-challenge.example.com.", RrType::Cname, None),
            ("s1._domainkey.example.com.", RrType::Cname, None),
        ] {
            let found = endpoint(name, &kind).map(|endpoint| endpoint.to_string());
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }
}
