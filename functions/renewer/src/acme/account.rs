//! The account at an issuer: made once, kept in the bucket under its own KMS key, never made again because something could not be read.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use instant_acme::Account;
use lambda_runtime::tracing::info;
use neverlapse::bucket::store::{self, Expecting, Object, Store, Tagged};
use neverlapse::inventory::Issuer;
use neverlapse::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::acme::http::{Http, fault, patiently};
use crate::acme::jws::{Directory, ExternalAccount, Key};
use crate::error::Fault;

/// `accounts/{issuer}/account.json`. The key is in it before the CA hears of it, so that a crash cannot make a second account.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    schema: String,
    directory: String,
    /// The account's URL, once the CA has given it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    /// What the CA was last told.
    contact: Vec<String>,
    /// PKCS#8, base64url.
    key: String,
    /// The key that is about to replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_key: Option<String>,
    /// When the last replacement was asked for: whoever asks for it again, late or repeatedly, has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replacement_asked_at: Option<Timestamp>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// Where accounts are kept, and under which KMS key.
pub(crate) struct Accounts<'a> {
    pub(crate) store: &'a Store,
    pub(crate) kms_key: &'a str,
}

impl Accounts<'_> {
    /// The account at `issuer`, whose name is the folder that it is kept in; made if the bucket says that there is none.
    pub(crate) async fn open(&self, name: &str, issuer: &Issuer, http: &Http) -> Result<Account, Fault> {
        let mut stored = self.stored(name, issuer).await?;
        let other_directory = stored.value.directory != issuer.directory;
        if other_directory {
            return Err(Fault::Ours(format!(
                "{} is an account at {}, but the inventory's [issuer.{name}] has directory = {:?} (expected another name for another CA)",
                key_of(name),
                stored.value.directory,
                issuer.directory
            )));
        }
        if stored.value.next_key.is_some() {
            stored = self.finish_rollover(name, stored, http).await?;
        }
        let (account, registered) = match &stored.value.account {
            Some(account) => (account.clone(), true),
            None => (self.register(name, issuer, &stored.value, http).await?, false),
        };
        let key = decode(&stored.value.key)?;
        let opened = Account::builder_with_http(Box::new(http.clone()))
            .from_parts(account.clone(), key.as_slice().into(), issuer.directory.clone())
            .await
            .map_err(|error| fault(error, http))?;
        let told = stored.value.contact == issuer.contact;
        if registered && !told {
            let contact: Vec<_> = issuer.contact.iter().map(String::as_str).collect();
            let update = patiently(async || opened.update_contacts(&contact).await).await;
            update.map_err(|error| fault(error, http))?;
            info!(issuer = name, "contact changed");
        }
        if !registered || !told {
            let value = Stored {
                account: Some(account),
                contact: issuer.contact.clone(),
                ..stored.value
            };
            self.write(name, &value, Expecting::Tag(&stored.tag)).await?;
        }
        Ok(opened)
    }

    /// Replaces the account's key: stored as the next one, told to the CA, then stored as the only one.
    pub(crate) async fn replace_key(
        &self,
        name: &str,
        issuer: &Issuer,
        asked_at: Timestamp,
        http: &Http,
    ) -> Result<(), Fault> {
        self.open(name, issuer, http).await?;
        let Tagged { mut value, tag } = self.stored(name, issuer).await?;
        if value.replacement_asked_at.is_some_and(|before| before >= asked_at) {
            return Ok(());
        }
        value.replacement_asked_at = Some(asked_at);
        value.next_key = Some(BASE64URL_NOPAD.encode(&Key::generate()?));
        let tag = self.write(name, &value, Expecting::Tag(&tag)).await?;
        self.finish_rollover(name, Tagged { value, tag }, http).await?;
        info!(issuer = name, "account key replaced");
        Ok(())
    }

    /// From wherever a rollover stopped: whether the CA has heard of the next key already is for the CA to say.
    async fn finish_rollover(&self, name: &str, stored: Tagged<Stored>, http: &Http) -> Result<Tagged<Stored>, Fault> {
        let Tagged { mut value, tag } = stored;
        let (Some(next), Some(account)) = (value.next_key.take(), value.account.clone()) else {
            return Ok(Tagged { value, tag });
        };
        let directory = Directory::fetch(&value.directory, http).await?;
        let (old, new) = (
            Key::from_pkcs8(&decode(&value.key)?)?,
            Key::from_pkcs8(&decode(&next)?)?,
        );
        let has_it =
            async || Ok::<_, Fault>(directory.account_of(&new, http).await?.as_deref() == Some(account.as_str()));
        if !has_it().await?
            && let Err(fault) = directory.change_key(&account, &old, &new, http).await
        {
            // Another renewer may have told the CA this very moment.
            if !has_it().await? {
                return Err(fault);
            }
        }
        value.key = next;
        let tag = self.write(name, &value, Expecting::Tag(&tag)).await?;
        Ok(Tagged { value, tag })
    }

    /// What is stored, or a new key that is stored first. Two renewers that find nothing both end with the same key.
    async fn stored(&self, name: &str, issuer: &Issuer) -> Result<Tagged<Stored>, Fault> {
        let key = key_of(name);
        if let Some(stored) = self.store.json::<Stored>(&key).await? {
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
        match self.store.put(&key, object, Expecting::Nothing).await {
            Ok(tag) => Ok(Tagged { value, tag }),
            Err(store::Error::Changed { .. }) => {
                let theirs = self.store.json::<Stored>(&key).await?;
                theirs.ok_or_else(|| Fault::Ours(format!("{key} came and went")))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn register(&self, name: &str, issuer: &Issuer, stored: &Stored, http: &Http) -> Result<String, Fault> {
        let external = match issuer.eab {
            true => Some(self.external(name).await?),
            false => None,
        };
        let directory = Directory::fetch(&issuer.directory, http).await?;
        let key = Key::from_pkcs8(&decode(&stored.key)?)?;
        let account = directory
            .register(&key, &issuer.contact, external.as_ref(), http)
            .await?;
        info!(issuer = name, account, "account registered");
        Ok(account)
    }

    async fn external(&self, name: &str) -> Result<ExternalAccount, Fault> {
        let key = format!("accounts/{name}/eab.json");
        let text = self.store.text(&key).await?;
        let expected = r#"expected {"key_id": "…", "hmac_key": "…"}"#;
        let text = text.ok_or_else(|| {
            Fault::Ours(format!(
                "[issuer.{name}] has eab = true, but the bucket has no {key} ({expected})"
            ))
        })?;
        // The parser's own words could repeat a piece of the secret.
        serde_json::from_str(&text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            Fault::Ours(format!(
                "{key} cannot be read at line {line}, column {column} ({expected})"
            ))
        })
    }

    async fn write(&self, name: &str, value: &Stored, expecting: Expecting<'_>) -> Result<String, Fault> {
        let object = Object::json(value)?.under(self.kms_key);
        match self.store.put(&key_of(name), object, expecting).await {
            Ok(tag) => Ok(tag),
            Err(store::Error::Changed { .. }) => Err(Fault::OutOfTime("another renewer changes the account")),
            Err(error) => Err(error.into()),
        }
    }
}

fn decode(key: &str) -> Result<Vec<u8>, Fault> {
    BASE64URL_NOPAD
        .decode(key.as_bytes())
        .map_err(|_| Fault::Ours("the stored account key is not base64url".to_owned()))
}

fn key_of(name: &str) -> String {
    format!("accounts/{name}/account.json")
}

const SCHEMA: &str = "neverlapse.account/1";
