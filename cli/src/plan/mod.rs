//! `neverlapse plan`: what would be renewed now, and why, and on request whether anything keeps it
//! from being renewed. Orders nothing.

mod certificate;
pub(crate) mod check;
pub(crate) mod checker;
mod document;
mod issuer;

use std::io::{self, Write};
use std::net::SocketAddr;

use anyhow::Result;
use clap::Args;
use comfy_table::Cell;
use neverlapse::finding::Severity;
use neverlapse::text::{counted, printable, printable_json};
use neverlapse::timestamp::Timestamp;

use self::certificate::CertificatePlan;
use self::check::Check;
use self::checker::{Checker, Surroundings};
pub(crate) use self::document::Plan;
use self::document::PlannedCertificate;
use crate::argument;
use crate::cell;
use crate::format::Listing;
use crate::stack::{self, Stack, StackName};
use crate::terminal::{self, Terminal};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// Only these certificates, by their names in the inventory
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Also check what an order depends on: zones, CNAMEs, delegation, DNSSEC, CAA, profiles, EAB
    #[arg(long)]
    check: bool,
    /// With --check, print also what is as it should be
    #[arg(long, requires = "check")]
    all: bool,
    /// The only name server to ask
    #[arg(long, value_name = "IP[:PORT]", value_parser = argument::nameserver, requires = "check")]
    nameserver: Option<SocketAddr>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Listing::Table)]
    format: Listing,
    #[command(flatten)]
    stack: StackName,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<u8> {
    let stack = Stack::find(&arguments.stack).await?;
    let inventory = stack.inventory().await?;
    let wanted: Vec<_> = if arguments.names.is_empty() {
        inventory.certificates.iter().collect()
    } else {
        let named = arguments.names.iter().map(|name| stack::certificate(&inventory, name));
        named.collect::<Result<_>>()?
    };

    let now = Timestamp::now();
    let (mut certificates, mut plans, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    for certificate in wanted {
        match CertificatePlan::read(&stack, &inventory, certificate, now).await {
            Ok(plan) => {
                certificates.push(certificate);
                plans.push(plan);
            }
            Err(error) => unreadable.push(format!("{}: {error:#}", certificate.name)),
        }
    }
    let surroundings = if arguments.check {
        let checker = Checker::new(&stack, &inventory, &certificates, arguments.nameserver).await?;
        for (plan, certificate) in plans.iter_mut().zip(&certificates) {
            let current = plan.current.as_ref().map(|current| &current.facts);
            plan.checks = checker.certificate(certificate, current).await;
        }
        Some(checker.surroundings(&certificates).await)
    } else {
        None
    };

    let mut out = io::stdout().lock();
    match arguments.format {
        Listing::Table => print(&mut out, &plans, surroundings.as_ref(), arguments.all)?,
        Listing::Json => {
            let plan = Plan::of(&plans, surroundings.as_ref(), now);
            writeln!(out, "{}", printable_json(serde_json::to_string(&plan)?))?;
        }
        // Zones and issuers have no line of their own: each certificate has what keeps it from
        // being issued.
        Listing::Jsonl => {
            for plan in &plans {
                let planned = PlannedCertificate::of(plan);
                writeln!(out, "{}", printable_json(serde_json::to_string(&planned)?))?;
            }
        }
    }
    out.flush()?;
    for problem in &unreadable {
        eprintln!("error: {}", printable(problem));
    }

    let of_plans = plans.iter().flat_map(|plan| &plan.checks);
    let mut checks = of_plans.chain(surroundings.iter().flat_map(Surroundings::checks));
    let is_fine = inventory.problems.is_empty() && unreadable.is_empty() && !checks.any(Check::is_wrong);
    Ok(if is_fine { 0 } else { PROBLEMS })
}

impl Surroundings {
    fn checks(&self) -> impl Iterator<Item = &Check> {
        let of_zones = self.zones.iter().flat_map(|zone| &zone.checks);
        of_zones.chain(self.issuers.iter().flat_map(|issuer| &issuer.checks))
    }
}

fn print(
    out: &mut impl Write,
    plans: &[CertificatePlan],
    surroundings: Option<&Surroundings>,
    all: bool,
) -> Result<()> {
    let mut grid = Terminal::of_stdout().grid(["CERTIFICATE", "VALID UNTIL", "ISSUER", "DECISION"]);
    grid.add_rows(plans.iter().map(CertificatePlan::cells));
    terminal::print(grid, out)?;
    if let Some(surroundings) = surroundings {
        print_checks(out, plans, surroundings, all)?;
    }

    let certificates = counted(plans.len() as u64, "certificate", "certificates");
    let due = plans.iter().filter(|plan| plan.is_due()).count();
    writeln!(out, "{certificates}, {due} due")?;
    Ok(())
}

/// What is not as it should be, or everything.
fn print_checks(out: &mut impl Write, plans: &[CertificatePlan], surroundings: &Surroundings, all: bool) -> Result<()> {
    let of_plans = plans.iter().map(|plan| (plan.name.clone(), &plan.checks));
    let of_zones = surroundings
        .zones
        .iter()
        .map(|zone| (format!("zone {}", zone.name), &zone.checks));
    let of_issuers = surroundings
        .issuers
        .iter()
        .map(|issuer| (format!("issuer {}", issuer.name), &issuer.checks));

    let mut grid = Terminal::of_stdout().grid(["STATUS", "ABOUT", "CHECK", "FOUND"]);
    let mut count = 0;
    for (about, checks) in of_plans.chain(of_zones).chain(of_issuers) {
        count += checks.len();
        for check in checks.iter().filter(|check| all || check.status != Severity::Ok) {
            grid.add_row([
                cell::status(check.status),
                Cell::new(&about),
                Cell::new(check.what.to_string()),
                Cell::new(printable(&check.text)),
            ]);
        }
    }
    let shown = grid.row_count();
    terminal::print(grid, out)?;

    for issuer in surroundings.issuers.iter().filter(|issuer| !issuer.profiles.is_empty()) {
        let profiles: Vec<_> = issuer.profiles.keys().map(|name| printable(name)).collect();
        writeln!(out, "{} offers the profiles {}", issuer.name, profiles.join(", "))?;
    }
    let checks = counted(count as u64, "check", "checks");
    let not_fine = if all {
        String::new()
    } else {
        format!(", {shown} not as it should be")
    };
    writeln!(out, "{checks}{not_fine}")?;
    Ok(())
}

/// The inventory has problems, or an order would.
const PROBLEMS: u8 = 1;
const HELP: &str = "\
Examples:
  neverlapse plan
  neverlapse plan --check                    does anything keep certificates from being issued?
  neverlapse plan example.com --check --all  everything that was looked at
  neverlapse plan --check --format json
  neverlapse plan --stack neverlapse-staging

--check asks DNS, Route 53 (route53:ListHostedZones, GetHostedZone, ListResourceRecordSets) and the issuers' directories from here, \
with your own permissions. It finds for each name the hosted zone of its challenge, by way of CNAMEs; compares the zone's delegation and \
DS records with the zone; reads CAA records as a CA does; and looks for the profiles and the external account binding that are needed.

Exit codes: 0 nothing is wrong, 1 the inventory has problems, a check failed, or what the bucket has of a certificate cannot be read.";
