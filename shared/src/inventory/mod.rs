//! The inventory: what is to be watched and renewed. A person writes it as `inventory.toml`.

mod parse;
mod problem;
mod written;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

pub use self::problem::Problem;
use crate::ehlo::Ehlo;
use crate::endpoint::{Endpoint, Host};
use crate::finding::Thresholds;

/// What is to be watched and renewed, and what of the file could not be used.
///
/// [`Inventory::parse`] reads each entry on its own: one that is wrong is a [`Problem`] and leaves
/// the others as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// Where it was written.
    pub source: Source,
    /// The thresholds of entries that set none of their own.
    pub thresholds: Thresholds,
    /// Everything to probe: the endpoints, and where certificates are served.
    pub watched: Vec<Watched>,
    /// Certificates to renew and deliver.
    pub certificates: Vec<Managed>,
    /// Issuers by name, the built-in ones included.
    pub issuers: BTreeMap<String, Issuer>,
    /// Hosted zones of other accounts, and those whose name is not unique.
    pub zones: Vec<Zone>,
    /// What could not be used, in the order of its lines.
    pub problems: Vec<Problem>,
}

/// Where an inventory was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// In an `inventory.toml`.
    #[default]
    File,
    /// In the template's parameter `Domains`.
    Domains,
}

/// Something to probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    /// Where to connect.
    pub endpoint: Endpoint,
    /// The name to ask for, if it is not the host's.
    pub sni: Option<Host>,
    /// The addresses to connect to, instead of those in DNS.
    pub addresses: Vec<IpAddr>,
    /// How long an address may take in all, if it is not as long as usual.
    pub timeout: Option<Duration>,
    /// The name to give a mail server, if it is not the usual one.
    pub ehlo: Option<Ehlo>,
    /// The PEM files with this endpoint's own roots, and those of the issuers of what is served
    /// there: keys in the bucket, or paths relative to a local inventory.
    pub ca: Vec<String>,
    /// How close an expiry has to be for a finding.
    pub thresholds: Thresholds,
    /// Whether its findings are in the report only, without alerts.
    pub quiet: bool,
    /// Where it was written.
    pub line: Option<usize>,
}

/// A certificate to renew, deliver and watch.
///
/// The renewer orders it and stores each version under its name in the bucket; instances install
/// the current version; the probe checks that it is served. See [`crate::renewal`] and
/// [`crate::delivery`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    /// Its folder in the bucket and on instances.
    pub name: String,
    /// DNS names, wildcards and addresses, in ASCII.
    pub identifiers: Vec<String>,
    /// The endpoints that serve it.
    pub served_at: Vec<Endpoint>,
    /// Issuers by name, in the order in which to try them.
    pub issuers: Vec<String>,
    /// The key to generate.
    pub key_type: KeyType,
    /// The profile to order from every issuer, instead of each one's own.
    pub profile: Option<Profile>,
    /// Whether the next version keeps the key of the current one.
    pub reuse_key: bool,
    /// How long a new version may take until every instance and address serves it.
    pub deliver_within: time::Duration,
    /// How close an expiry has to be for a finding.
    pub thresholds: Thresholds,
    /// Whether findings about it, and where it is served, are in the report only, without alerts.
    pub quiet: bool,
    /// Where it was written.
    pub line: Option<usize>,
}

/// An ACME profile, by the name that a CA gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Such as `shortlived`.
    pub name: String,
    /// Whether a CA that does not offer it is not to issue at all.
    pub is_required: bool,
}

/// The key to generate for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyType {
    /// ECDSA on the curve P-256.
    #[default]
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// ECDSA on the curve P-384.
    #[serde(rename = "ecdsa-p384")]
    EcdsaP384,
    /// RSA with 2,048 bits.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// RSA with 4,096 bits.
    #[serde(rename = "rsa-4096")]
    Rsa4096,
}

/// A certification authority that speaks ACME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Its name in the inventory: `[issuer.NAME]`.
    pub name: String,
    /// URL of its directory (RFC 8555, 7.1.1).
    pub directory: String,
    /// `mailto:` URLs for the account.
    pub contact: Vec<String>,
    /// Whether the account needs an external account binding (RFC 8555, 7.3.4).
    pub eab: bool,
    /// For a private CA, the PEM file with the roots of its directory and of its certificates: a
    /// key in the bucket.
    pub ca: Option<String>,
    /// Whether clients are not meant to trust what it issues.
    pub staging: bool,
    /// URL of the directory that a dry run orders from.
    pub staging_directory: Option<String>,
    /// The profile to order, if the certificate names none.
    pub profile: Option<String>,
    /// The profile to order if the certificate names none and the CA offers it.
    pub preferred_profile: Option<String>,
    /// The common name of the root at which the chain is to end, if the CA offers such a chain.
    pub preferred_chain: Option<String>,
}

/// How to reach a hosted zone of another account, or one whose name is not unique.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// The zone's name.
    pub name: String,
    /// Its id, without `/hostedzone/`, where several zones have that name.
    pub id: Option<String>,
    /// The role to assume for it.
    pub role_arn: Option<String>,
    /// The external id that the role requires (`sts:ExternalId`).
    pub external_id: Option<String>,
}

impl Inventory {
    /// The JSON Schema of `inventory.toml`.
    pub fn schema() -> Schema {
        schemars::schema_for!(written::WrittenInventory)
    }

