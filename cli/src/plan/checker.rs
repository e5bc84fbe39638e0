//! What an order depends on, looked at before it is made: zones and CNAMEs, delegation and DNSSEC,
//! CAA, profiles.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use neverlapse::bucket::version::Facts;
use neverlapse::dns::caa::{self, Asking};
use neverlapse::dns::dnssec::{self, Chain};
use neverlapse::dns::path::{Path, path};
use neverlapse::dns::zone::{HostedZone, Zones};
use neverlapse::dns::{Absent, Dns, plain};
use neverlapse::finding::Severity;
use neverlapse::inventory::{self, Inventory, Managed};
use schemars::JsonSchema;
use serde::Serialize;

use super::check::{Check, What};
use super::issuer::IssuerPlan;
use crate::stack::Stack;

/// A hosted zone in which challenges are written.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ZonePlan {
    pub(crate) name: String,
    /// Route 53's, such as `Z0123456789ABC`.
    pub(crate) id: String,
    /// Its delegation and DNSSEC.
    pub(crate) checks: Vec<Check>,
}

/// What was looked at besides the certificates.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Surroundings {
    /// Those that the certificates are ordered from.
    pub(crate) issuers: Vec<IssuerPlan>,
    /// Those in which their challenges are written.
    pub(crate) zones: Vec<ZonePlan>,
}

/// Looks at everything that the orders of some certificates depend on.
pub(crate) struct Checker<'a> {
    inventory: &'a Inventory,
    dns: Dns,
    /// Those of the account that is asked from here; the renewer may have roles for others.
    zones: Result<Zones, String>,
    issuers: BTreeMap<String, IssuerPlan>,
}

impl<'a> Checker<'a> {
    /// Asks Route 53 and the issuers of the certificates.
    pub(crate) async fn new(
        stack: &Stack,
        inventory: &'a Inventory,
        certificates: &[&Managed],
        nameserver: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let dns = Dns::new(nameserver)?;
        // The renewer's roles do not trust whoever asks here.
        let own: Vec<_> = inventory
            .zones
            .iter()
            .filter(|zone| zone.role_arn.is_none())
            .cloned()
            .collect();
        let zones = Zones::list(&stack.config, &own).await;

        let mut issuers = BTreeMap::new();
        for name in certificates.iter().flat_map(|certificate| &certificate.issuers) {
            if let (false, Some(issuer)) = (issuers.contains_key(name), inventory.issuers.get(name)) {
                issuers.insert(name.clone(), IssuerPlan::look(issuer, &stack.store).await);
            }
        }
        Ok(Self {
            inventory,
            dns,
            zones: zones.map_err(|error| error.to_string()),
            issuers,
        })
    }

