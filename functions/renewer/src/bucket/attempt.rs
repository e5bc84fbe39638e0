//! One attempt to get a version from an issuer: everything that has to survive a crash.

use std::fmt;

use instant_acme::Account;
use neverlapse::bucket::version;
use neverlapse::inventory::{Inventory, Issuer, KeyType, Managed, Profile};
use neverlapse::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dns::record::ZoneRecord;
use crate::key::PrivateKey;

/// One attempt to get one version from one issuer.
///
/// It is stored with the [lease](super::lease). Each of its facts is stored before it is used: the
/// key before the CA sees a request that it signed, the order's URL before its authorizations are
/// fetched, and the TXT records before they are written. So the next renewer can resume wherever
/// this one died.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// The version that it will become.
    pub(crate) version: String,
    /// The issuer's name in the inventory.
    pub(crate) issuer: String,
    /// URL of the issuer's directory.
    pub(crate) directory: String,
    /// URL of our account there.
    pub(crate) account: String,
    pub(crate) identifiers: Vec<String>,
    pub(crate) key_type: KeyType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) profile: Option<String>,
    pub(crate) key: PrivateKey,
    /// The order's URL, once the CA has made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<String>,
    /// TXT records of ours: noted before they are written, forgotten after they are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) txt: Vec<ZoneRecord>,
    /// When it began. Attempts of earlier releases do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) began_at: Option<Timestamp>,
    /// How many renewers have resumed its order.
    #[serde(default)]
    pub(crate) resumed: u32,
    /// Whether its order was given up, because it did not move. The CA may still issue it, so each
    /// later run looks once more.
    #[serde(default)]
    pub(crate) given_up: bool,
}

impl Attempt {
    /// A new attempt to get what the inventory wants.
    pub(crate) fn new(issuer: &Issuer, account: &Account, wanted: &Managed, key: PrivateKey) -> Self {
        // A profile that is only preferred is ordered where it is offered.
        let profile = wanted.profile_at(issuer).filter(|profile| {
            let mut offered = account.profiles();
            profile.is_required || offered.any(|offered| offered.name == profile.name)
        });

        Self {
            version: version::id(Timestamp::now(), rand::random()),
            issuer: issuer.name.clone(),
            directory: issuer.directory.clone(),
            account: account.id().to_owned(),
            identifiers: wanted.identifiers.clone(),
            key_type: wanted.key_type,
            profile: profile.map(|profile| profile.name),
            key,
            order: None,
            txt: Vec::new(),
            began_at: Some(Timestamp::now()),
            resumed: 0,
            given_up: false,
        }
    }

    /// How its order is named in messages.
    pub(crate) fn order_name(&self) -> String {
        let order = self.order.as_deref().unwrap_or("no order yet");
        match self.began_at {
            Some(since) => format!("{}, order {order}, begun at {since}", self.issuer),
            None => format!("{}, order {order}", self.issuer),
        }
    }

    /// Whether it orders what the inventory wants by now.
    pub(crate) fn fits(&self, wanted: &Managed, inventory: &Inventory) -> bool {
        let issuer = inventory
            .issuers
            .get(&self.issuer)
            .filter(|issuer| wanted.issuers.contains(&issuer.name));
        issuer.is_some_and(|issuer| {
            issuer.directory == self.directory
                && self.identifiers == wanted.identifiers
                && self.key_type == wanted.key_type
                && Profile::is_met(wanted.profile_at(issuer).as_ref(), self.profile.as_deref())
        })
    }

    /// Whether its order belongs to this account.
    pub(crate) fn is_of(&self, account: &Account) -> bool {
        self.account == account.id()
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("version", &self.version)
            .field("issuer", &self.issuer)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}
