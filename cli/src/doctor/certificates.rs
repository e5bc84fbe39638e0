//! What is to be watched and renewed: the inventory, issuers, zones, versions, instances.

use neverlapse::bucket::receipt::{self, Receipt};
use neverlapse::bucket::store;
use neverlapse::bucket::version::Current;
use neverlapse::finding::Severity;
use neverlapse::inventory::{Inventory, Managed};
use neverlapse::renewal::Renewal;
use neverlapse::report::Report;
use neverlapse::text::{counted, cut, instance_name, printable};
use neverlapse::timestamp::Timestamp;
use roxmltree::Node;
use serde_json::{Value, json};

use super::Patient;
use super::line::Line;
use crate::plan::check::{Check, What};
use crate::plan::checker::Checker;
use crate::service::{self, IAM, SSM};

/// Everything about certificates; the report is the last run's.
pub(super) async fn examine(patient: &Patient, report: Option<&Report>) -> Vec<Line> {
    let text = match patient.stack.store.inventory().await {
        Ok(text) => text,
        Err(error) => return vec![Line::unknown("inventory", error)],
    };
    let Some(text) = text else {
        return vec![of_no_inventory(
            patient.stack.parameter("Domains"),
            patient.stack.store.bucket(),
        )];
    };

    let inventory = Inventory::parse(&text);
    let mut lines = of_inventory(&inventory);
    let mut instances = 0;
    let certificates: Vec<_> = inventory.certificates.iter().collect();
    match Checker::new(&patient.stack, &inventory, &certificates, patient.nameserver).await {
        Ok(checker) => {
            for certificate in &certificates {
                match examine_certificate(patient, certificate, &checker).await {
                    Ok((found, count)) => {
                        lines.extend(found);
                        instances += count;
                    }
                    Err(error) => lines.push(Line::unknown(about(certificate), error)),
                }
            }
            let around = checker.surroundings(&certificates).await;
            for zone in &around.zones {
                lines.extend(of_all(&format!("zone {}", zone.name), &zone.checks));
            }
            for issuer in &around.issuers {
                lines.extend(of_all(&format!("issuer {}", issuer.name), &issuer.checks));
            }
        }
        Err(error) => lines.push(Line::unknown("certificates", error)),
    }
    if !inventory.certificates.is_empty() {
        lines.extend(examine_readers(patient, instances).await);
    }
    lines.extend(examine_fleet(patient).await);
    if let Some(report) = report {
        lines.push(of_report(report));
        let has_ipv6 = patient.stack.parameter("Ipv6InSubnets") == Some("true");
        lines.extend(of_ipv6(report, has_ipv6));
    }
    lines
}

fn of_no_inventory(domains: Option<&str>, bucket: &str) -> Line {
    let about = "inventory";
    match domains {
        Some(_) => Line::ok(about, "the parameter Domains; there is no inventory.toml"),
        None => Line::critical(
            about,
            "there is no inventory.toml, and the parameter Domains is empty",
            "nothing is watched, and every run fails",
            format!("aws s3 cp inventory.toml s3://{bucket}/inventory.toml"),
        ),
    }
}

fn of_inventory(inventory: &Inventory) -> Vec<Line> {
    let about = "inventory";
    let mut lines: Vec<_> = inventory
        .problems
        .iter()
        .take(SHOWN)
        .map(|problem| {
            Line::critical(
                about,
                cut(&printable(&problem.to_string()), LENGTH),
                "that entry is not watched or not renewed",
                "correct it; neverlapse validate inventory.toml says whether it is right now",
            )
        })
        .collect();

    let mail = inventory.watched.iter().filter(|watched| watched.endpoint.port == SMTP);
    lines.extend(mail.take(SHOWN).map(|watched| {
        Line::warning(
            about,
            format!("{} is on port 25", watched.endpoint),
            "AWS lets no function connect to port 25",
            "watch port 587 or 465 of that server, or run neverlapse check for it on a host of yours",
        )
    }));
    if lines.is_empty() {
        let endpoints = inventory.watched.len();
        let certificates = inventory.certificates.len();
        lines.push(Line::ok(
            about,
            format!("{endpoints} endpoints, {certificates} certificates"),
        ));
    }
    lines
}