    /// An inventory with the built-in issuers and nothing to watch.
    fn empty(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            issuers: Issuer::built_in(),
            ..Self::default()
        }
    }

    /// The inventory of a list of endpoints, separated by commas or white space.
    pub fn of_endpoints(list: &str, thresholds: Thresholds) -> Self {
        let mut inventory = Self {
            source: Source::Domains,
            ..Self::empty(thresholds)
        };
        for text in list.split([',', ' ', '\t', '\n', '\r']).filter(|text| !text.is_empty()) {
            match text.parse::<Endpoint>() {
                Ok(endpoint) => inventory.watch(Watched::plain(endpoint, thresholds, None)),
                Err(error) => inventory.problems.push(Problem::new(format!("Domains: {error}"))),
            }
        }
        inventory
    }

    /// Watches an endpoint the way that another inventory does, or plainly if that does not have
    /// it.
    pub fn watch_as_in(&mut self, other: &Inventory, endpoint: Endpoint) {
        let known: Vec<_> = other
            .watched
            .iter()
            .filter(|watched| watched.endpoint == endpoint)
            .cloned()
            .collect();

        if known.is_empty() {
            self.watch(Watched::plain(endpoint, self.thresholds, None));
        }
        for watched in known {
            self.watch(watched);
        }
    }

    /// Adds what is not there yet: an endpoint and a certificate may name the same place.
    fn watch(&mut self, new: Watched) {
        if !self.watched.iter().any(|old| old.covers(&new)) {
            self.watched.push(new);
        }
    }
}

impl Watched {
    fn plain(endpoint: Endpoint, thresholds: Thresholds, line: Option<usize>) -> Self {
        Self {
            endpoint,
            sni: None,
            addresses: Vec::new(),
            timeout: None,
            ehlo: None,
            ca: Vec::new(),
            thresholds,
            quiet: false,
            line,
        }
    }

    /// Whether it is probed where `new` would be: at the same place, or at addresses of its own
    /// where `new` leaves that to DNS.
    fn covers(&self, new: &Self) -> bool {
        let is_plain = new.sni.is_none() && new.addresses.is_empty();
        self.endpoint == new.endpoint && self.sni == new.sni && (is_plain || self.addresses == new.addresses)
    }
}

impl Managed {
    /// The profile to order from an issuer.
    pub fn profile_at(&self, issuer: &Issuer) -> Option<Profile> {
        let own = self.profile.clone();
        own.or_else(|| Profile::of(issuer.profile.clone(), issuer.preferred_profile.clone()))
    }
}

impl Profile {
    /// From the two keys that a person may write: the required profile, or else the preferred one.
    fn of(required: Option<String>, preferred: Option<String>) -> Option<Self> {
        let is_required = required.is_some();
        required.or(preferred).map(|name| Self { name, is_required })
    }

    /// Whether a certificate of this profile, or of none, is what is wanted.
    pub fn is_met(wanted: Option<&Self>, by: Option<&str>) -> bool {
        let is_preferred = wanted.is_some_and(|wanted| !wanted.is_required);
        by == wanted.map(|wanted| wanted.name.as_str()) || (by.is_none() && is_preferred)
    }
}

impl Issuer {
    /// Those that every inventory has, by name.
    fn built_in() -> BTreeMap<String, Self> {
        let letsencrypt = Self {
            staging_directory: Some(STAGING_DIRECTORY.to_owned()),
            ..Self::public(DEFAULT_ISSUER, "https://acme-v02.api.letsencrypt.org/directory")
        };
        let staging = Self {
            staging: true,
            ..Self::public("letsencrypt-staging", STAGING_DIRECTORY)
        };
        [letsencrypt, staging]
            .map(|issuer| (issuer.name.clone(), issuer))
            .into()
    }

    fn public(name: &str, directory: &str) -> Self {
        Self {
            name: name.to_owned(),
            directory: directory.to_owned(),
            contact: Vec::new(),
            eab: false,
            ca: None,
            staging: false,
            staging_directory: None,
            profile: None,
            preferred_profile: None,
            preferred_chain: None,
        }
    }
}

/// As in JSON.
impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

const DEFAULT_ISSUER: &str = "letsencrypt";
const STAGING_DIRECTORY: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preferred_profile_is_met_by_none() {
        let text = "[[certificate]]\nidentifiers = [\"a.b\"]\nissuers = [\"own\"]\n";
        let own = "[issuer.own]\ndirectory = \"https://ca.example/dir\"\n";
        for (certificate, issuer, met, unmet) in [
            ("", "", vec![None], vec![Some("short")]),
            (
                "profile = \"short\"",
                "profile = \"long\"",
                vec![Some("short")],
                vec![None, Some("long")],
            ),
            ("", "profile = \"long\"", vec![Some("long")], vec![None]),
            (
                "preferred_profile = \"short\"",
                "",
                vec![Some("short"), None],
                vec![Some("long")],
            ),
            (
                "",
                "preferred_profile = \"short\"",
                vec![Some("short"), None],
                vec![Some("long")],
            ),
        ] {
            let inventory = Inventory::parse(&format!("{text}{certificate}\n{own}{issuer}\n"));
            assert_eq!(inventory.problems, []);
            let wanted = inventory.certificates[0].profile_at(&inventory.issuers["own"]);
            assert!(met.iter().all(|by| Profile::is_met(wanted.as_ref(), *by)), "{wanted:?}");
            assert!(
                !unmet.iter().any(|by| Profile::is_met(wanted.as_ref(), *by)),
                "{wanted:?}"
            );
        }
    }

    #[test]
    fn domains_of_the_template_are_an_inventory() {
        let inventory = Inventory::of_endpoints("a.example, b.example:8443\nexmple:https", Thresholds::default());
        assert_eq!(inventory.watched.len(), 2);
        assert_eq!(inventory.problems.len(), 1);
        assert!(inventory.problems[0].to_string().contains("exmple:https"));
    }
}
