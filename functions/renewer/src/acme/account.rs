//! The account at an issuer: made once, kept in the bucket under its own KMS key, and never made
//! again because something could not be read.

use std::fmt;
use std::ops::Deref;

use data_encoding::BASE64URL_NOPAD;
use instant_acme::Account;
use lambda_runtime::tracing::{info, warn};
use neverlapse::bucket::document::Document;
use neverlapse::bucket::store::{self, Expecting, LONGEST_FILE, Object, Store, Tagged};
use neverlapse::inventory::Issuer;
use neverlapse::text::sha256;
use neverlapse::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use super::directory::Directory;
use super::http::{Http, retry_bad_nonce};
use super::jws::{ExternalAccount, Key};
use super::problem::{ProblemType, Step};
use crate::error::Error;

/// Where accounts are kept, and under which KMS key.
pub(crate) struct Accounts<'a> {
    pub(crate) store: &'a Store,
    pub(crate) kms_key: &'a str,
}

/// `accounts/{issuer}/account.json`. The key is in it before the CA hears of it, so that a crash
/// cannot make a second account.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    schema: String,
    directory: String,
    /// The account's URL, once the CA has given it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    /// The contact that the CA knows.
    contact: Vec<String>,
    /// PKCS#8, base64url.
    key: String,
    /// The key that is about to replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_key: Option<String>,
    /// When the last replacement was requested: late and repeated deliveries of that request do
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replacement_asked_at: Option<Timestamp>,
}

impl Document for Stored {
    const SCHEMA: &'static str = SCHEMA;
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// An account that can be used: by the library, and by [`Directory`] with its key.
pub(crate) struct OpenAccount {
    account: Account,
    pub(super) key: Key,
}

impl Deref for OpenAccount {
    type Target = Account;

    fn deref(&self) -> &Account {
        &self.account
    }
}

impl Accounts<'_> {
    /// The account at `issuer`, whose name is the folder that it is kept in; made if the bucket has
    /// none.
    pub(crate) async fn open(&self, issuer: &Issuer, http: &Http) -> Result<OpenAccount, Error> {
        let Found { key: place, mut stored } = self.stored(issuer).await?;
        if stored.value.next_key.is_some() {
            stored = match self.finish_rollover(&place, stored.clone(), http).await {
                Ok(finished) => finished,
                // No certificate waits for a key that the CA does not replace. But to whoever signs
                // with a key that it has replaced, a CA says that it knows no such account or
                // order.
                Err(error) if is_known_by_old_key(&stored.value, http).await => {
                    warn!(issuer = issuer.name, fault = %error, "the account's key is not replaced yet");
                    stored
                }
                Err(error) => return Err(error),
            };
        }

        let (account, is_new) = match &stored.value.account {
            Some(account) => (account.clone(), false),
            None => (self.register(issuer, &stored.value, http).await?, true),
        };
        let key = decode(&stored.value.key)?;
        let opened = Account::builder_with_http(Box::new(http.clone()))
            .from_parts(account.clone(), key.as_slice().into(), issuer.directory.clone())
            .await
            .map_err(|error| http.error(Step::Account, error))?;

        let is_stale = !is_new && stored.value.contact != issuer.contact;
        let contact_changed = is_stale && change_contact(&opened, issuer, http).await;
        if contact_changed || is_new {
            let value = Stored {
                account: Some(account),
                contact: issuer.contact.clone(),
                ..stored.value
            };
            self.write(&place, &value, Expecting::Tag(&stored.tag)).await?;
        }
        Ok(OpenAccount {
            account: opened,
            key: Key::from_pkcs8(&key)?,
        })
    }

