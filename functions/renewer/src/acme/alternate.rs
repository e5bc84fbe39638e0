//! Other chains for a certificate, where a CA offers several (RFC 8555, 7.4.2).

use lambda_runtime::tracing::{info, warn};
use neverlapse::inventory::Issuer;

use super::account::OpenAccount;
use super::directory::Directory;
use super::http::Http;
use crate::error::Error;

/// A certificate as the CA hands it out.
pub(crate) struct Download {
    /// The CA's own choice: PEM, leaf first.
    pub(crate) chain: String,
    /// URLs of other chains.
    pub(crate) alternates: Vec<String>,
}

impl Download {
    /// The chain that ends at the root that the inventory prefers, or the CA's own choice: a
    /// preference keeps no certificate from being published. `leads_to` says whether a chain ends
    /// at a root.
    pub(crate) async fn preferred(
        self,
        issuer: &Issuer,
        account: &OpenAccount,
        http: &Http,
        leads_to: impl Fn(&str, &str) -> bool,
    ) -> String {
        let Some(root) = &issuer.preferred_chain else {
            return self.chain;
        };
        if leads_to(&self.chain, root) {
            return self.chain;
        }

        for url in self.alternates.iter().take(MOST) {
            match fetch(url, issuer, account, http).await {
                Ok(chain) if leads_to(&chain, root) => {
                    info!(root, url, "the preferred chain");
                    return chain;
                }
                Ok(_) => {}
                Err(error) => warn!(url, fault = %error, "another chain cannot be fetched"),
            }
        }
        warn!(
            root,
            offered = self.alternates.len() + 1,
            "no chain ends at the preferred root; taking the CA's own choice"
        );
        self.chain
    }
}

async fn fetch(url: &str, issuer: &Issuer, account: &OpenAccount, http: &Http) -> Result<String, Error> {
    let directory = Directory::fetch(&issuer.directory, http).await?;
    let chain = directory.post_as_get(url, account.id(), &account.key, http).await?;
    Ok(String::from_utf8_lossy(&chain).into_owned())
}

const MOST: usize = 8;