/// What is wrong with a certificate, and how many instances report about it.
async fn examine_certificate(
    patient: &Patient,
    certificate: &Managed,
    checker: &Checker<'_>,
) -> Result<(Vec<Line>, usize), store::Error> {
    let store = &patient.stack.store;
    let name = &certificate.name;
    let about = about(certificate);
    let current = patient.stack.current(name).await?;
    let renewal = patient.stack.renewal(name).await?;

    let mut lines = of_versions(&about, name, current.as_ref(), renewal.as_ref(), patient.now);
    let facts = current.as_ref().map(|current| &current.facts);
    lines.extend(of_checks(&about, &checker.certificate(certificate, facts).await));

    let keys = store.keys(&receipt::prefix(name)).await?;
    for key in &keys {
        let Some(instance) = receipt::instance(name, key) else {
            continue;
        };
        match store.object(key, receipt::LONGEST).await {
            Ok(json) => lines.extend(of_receipt(
                &about,
                name,
                instance,
                &json.unwrap_or_default(),
                patient.now,
            )),
            Err(error) => lines.push(Line::unknown(&about, error)),
        }
    }
    if lines.is_empty() {
        let until = current
            .map(|current| current.facts.not_after.to_string())
            .unwrap_or_default();
        lines.push(Line::ok(
            about,
            format!("valid until {until}; {} instances report", keys.len()),
        ));
    }
    Ok((lines, keys.len()))
}

fn about(certificate: &Managed) -> String {
    format!("certificate {}", certificate.name)
}

fn of_versions(
    about: &str,
    name: &str,
    current: Option<&Current>,
    renewal: Option<&Renewal>,
    now: Timestamp,
) -> Vec<Line> {
    let mut lines = Vec::new();
    let fix = format!("correct what it says, then neverlapse renew {name} --force");
    if let Some(failure) = renewal.and_then(|renewal| renewal.failure.as_ref()) {
        let problem = cut(&printable(&failure.problem), LENGTH);
        let found = format!(
            "its renewal has failed {} since {}: {problem}",
            counted(failure.count.into(), "time", "times"),
            failure.since
        );
        lines.push(Line::critical(about, found, "it expires unless that is corrected", fix));
    }

    match current {
        None if lines.is_empty() => lines.push(Line::warning(
            about,
            "it was never issued",
            "instances have nothing to install",
            format!("neverlapse renew {name}, and see neverlapse plan"),
        )),
        Some(current) if current.facts.not_after < now => lines.push(Line::critical(
            about,
            format!("it expired at {}", current.facts.not_after),
            "clients refuse it",
            format!("neverlapse renew {name} --force"),
        )),
        _ => {}
    }
    lines
}

fn of_receipt(about: &str, name: &str, instance: &str, json: &[u8], now: Timestamp) -> Option<Line> {
    let people = instance_name(instance);

    match Receipt::read(name, instance, json) {
        Err(problem) => Some(Line::warning(
            about,
            format!("the receipt of {people} cannot be read: {problem}"),
            "it is not known what that instance serves",
            format!("neverlapse pull --now on {people}, of a current version"),
        )),
        Ok(receipt) if receipt.stage == receipt::Stage::Failed => Some(Line::critical(
            about,
            format!(
                "{people} could not install it: {}",
                receipt.reason.as_deref().unwrap_or("no reason is given")
            ),
            "it goes on with the version before",
            format!("correct what it says, then neverlapse pull --now on {people}"),
        )),
        Ok(receipt) if receipt.next_by < now => Some(Line::warning(
            about,
            format!("{people} has not reported since {}", receipt.at),
            "it may serve an old certificate",
            format!(
                "systemctl status neverlapse-pull.timer on {people}; if it is gone for good, aws s3 rm its receipt"
            ),
        )),
        Ok(_) => None,
    }
}

