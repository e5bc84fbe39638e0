//! The tables of `inventory.toml` as people write them. Their descriptions are in the JSON Schema
//! that `neverlapse schema inventory` prints.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::{KeyType, Zone};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenEndpoint {
    /// A name, an address, or an endpoint such as `smtp://mail.example.com:587`.
    #[schemars(with = "String")]
    pub(super) host: Spanned<String>,
    /// Default: 443, or the usual port of the protocol in `starttls`.
    #[schemars(with = "Option<NonZeroU16>")]
    pub(super) port: Option<Spanned<u16>>,
    /// The name to send in the handshake and to judge by. Default: the host.
    #[schemars(with = "Option<String>")]
    pub(super) sni: Option<Spanned<String>>,
    /// The protocol that is spoken before TLS.
    #[schemars(with = "Option<String>", extend("enum" = ["smtp", "imap", "pop3", "ftp", "ldap", "postgres", "mysql", "lmtp", "nntp", "sieve", "xmpp", "xmpp-server", null]))]
    pub(super) starttls: Option<Spanned<String>>,
    /// Connect to these addresses instead of those in DNS.
    #[serde(default)]
    #[schemars(with = "Vec<IpAddr>")]
    pub(super) addresses: Vec<Spanned<String>>,
    /// Limit for each address, all steps together. Default: 15.
    #[schemars(with = "Option<u64>", extend("minimum" = 1, "maximum" = 300))]
    pub(super) timeout_seconds: Option<Spanned<u64>>,
    /// The name to send mail servers in EHLO. Default: the address that they see.
    #[schemars(with = "Option<String>")]
    pub(super) ehlo: Option<Spanned<String>>,
    /// Trust the roots in this PEM file too: an object in the bucket, under `ca/`.
    pub(super) ca: Option<String>,
    /// Warn when fewer days are left. Default: that of the inventory.
    #[schemars(with = "Option<u32>")]
    pub(super) warn_days: Option<Spanned<u32>>,
    /// Critical when fewer days are left. Default: that of the inventory.
    #[schemars(with = "Option<u32>")]
    pub(super) critical_days: Option<Spanned<u32>>,
    /// In the report only, without alerts.
    #[serde(default)]
    pub(super) quiet: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenCertificate {
    /// The names that it is for; wildcards such as `*.example.com` are allowed.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(super) identifiers: Spanned<Vec<Spanned<String>>>,
    /// Its folder in the bucket and on instances. Default: the first identifier without `*.`.
    #[schemars(with = "Option<String>", regex(pattern = "^[a-z0-9_-][a-z0-9._-]*$"))]
    pub(super) name: Option<Spanned<String>>,
    /// The endpoints that serve it. Default: its identifiers that are no wildcards.
    #[schemars(with = "Option<Vec<String>>")]
    pub(super) served_at: Option<Vec<Spanned<String>>>,
    /// Issuers by name, in the order in which to try them. Default: `letsencrypt`.
    #[schemars(with = "Option<Vec<String>>")]
    pub(super) issuers: Option<Spanned<Vec<Spanned<String>>>>,
    /// The key to generate.
    #[serde(default)]
    pub(super) key_type: KeyType,
    /// An ACME profile of the CA, by its name. A CA that does not offer it does not issue.
    #[schemars(with = "Option<String>", length(min = 1))]
    pub(super) profile: Option<Spanned<String>>,
    /// An ACME profile to order only where the CA offers it.
    #[schemars(with = "Option<String>", length(min = 1))]
    pub(super) preferred_profile: Option<Spanned<String>>,
    /// Whether the next version keeps the key of the current one.
    #[serde(default)]
    pub(super) reuse_key: bool,
    /// How long a new version may take until every instance and address serves it. Default: 24.
    #[schemars(with = "Option<NonZeroU16>")]
    pub(super) deliver_within_hours: Option<Spanned<u16>>,
    /// Warn when fewer days are left. Default: that of the inventory.
    #[schemars(with = "Option<u32>")]
    pub(super) warn_days: Option<Spanned<u32>>,
    /// Critical when fewer days are left. Default: that of the inventory.
    #[schemars(with = "Option<u32>")]
    pub(super) critical_days: Option<Spanned<u32>>,
    /// In the report only, without alerts.
    #[serde(default)]
    pub(super) quiet: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenIssuer {
    /// URL of its directory. It may be left out for `letsencrypt` and `letsencrypt-staging`.
    #[schemars(regex(pattern = "^https://"))]
    pub(super) directory: Option<String>,
    /// Such as `mailto:ops@example.com`.
    #[schemars(with = "Option<Vec<String>>", inner(regex(pattern = "^mailto:")))]
    pub(super) contact: Option<Vec<Spanned<String>>>,
    /// Whether `accounts/NAME/eab.json` in the bucket holds an external account binding.
    pub(super) eab: Option<bool>,
    /// Roots of a private CA, of its directory and its certificates: an object in the bucket, under
    /// `ca/`.
    pub(super) ca: Option<String>,
    /// Whether clients are not meant to trust what it issues.
    pub(super) staging: Option<bool>,
    /// URL of the directory that a dry run orders from.
    #[schemars(regex(pattern = "^https://"))]
    pub(super) staging_directory: Option<String>,
    /// The ACME profile for certificates that name none.
    #[schemars(with = "Option<String>", length(min = 1))]
    pub(super) profile: Option<Spanned<String>>,
    /// The ACME profile for certificates that name none, if the CA offers it.
    #[schemars(with = "Option<String>", length(min = 1))]
    pub(super) preferred_profile: Option<Spanned<String>>,
    /// The common name of the root at which the chain is to end, such as `ISRG Root X1`, if the CA
    /// offers such a chain.
    pub(super) preferred_chain: Option<String>,
}

/// What neverlapse watches and renews: `inventory.toml`, at the root of the bucket. The reader
/// takes it apart key by key; this is its description for editors.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "it is described, not read")]
pub(super) struct WrittenInventory {
    /// Warn when fewer days are left, or less than a third of the certificate's lifetime. Default:
    /// 14, or the stack's parameter WarnDays.
    warn_days: Option<u32>,
    /// Critical when fewer days are left, or less than a tenth of the certificate's lifetime.
    /// Default: 3, or the stack's parameter CriticalDays.
    critical_days: Option<u32>,
    /// Limit for each address of every endpoint, all steps together. Default: 15.
    #[schemars(range(min = 1, max = 300))]
    timeout_seconds: Option<u64>,
    /// The name to send mail servers in EHLO. Default: the address that they see.
    ehlo: Option<String>,
    /// Endpoints to watch: `example.com`, `example.com:8443`, `smtp://mail.example.com:587`.
    #[serde(default)]
    endpoints: Vec<String>,
    /// Endpoints to watch that need settings.
    #[serde(default)]
    endpoint: Vec<WrittenEndpoint>,
    /// Certificates to renew, deliver and watch.
    #[serde(default)]
    certificate: Vec<WrittenCertificate>,
    /// Certification authorities by name.
    #[serde(default)]
    issuer: BTreeMap<String, WrittenIssuer>,
    /// Hosted zones of other accounts, and those whose name is not unique.
    #[serde(default)]
    zone: Vec<Zone>,
}