    /// The checks of one certificate. `current` is its current version.
    pub(crate) async fn certificate(&self, certificate: &Managed, current: Option<&Facts>) -> Vec<Check> {
        let mut checks = self.profiles(certificate);
        let names = certificate.identifiers.iter();
        let of_names = stream::iter(names)
            .map(|name| async move {
                if name.parse::<IpAddr>().is_ok() {
                    let text = format!("control of the address {name} cannot be proved by DNS-01 (expected a name)");
                    return vec![Check::critical(What::Zone, text)];
                }
                let mut checks = vec![self.placed(name).await];
                checks.extend(self.caa(name, certificate, current).await);
                checks
            })
            .buffered(AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        for check in of_names.into_iter().flatten() {
            // Apex and wildcard have one challenge name.
            if !checks.contains(&check) {
                checks.push(check);
            }
        }
        checks
    }

    /// The zones in which challenges of the certificates are written, and the issuers.
    pub(crate) async fn surroundings(self, certificates: &[&Managed]) -> Surroundings {
        let mut zones = BTreeMap::new();
        for name in certificates.iter().flat_map(|certificate| &certificate.identifiers) {
            if let Ok(Some(zone)) = self.target(name).await.map(|target| target.zone) {
                zones.insert(zone.id.clone(), zone);
            }
        }
        let zones = join_all(zones.into_values().map(|zone| self.zone(zone))).await;
        Surroundings {
            zones,
            issuers: self.issuers.into_values().collect(),
        }
    }

    /// Whether the issuers offer what the inventory asks for.
    fn profiles(&self, certificate: &Managed) -> Vec<Check> {
        let mut checks = Vec::new();
        for name in &certificate.issuers {
            let (Some(issuer), Some(plan)) = (self.inventory.issuers.get(name), self.issuers.get(name)) else {
                continue;
            };
            let (Some(profile), Some(_)) = (certificate.profile_at(issuer), &plan.caa_identities) else {
                continue;
            };
            let wanted = &profile.name;
            checks.push(if plan.profiles.contains_key(wanted) {
                Check::ok(What::Profile, format!("{name} offers {wanted}"))
            } else if profile.is_required {
                let offered: Vec<_> = plan.profiles.keys().map(String::as_str).collect();
                let offered = if offered.is_empty() {
                    "none".to_owned()
                } else {
                    offered.join(", ")
                };
                let text = format!("{name} does not offer {wanted:?} (it offers: {offered})");
                Check::of(What::Profile, severity(certificate), text)
            } else {
                Check::ok(
                    What::Profile,
                    format!("{name} does not offer {wanted}, so none is ordered"),
                )
            });
        }
        checks
    }

    /// Where the challenge of a name is written.
    async fn placed(&self, name: &str) -> Check {
        let target = match self.target(name).await {
            Ok(target) => target,
            Err(check) => return check,
        };
        let path = target.path.join(" -> ");
        match (target.zone, target.role) {
            (Some(zone), _) => Check::ok(
                What::Zone,
                format!("{path} is in hosted zone {} ({})", zone.name, zone.id),
            ),
            (None, Some(role)) => Check::unknown(
                What::Zone,
                format!("{path} is in a zone behind {role}, which only the renewer assumes"),
            ),
            (None, None) => Check::critical(What::Zone, format!("{path} is in no zone")),
        }
    }

    async fn target(&self, name: &str) -> Result<Target<'_>, Check> {
        let zones = self
            .zones
            .as_ref()
            .map_err(|problem| Check::unknown(What::Zone, problem))?;
        let challenge = format!("_acme-challenge.{}", name.trim_start_matches("*."));
        let path = path(&challenge, zones, &self.dns)
            .await
            .map_err(|error| Check::unknown(What::Zone, error.to_string()))?;
        let Path { names, cut } = path;
        let end = names.last().unwrap_or(&challenge);

        let found = zones.of(end);
        let behind = self.behind_a_role(end);
        // The world asks the nearer one, and the inventory says where that is.
        if let Some(entry) = behind
            && !found.as_ref().is_ok_and(|zone| zone.name.len() > entry.name.len())
        {
            return Ok(Target {
                path: names,
                zone: None,
                role: entry.role_arn.as_deref(),
            });
        }
        let problem = match (found, cut) {
            (Ok(zone), None) => {
                return Ok(Target {
                    path: names,
                    zone: Some(zone),
                    role: None,
                });
            }
            (_, Some(why)) => why,
            (Err(error), None) => error.to_string(),
        };
        let origin = if names.len() > 1 {
            format!("{}: ", names.join(" -> "))
        } else {
            String::new()
        };
        Err(Check::critical(What::Zone, format!("{origin}{problem}")))
    }

    /// The longest of the inventory's zones with a role that holds a name.
    fn behind_a_role(&self, name: &str) -> Option<&inventory::Zone> {
        let entries = self.inventory.zones.iter().filter(|entry| {
            let zone = plain(&entry.name);
            entry.role_arn.is_some() && (name == zone || name.ends_with(&format!(".{zone}")))
        });
        entries.max_by_key(|entry| entry.name.len())
    }

