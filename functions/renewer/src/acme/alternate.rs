//! Other chains for a certificate, where a CA offers several (RFC 8555, 7.4.2).

use lambda_runtime::tracing::{info, warn};
use neverlapse::inventory::Issuer;

use super::account::OpenAccount;
use super::directory::Directory;
use super::http::Http;
use crate::bucket::issued::Worth;
use crate::error::Error;

/// A certificate as the CA hands it out.
pub(crate) struct Download {
    /// The CA's own choice: PEM, leaf first.
    pub(crate) chain: String,
    /// URLs of other chains.
    pub(crate) alternates: Vec<String>,
}

impl Download {
    /// The best of the chains that the CA offers, by what `worth` says of each; its own choice
    /// where no other one is better. A preference keeps no certificate from being published.
    pub(crate) async fn best(
        self,
        issuer: &Issuer,
        account: &OpenAccount,
        http: &Http,
        worth: impl Fn(&str) -> Worth,
    ) -> String {
        let offered = self.alternates.len() + 1;
        let mut best = (worth(&self.chain), self.chain);
        for url in self.alternates.iter().take(MOST) {
            if best.0 == Worth::ALL {
                break;
            }
            match fetch(url, issuer, account, http).await {
                Ok(chain) => {
                    let other = (worth(&chain), chain);
                    if other.0 > best.0 {
                        info!(url, "another chain than the CA's own choice");
                        best = other;
                    }
                }
                Err(error) => warn!(url, fault = %error, "another chain cannot be fetched"),
            }
        }

        let (worth, chain) = best;
        if !worth.is_preferred {
            let root = issuer.preferred_chain.as_deref();
            warn!(
                root,
                offered, "no chain ends at the preferred root; taking the best of the others"
            );
        }
        chain
    }
}

async fn fetch(url: &str, issuer: &Issuer, account: &OpenAccount, http: &Http) -> Result<String, Error> {
    let directory = Directory::fetch(&issuer.directory, http).await?;
    let chain = directory.post_as_get(url, account.id(), &account.key, http).await?;
    Ok(String::from_utf8_lossy(&chain).into_owned())
}

const MOST: usize = 8;