/// What keeps a certificate from being ordered.
fn of_checks(about: &str, checks: &[Check]) -> Vec<Line> {
    let wrong = checks.iter().filter(|check| check.status != Severity::Ok);
    wrong.map(|check| of_check(about, check)).collect()
}

/// What keeps certificates from being ordered in a zone or from an issuer, or a line that nothing
/// does.
fn of_all(about: &str, checks: &[Check]) -> Vec<Line> {
    let mut lines = of_checks(about, checks);
    if lines.is_empty() {
        let texts: Vec<_> = checks.iter().map(|check| check.text.as_str()).collect();
        lines.push(Line::ok(about, texts.join("; ")));
    }
    lines
}

fn of_check(about: &str, Check { what, status, text }: &Check) -> Line {
    let (why, fix) = match what {
        What::Zone => (
            "the renewer has nowhere to write the challenge",
            "make the hosted zone, or lead _acme-challenge by a CNAME into one that there is (docs/renewal.md)",
        ),
        What::Delegation => (
            "CAs ask other name servers, and do not see the challenge",
            "name the hosted zone's servers at the domain's registrar, or in the zone above it",
        ),
        What::Dnssec => (
            "CAs cannot look up any name in it",
            "correct the DS record at the domain's registrar, or remove it; aws route53 get-dnssec shows what the zone signs with",
        ),
        What::Caa => (
            "the CA refuses to issue",
            "add a CAA record that allows it, or name another issuer in the inventory",
        ),
        What::Profile => (
            "the CA refuses the order",
            "name a profile that it offers, or write preferred_profile instead",
        ),
        What::Directory => (
            "if that is so from Lambda too, nothing is renewed",
            "correct directory or ca in the inventory, or the network; neverlapse renew NAME --dry-run tries it from Lambda",
        ),
        What::Eab => (
            "no account can be made, and nothing is issued",
            "put accounts/ISSUER/eab.json into the bucket, under SecretsKeyArn (docs/renewal.md)",
        ),
    };
    Line {
        status: *status,
        ..Line::critical(about, format!("{what}: {text}"), why, fix)
    }
}

/// Whether any role has the reader policy. Instances with a policy of their own report, too.
async fn examine_readers(patient: &Patient, instances: usize) -> Option<Line> {
    let about = "reader policy";
    let arn = patient.stack.output("ReaderPolicyArn").ok()?;
    let call = [
        ("Action", "ListEntitiesForPolicy"),
        ("Version", "2010-05-08"),
        ("PolicyArn", arn),
    ];
    let answer = patient.stack.services.query(IAM, &call).await;
    let read = answer.and_then(|xml| Ok(of_readers(arn, service::document(&xml)?.root_element(), instances)));
    Some(read.unwrap_or_else(|refused| Line::unknown(about, refused)))
}

fn of_readers(arn: &str, answer: Node<'_, '_>, instances: usize) -> Line {
    let about = "reader policy";
    let attached: Vec<_> = ["RoleName", "UserName", "GroupName"]
        .into_iter()
        .flat_map(|name| service::elements(answer, name))
        .filter_map(|holder| holder.text())
        .collect();

    if attached.is_empty() && instances == 0 {
        return Line::warning(
            about,
            "it is attached to nothing, and no instance reports",
            "nobody can install what is renewed",
            format!("aws iam attach-role-policy --policy-arn {arn} --role-name ROLE-OF-YOUR-INSTANCES"),
        );
    }
    let attached = if attached.is_empty() {
        "nothing; instances have a policy of their own".to_owned()
    } else {
        attached.join(", ")
    };
    Line::ok(about, format!("attached to {attached}"))
}