    /// Whether CAA lets each of the certificate's issuers issue for a name.
    async fn caa(&self, name: &str, certificate: &Managed, current: Option<&Facts>) -> Vec<Check> {
        let records = match caa::look_up(name, &self.dns).await {
            Ok(Some(records)) => records,
            Ok(None) => {
                return vec![Check::ok(
                    What::Caa,
                    format!("{name}: no records, so every CA may issue"),
                )];
            }
            Err(problem) => {
                let text = format!("{problem}; a CA that gets no answer either does not issue");
                return vec![Check::unknown(What::Caa, text)];
            }
        };

        let domain = &records.domain;
        let mut checks = Vec::new();
        for issuer in &certificate.issuers {
            let identities = self.issuers.get(issuer).and_then(|plan| plan.caa_identities.as_deref());
            let Some(identities) = identities else {
                let text = format!("{name}: {domain} has records, and the directory of {issuer} cannot be read");
                checks.push(Check::unknown(What::Caa, text));
                continue;
            };
            if identities.is_empty() {
                let text = format!("{name}: {domain} has records, and {issuer} does not say which of them name it");
                checks.push(Check::unknown(What::Caa, text));
                continue;
            }
            let asking = Asking {
                identities,
                account: current
                    .filter(|facts| facts.issuer.name == *issuer)
                    .map(|facts| facts.issuer.account.as_str()),
                is_wildcard: name.starts_with("*."),
            };
            checks.push(match records.allow(&asking) {
                Ok(()) => Check::ok(What::Caa, format!("{name}: {domain} allows {issuer}")),
                Err(refusal) => {
                    let identities = identities.join(" or ");
                    let text = format!("{name}: {domain} keeps {issuer} ({identities}) from issuing: {refusal}");
                    Check::of(What::Caa, severity(certificate), text)
                }
            });
        }
        checks
    }

    async fn zone(&self, zone: &HostedZone) -> ZonePlan {
        let checks = vec![self.delegation(zone).await, self.dnssec(zone).await];
        ZonePlan {
            name: zone.name.clone(),
            id: zone.id.clone(),
            checks,
        }
    }

    /// Whether the world asks the name servers of this very zone.
    async fn delegation(&self, zone: &HostedZone) -> Check {
        let own = match zone.name_servers().await {
            Ok(own) => own,
            Err(error) => return Check::unknown(What::Delegation, error.to_string()),
        };
        let delegated = match self.dns.delegated_to(&zone.name).await {
            Ok(delegated) => delegated,
            Err(Absent::NoName | Absent::NoRecord) => Vec::new(),
            Err(Absent::Failed(reason)) => {
                return Check::unknown(What::Delegation, format!("the NS records of {}: {reason}", zone.name));
            }
        };

        if delegated.iter().any(|server| own.contains(server)) {
            return Check::ok(
                What::Delegation,
                format!("{} is delegated to this hosted zone", zone.name),
            );
        }
        let delegated = if delegated.is_empty() {
            "nobody".to_owned()
        } else {
            delegated.join(", ")
        };
        Check::critical(
            What::Delegation,
            format!(
                "{} is delegated to {delegated}, and not to the name servers of this hosted zone ({})",
                zone.name,
                own.join(", ")
            ),
        )
    }

    async fn dnssec(&self, zone: &HostedZone) -> Check {
        let name = &zone.name;
        match dnssec::look_up(name, &self.dns).await {
            Ok(Chain::Unsigned) => Check::ok(What::Dnssec, format!("{name} is not signed")),
            Ok(Chain::Fits) => Check::ok(
                What::Dnssec,
                format!("{name} is signed, and its keys fit the DS records"),
            ),
            Ok(Chain::Broken(problem)) => {
                Check::critical(What::Dnssec, format!("{name}: {problem}, so no CA can look it up"))
            }
            Err(problem) => Check::unknown(What::Dnssec, problem),
        }
    }
}

/// Where a challenge leads.
struct Target<'a> {
    path: Vec<String>,
    zone: Option<&'a HostedZone>,
    /// The role that the zone is behind.
    role: Option<&'a str>,
}

/// How bad it is that one issuer cannot issue: the next one may.
fn severity(certificate: &Managed) -> Severity {
    if certificate.issuers.len() > 1 {
        Severity::Warning
    } else {
        Severity::Critical
    }
}

const AT_ONCE: usize = 8;
