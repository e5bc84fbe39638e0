//! An issuer as its directory describes it (RFC 8555, 7.1.1), and what it needs from us.

use std::collections::BTreeMap;
use std::time::Duration;

use neverlapse::bucket::store::Store;
use neverlapse::chain::roots::Roots;
use neverlapse::http::body;
use neverlapse::inventory::Issuer;
use neverlapse::text::causes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, What};

/// What a CA offers and asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Directory {
    /// Read only to tell a directory from any other JSON.
    #[serde(rename = "newOrder")]
    _new_order: String,
    #[serde(default)]
    pub(crate) meta: Meta,
}

/// The part of a directory that is about the CA.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    /// The names of profiles, and what they are for.
    pub(crate) profiles: BTreeMap<String, String>,
    /// The domains by which CAA records name it.
    pub(crate) caa_identities: Vec<String>,
    external_account_required: bool,
}

/// One issuer that certificates are ordered from.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct IssuerPlan {
    /// Its name in the inventory.
    pub(crate) name: String,
    /// The URL of its directory.
    pub(crate) directory: String,
    /// The profiles that it offers, and what they are for.
    pub(crate) profiles: BTreeMap<String, String>,
    /// Its directory, and the external account binding.
    pub(crate) checks: Vec<Check>,
    #[serde(skip)]
    pub(crate) caa_identities: Option<Vec<String>>,
}

impl IssuerPlan {
    /// Asks the issuer for its directory, and looks into the bucket for what it needs.
    pub(crate) async fn look(issuer: &Issuer, store: &Store) -> Self {
        let directory = directory(issuer, store).await;
        let mut checks = Vec::new();
        let meta = match directory {
            Ok(directory) => {
                checks.push(Check::ok(What::Directory, format!("{} answers", issuer.directory)));
                Some(directory.meta)
            }
            Err(problem) => {
                checks.push(Check::unknown(What::Directory, problem));
                None
            }
        };

        let asks = meta.as_ref().map(|meta| meta.external_account_required);
        checks.extend(external_account(issuer, asks, store).await);
        Self {
            name: issuer.name.clone(),
            directory: issuer.directory.clone(),
            caa_identities: meta.as_ref().map(|meta| meta.caa_identities.clone()),
            profiles: meta.unwrap_or_default().profiles,
            checks,
        }
    }
}

/// Whether the credentials are there that bind an account to a customer (RFC 8555, 7.3.4). `asks`
/// says whether the CA wants them, if it is known.
async fn external_account(issuer: &Issuer, asks: Option<bool>, store: &Store) -> Option<Check> {
    let name = &issuer.name;
    if !issuer.eab {
        return (asks == Some(true)).then(|| {
            let text = format!(
                "the CA asks for an external account binding: set eab = true in [issuer.{name}], and put accounts/{name}/eab.json into the bucket"
            );
            Check::critical(What::Eab, text)
        });
    }

    let folder = format!("accounts/{name}/");
    Some(match store.keys(&folder).await {
        Ok(keys) if keys.contains(&format!("{folder}eab.json")) => {
            Check::ok(What::Eab, format!("{folder}eab.json is there"))
        }
        Ok(keys) if keys.iter().any(|key| key.ends_with("/account.json")) => {
            Check::ok(What::Eab, format!("{folder}eab.json is gone, and the account is made"))
        }
        Ok(_) => Check::critical(
            What::Eab,
            format!("[issuer.{name}] has eab = true, but the bucket has no {folder}eab.json"),
        ),
        Err(error) => Check::unknown(What::Eab, error.to_string()),
    })
}

async fn directory(issuer: &Issuer, store: &Store) -> Result<Directory, String> {
    let mut roots = Roots::public();
    if let Some(key) = &issuer.ca {
        let unusable = |reason: String| format!("the issuer's ca = {key:?}: {reason}");
        let pem = store.pem(key).await.map_err(unusable)?;
        roots = roots.with_pem(&pem).map_err(|error| unusable(error.to_string()))?;
    }
    let tls = roots.client_config().map_err(|error| error.to_string())?;
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        // A CA may refuse those who do not say who they are (RFC 8555, 6.1).
        .user_agent(concat!("neverlapse/", env!("CARGO_PKG_VERSION")))
        .timeout(TIMEOUT)
        .build()
        .map_err(|error| causes(&error))?;

    let url = &issuer.directory;
    let response = async { client.get(url).send().await?.error_for_status() };
    let response = response
        .await
        .map_err(|error| format!("cannot read {url}: {}", causes(&error)))?;
    let answer = body(response, LARGEST)
        .await
        .map_err(|reason| format!("cannot read {url}: {reason}"))?;
    serde_json::from_slice(&answer).map_err(|error| format!("{url} is no ACME directory: {error}"))
}

const TIMEOUT: Duration = Duration::from_secs(15);
const LARGEST: usize = 1 << 20;
