//! Fetches revocation lists, each once per run, within bounds of time and memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, Response, Url, redirect};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::list::Document;
use super::reach::{Names, Reach};
use crate::chain::roots::Roots;
use crate::resolve::Resolver;
use crate::text::innermost;

/// The revocation lists of one run, and the clients that fetch them.
///
/// A list may have 10 MB, all of them together 100 MB. Several checks that need the same list wait
/// for one request; a request that failed is not repeated.
#[derive(Debug)]
pub(super) struct Fetcher {
    /// How long one list may take.
    pub(super) timeout: Duration,
    /// Whether lists may be on this machine; only in tests.
    pub(super) loopback: bool,
    /// The bytes of all lists together.
    pub(super) held: AtomicUsize,
    pub(super) lists: Mutex<HashMap<(Url, PrivateRoots), Fetched>>,
    clients: Mutex<HashMap<PrivateRoots, Client>>,
    resolver: Resolver,
}

/// An organisation's own roots. The server of a list by HTTPS is judged by the roots of the
/// endpoint, so a list that one endpoint could not have may be there for another.
type PrivateRoots = Vec<CertificateDer<'static>>;

/// A list, or why there is none.
pub(super) type List = Result<Arc<Document>, String>;

/// A list that may still be under way.
type Fetched = Arc<OnceCell<List>>;

impl Fetcher {
    pub(super) fn new(timeout: Duration, resolver: Resolver) -> Self {
        Self {
            timeout,
            loopback: false,
            held: AtomicUsize::new(0),
            lists: Mutex::default(),
            clients: Mutex::default(),
            resolver,
        }
    }

    /// The list at a URL, or why there is none.
    pub(super) async fn list(&self, url: Url, roots: &Roots) -> List {
        let cell = self.cell(&url, roots)?;
        let list = cell.get_or_init(|| async {
            match timeout(self.timeout, self.fetch(&url, roots)).await {
                Ok(Ok(list)) => Ok(list),
                Ok(Err(problem)) => Err(format!("{url}: {problem}")),
                Err(_) => Err(format!("{url} took longer than {} s", self.timeout.as_secs_f32())),
            }
        });
        list.await.clone()
    }

    /// Where the lists of endpoints with these roots may be.
    pub(super) fn reach(&self, roots: &Roots) -> Reach {
        Reach {
            private: !roots.private().is_empty(),
            loopback: self.loopback,
        }
    }

    /// The place of a list among all of them, as long as there are not too many.
    fn cell(&self, url: &Url, roots: &Roots) -> Result<Fetched, String> {
        let key = (url.clone(), roots.private().to_vec());
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if lists.len() >= LISTS && !lists.contains_key(&key) {
            return Err(format!("more than {LISTS} revocation lists in one run"));
        }
        Ok(lists.entry(key).or_default().clone())
    }

    async fn fetch(&self, url: &Url, roots: &Roots) -> List {
        let request = self.client(roots)?.get(url.clone());
        let response = request.send().await.map_err(|error| innermost(&error))?;
        if !response.status().is_success() {
            return Err(format!("HTTP {}", response.status()));
        }
        if response.content_length().is_some_and(|length| length > BYTES as u64) {
            return Err(too_large());
        }

        let mut share = Share {
            held: &self.held,
            bytes: 0,
        };
        let mut der = read(response, &mut share).await?;
        // Some CAs publish PEM, whatever RFC 5280, 4.2.1.13, says.
        if let Ok(list) = CertificateRevocationListDer::from_pem_slice(&der) {
            der = list.to_vec();
        }
        let list = Document::new(der);
        list.list().map_err(|problem| problem.to_string())?;
        share.keep();
        Ok(Arc::new(list))
    }

    /// The client for these roots; made once.
    fn client(&self, roots: &Roots) -> Result<Client, String> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(roots.private()) {
            return Ok(client.clone());
        }
        let names = Names {
            resolver: self.resolver.clone(),
            reach: self.reach(roots),
        };
        let client = client(roots, names)?;
        clients.insert(roots.private().to_vec(), client.clone());
        Ok(client)
    }
}

/// The part of all lists' bytes that one list has; given back on drop, unless it is kept.
struct Share<'a> {
    held: &'a AtomicUsize,
    bytes: usize,
}

impl Share<'_> {
    /// Takes more bytes, and answers whether there was room for them.
    fn grow(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.held.fetch_add(bytes, Ordering::Relaxed) + bytes <= HELD
    }

    fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

async fn read(mut response: Response, share: &mut Share<'_>) -> Result<Vec<u8>, String> {
    let mut der = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| innermost(&error))? {
        if der.len() + chunk.len() > BYTES {
            return Err(too_large());
        }
        if !share.grow(chunk.len()) {
            return Err(format!("all lists together are larger than {HELD} bytes"));
        }
        der.extend_from_slice(&chunk);
    }
    Ok(der)
}

fn client(roots: &Roots, names: Names) -> Result<Client, String> {
    let tls = roots.client_config().map_err(|error| error.to_string())?;
    let reach = names.reach;
    let redirects = redirect::Policy::custom(move |attempt| match attempt.previous().len() {
        0..=REDIRECTS if reach.allows_url(attempt.url()) => attempt.follow(),
        _ => attempt.stop(),
    });
    Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Arc::new(names))
        .redirect(redirects)
        .no_proxy()
        .user_agent(concat!("neverlapse/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| innermost(&error))
}

fn too_large() -> String {
    format!("larger than {BYTES} bytes")
}

/// The largest lists of public CAs are about this size; sharded ones are below 1 MB.
pub(super) const BYTES: usize = 10_000_000;
pub(super) const HELD: usize = 100_000_000;
const LISTS: usize = 4_096;
const REDIRECTS: usize = 2;