/// What came of the last try of Systems Manager to install the client.
async fn examine_fleet(patient: &Patient) -> Option<Line> {
    let id = patient.resource("FleetAssociation")?;
    let query = json!({ "AssociationId": id });
    let answer = patient
        .stack
        .services
        .json(SSM, "AmazonSSM.DescribeAssociation", &query)
        .await;
    Some(match answer {
        Ok(answer) => of_association(id, &answer["AssociationDescription"]["Overview"]),
        Err(refused) => Line::unknown("fleet", refused),
    })
}

fn of_association(id: &str, overview: &Value) -> Line {
    let about = "fleet";
    let status = overview["Status"].as_str().unwrap_or("Pending");
    let counts = &overview["AssociationStatusAggregatedCount"];
    if status == "Failed" {
        return Line::warning(
            about,
            format!("Systems Manager could not install the client everywhere: {counts}"),
            "instances go on with another release, or none",
            format!(
                "aws ssm describe-association-executions --association-id {id}, and describe-association-execution-targets say on which; \
                 the output on the instance says why"
            ),
        );
    }
    Line::ok(about, format!("Systems Manager: {status} {counts}"))
}

/// What the last run could not see of the network.
fn of_report(report: &Report) -> Line {
    if report.not_reached.is_empty() {
        return Line::ok(
            "endpoints",
            format!(
                "{} were checked in the last run",
                report.endpoints.len() + report.omitted
            ),
        );
    }
    Line::warning(
        "endpoints",
        format!(
            "{} were not reached before the last run's time was over",
            report.not_reached.len()
        ),
        "nobody watches them",
        "split the inventory over two stacks, or find what is slow: the report says how long each took",
    )
}

/// The IPv6 addresses that the last run had no route to.
fn of_ipv6(report: &Report, has_ipv6: bool) -> Option<Line> {
    let about = "IPv6";
    let skipped = report.endpoints.iter().flat_map(|endpoint| &endpoint.skipped);
    let skipped = skipped.filter(|skipped| skipped.address.is_ipv6()).count();
    if skipped == 0 {
        return None;
    }

    let found = format!("{skipped} addresses were skipped in the last run");
    if has_ipv6 {
        return Some(Line::warning(
            about,
            format!("{found}, although Ipv6InSubnets is true"),
            "what they serve is not looked at",
            "route ::/0 of these subnets to an egress-only internet gateway, and allow it in the security groups",
        ));
    }
    Some(Line::ok(
        about,
        format!("{found}: Lambda has IPv6 only in subnets that have it (Ipv6InSubnets)"),
    ))
}

const SMTP: u16 = 25;
const SHOWN: usize = 5;
const LENGTH: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_local_stack_cannot_show() {
        let failed = json!({"Status": "Failed", "AssociationStatusAggregatedCount": {"Failed": 1, "Success": 2}});
        assert_eq!(of_association("id", &failed).status, Severity::Warning);
        let succeeded = json!({"Status": "Success", "AssociationStatusAggregatedCount": {"Success": 3}});
        assert_eq!(of_association("id", &succeeded).status, Severity::Ok);

        let at = Timestamp::now();
        let endpoint = json!({"endpoint": "a.example:443", "status": "ok", "findings": [], "observations": [],
            "skipped": [{"address": "2001:db8::1", "reason": "no route"}, {"address": "192.0.2.1", "reason": "too many"}]});
        let report = Report::new(at, at, vec![serde_json::from_value(endpoint).unwrap()]);
        assert_eq!(of_ipv6(&report, true).unwrap().status, Severity::Warning);
        assert!(of_ipv6(&report, false).unwrap().found.starts_with("1 addresses"));

        let xml = "<PolicyRoles><member><RoleName>web</RoleName><RoleId>A</RoleId></member></PolicyRoles>";
        let readers = |xml, instances| of_readers("arn", service::document(xml).unwrap().root_element(), instances);
        assert_eq!(readers(xml, 0).found, "attached to web");
        assert_eq!(readers("<PolicyRoles/>", 0).status, Severity::Warning);
        assert_eq!(readers("<PolicyRoles/>", 2).status, Severity::Ok);
    }
}