    /// Replaces the account's key. The new key is stored as the next one, sent to the CA, and then
    /// stored as the only one.
    pub(crate) async fn replace_key(&self, issuer: &Issuer, requested_at: Timestamp, http: &Http) -> Result<(), Error> {
        self.open(issuer, http).await?;

        let Found { key: place, mut stored } = self.stored(issuer).await?;
        if stored.value.next_key.is_some() {
            // The CA may have this one, so it must not be forgotten for another one.
            stored = self.finish_rollover(&place, stored, http).await?;
        }
        let Tagged { mut value, tag } = stored;
        if value.replacement_asked_at.is_some_and(|before| before >= requested_at) {
            return Ok(());
        }
        value.replacement_asked_at = Some(requested_at);
        value.next_key = Some(BASE64URL_NOPAD.encode(&Key::generate()?));
        let tag = self.write(&place, &value, Expecting::Tag(&tag)).await?;

        self.finish_rollover(&place, Tagged { value, tag }, http).await?;
        info!(issuer = issuer.name, "account key replaced");
        Ok(())
    }

    /// Finishes a rollover from wherever it stopped. Only the CA knows whether it has the next key
    /// already. That key stays where it is until the CA has taken it, also when the CA refuses: it
    /// may be taking it from another renewer, and without its key an account is lost.
    async fn finish_rollover(&self, place: &str, stored: Tagged<Stored>, http: &Http) -> Result<Tagged<Stored>, Error> {
        let Tagged { mut value, tag } = stored;
        let (Some(next), Some(account)) = (value.next_key.take(), value.account.clone()) else {
            return Ok(Tagged { value, tag });
        };

        let old = decode(&value.key)?;
        let new = decode(&next)?;
        let knows = async |key: &[u8]| has_key(&account, key, &value.directory, http).await;
        let changed = match knows(&new).await {
            Ok(true) => Ok(()),
            Err(error) if !is_final(&error) => return Err(error),
            // CAs differ in how they refuse a key that they do not know.
            Ok(false) | Err(_) => {
                let directory = Directory::fetch(&value.directory, http).await?;
                directory
                    .change_key(&account, &Key::from_pkcs8(&old)?, &Key::from_pkcs8(&new)?, http)
                    .await
            }
        };
        // Another renewer may have sent it to the CA this very moment.
        if let Err(error) = changed
            && !knows(&new).await.unwrap_or(false)
        {
            return Err(error);
        }

        value.key = next;
        let tag = self.write(place, &value, Expecting::Tag(&tag)).await?;
        Ok(Tagged { value, tag })
    }

    /// What is stored, or a new key that is stored first. Two renewers that find nothing both end
    /// with the same key.
    ///
    /// An issuer whose directory has changed is another CA. The account at the one before stays
    /// where it is, because its certificates may have to be revoked; the new one has a folder of
    /// its own.
    async fn stored(&self, issuer: &Issuer) -> Result<Found, Error> {
        let mut last = String::new();
        for key in [key_of(issuer), key_of_directory(issuer)] {
            let stored = self.stored_at(&key, issuer).await?;
            if stored.value.directory == issuer.directory {
                return Ok(Found { key, stored });
            }
            last = format!("{key} is an account at {}", stored.value.directory);
        }
        Err(Error::Internal(format!("{last} (expected {})", issuer.directory)))
    }

    async fn stored_at(&self, key: &str, issuer: &Issuer) -> Result<Tagged<Stored>, Error> {
        if let Some(stored) = self.store.document::<Stored>(key).await? {
            return Ok(stored);
        }

        let value = Stored {
            schema: SCHEMA.to_owned(),
            directory: issuer.directory.clone(),
            account: None,
            contact: issuer.contact.clone(),
            key: BASE64URL_NOPAD.encode(&Key::generate()?),
            next_key: None,
            replacement_asked_at: None,
        };
        let object = Object::json(&value)?.under(self.kms_key);
        match self.store.put(key, object, Expecting::Nothing).await {
            Ok(tag) => Ok(Tagged { value, tag }),
            Err(store::Error::Changed { .. }) => {
                let theirs = self.store.document::<Stored>(key).await?;
                theirs.ok_or_else(|| Error::Internal(format!("{key} came and went")))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn register(&self, issuer: &Issuer, stored: &Stored, http: &Http) -> Result<String, Error> {
        let external = if issuer.eab {
            Some(self.external(issuer).await?)
        } else {
            None
        };
        let directory = Directory::fetch(&issuer.directory, http).await?;
        let key = Key::from_pkcs8(&decode(&stored.key)?)?;

        let account = directory
            .register(&key, &issuer.contact, external.as_ref(), http)
            .await?;
        info!(issuer = issuer.name, account, "account registered");
        Ok(account)
    }

    async fn external(&self, issuer: &Issuer) -> Result<ExternalAccount, Error> {
        let name = &issuer.name;
        let key = format!("accounts/{name}/eab.json");
        let expected = r#"expected {"key_id": "…", "hmac_key": "…"}"#;
        let Some(text) = self.store.text(&key, LONGEST_FILE).await? else {
            return Err(Error::Internal(format!(
                "[issuer.{name}] has eab = true, but the bucket has no {key} ({expected})"
            )));
        };

        // The parser's own words could repeat a piece of the secret.
        serde_json::from_str(&text).map_err(|error| {
            Error::Internal(format!(
                "{key} cannot be read at line {}, column {} ({expected})",
                error.line(),
                error.column()
            ))
        })
    }

    async fn write(&self, place: &str, value: &Stored, expecting: Expecting<'_>) -> Result<String, Error> {
        let object = Object::json(value)?.under(self.kms_key);
        match self.store.put(place, object, expecting).await {
            Ok(tag) => Ok(tag),
            Err(store::Error::Changed { .. }) => Err(Error::out_of_time("another renewer changes the account")),
            Err(error) => Err(error.into()),
        }
    }
}

/// An account, and where it is stored.
struct Found {
    key: String,
    stored: Tagged<Stored>,
}

/// Whether the CA has just said that it knows the account by the key that was to be replaced.
async fn is_known_by_old_key(stored: &Stored, http: &Http) -> bool {
    let (Some(account), Ok(key)) = (&stored.account, decode(&stored.key)) else {
        return false;
    };
    has_key(account, &key, &stored.directory, http).await.unwrap_or(false)
}

/// Whether the CA would answer the same again.
fn is_final(error: &Error) -> bool {
    matches!(error, Error::CaDeclined(_) | Error::Internal(_))
}

/// Sends the inventory's contact to the CA. One that the CA does not take keeps no certificate from
/// being renewed: the account is the same with the former one, and the next order sends it again.
async fn change_contact(account: &Account, issuer: &Issuer, http: &Http) -> bool {
    let contact: Vec<_> = issuer.contact.iter().map(String::as_str).collect();
    match retry_bad_nonce(async || account.update_contacts(&contact).await).await {
        Ok(()) => {
            info!(issuer = issuer.name, "contact changed");
            true
        }
        Err(error) => {
            let error = http.error(Step::Account, error);
            warn!(issuer = issuer.name, fault = %error, "the CA does not take the changed contact");
            false
        }
    }
}

/// Whether the CA knows this key (PKCS#8) as the account's.
async fn has_key(account: &str, key: &[u8], directory: &str, http: &Http) -> Result<bool, Error> {
    let found = retry_bad_nonce(async || {
        let pkcs8 = PrivatePkcs8KeyDer::from(key.to_vec());
        let key = instant_acme::Key::from_pkcs8_der(pkcs8.clone_key())?;
        Account::builder_with_http(Box::new(http.clone()))
            .from_key((key, pkcs8.into()), directory.to_owned())
            .await
    })
    .await;

    match found {
        Ok((found, _)) => Ok(found.id() == account),
        Err(instant_acme::Error::Api(problem)) if ProblemType::of(&problem) == ProblemType::AccountDoesNotExist => {
            Ok(false)
        }
        Err(error) => Err(http.error(Step::Account, error)),
    }
}

fn decode(key: &str) -> Result<Vec<u8>, Error> {
    BASE64URL_NOPAD
        .decode(key.as_bytes())
        .map_err(|_| Error::Internal("the stored account key is not base64url".to_owned()))
}

fn key_of(issuer: &Issuer) -> String {
    format!("accounts/{}/account.json", issuer.name)
}

/// Where the account at an issuer's later directory is.
fn key_of_directory(issuer: &Issuer) -> String {
    let directory = &sha256(issuer.directory.as_bytes())[..16];
    format!("accounts/{}/{directory}/account.json", issuer.name)
}

const SCHEMA: &str = "neverlapse.account/1";
