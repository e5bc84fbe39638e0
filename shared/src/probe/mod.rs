//! The probe: from targets to what was observed of each, every step under a deadline.

mod address;
mod attempt;
pub mod legacy;
mod pace;
pub mod starttls;
mod target;
mod timeouts;
pub mod tls;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::env;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::future::join_all;
use futures::stream::{self, StreamExt, unfold};
use rand::RngExt;
use tokio::select;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::rustls::pki_types::ServerName;

use self::address::{Probed, chosen, disagreements, reachable};
use self::attempt::{Attempt, Handshakers, Peer};
pub use self::attempt::{MAIL, MAIL_FROM_LAMBDA};
use self::pace::Pace;
pub use self::target::Target;
pub use self::timeouts::Timeouts;
use self::timeouts::{USUAL, timed_out};
use self::tls::Handshaker;
use crate::certificate::Certificate;
use crate::chain::{Criteria, KeyUse, Verdict, judge};
use crate::crl::{Crls, PathStatus, staple};
use crate::ehlo::Ehlo;
use crate::endpoint::Host;
use crate::finding::{Finding, Kind, Phase, Severity};
use crate::inventory::KeyType;
use crate::isolation::isolated_async;
use crate::observation::{Observation, Other, Revocation, Skipped};
use crate::report::{EndpointReport, Report};
use crate::resolve::{self, Resolver};
use crate::timestamp::Timestamp;

/// How a [`Prober`] works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Judge as of this time instead of now.
    pub at: Option<Timestamp>,
    /// Ask this name server instead of the system's.
    pub nameserver: Option<SocketAddr>,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// How many connections may be open together. Lambda allows 1,024 file descriptors.
    pub sockets: usize,
    /// How often a network failure is tried, the first time included.
    pub tries: u32,
    /// Whether to fetch revocation lists.
    pub revocation: bool,
    /// Which certificate to ask for, where a server has several.
    pub certificates: Certificates,
    /// The name to give mail servers, instead of the address that they see.
    pub ehlo: Option<Ehlo>,
    /// Whether this is a Lambda function: AWS lets none connect to port 25, and bounds its
    /// questions to name servers.
    pub in_lambda: bool,
}

/// Which certificates to ask a server for that has several for one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificates {
    /// The one that it chooses, and the one for clients that want the other kind of key.
    Both,
    /// The one that it chooses.
    Chosen,
    /// The one with such a key.
    OfKey(KeyType),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            at: None,
            nameserver: None,
            timeouts: Timeouts::within(USUAL),
            sockets: 800,
            tries: 2,
            revocation: true,
            certificates: Certificates::Both,
            ehlo: None,
            in_lambda: env::var_os("AWS_LAMBDA_FUNCTION_NAME").is_some(),
        }
    }
}

/// Probes endpoints.
///
/// It is cheap to clone; clones share caches and the bound on connections. What it learned of names
/// and revocation lists stays in its caches, so make one per run.
#[derive(Clone, Debug)]
pub struct Prober {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    resolver: Resolver,
    handshakers: Handshakers,
    crls: Crls,
    sockets: Semaphore,
    /// The turns of look-ups, where they are bounded.
    look_ups: Option<Pace>,
}

impl Prober {
    /// A prober with empty caches. Oddities in the system's DNS configuration do not matter.
    pub fn new(options: Options) -> Result<Self, resolve::Error> {
        let resolver = Resolver::new(options.nameserver, options.timeouts.dns)?;
        let shared = Shared {
            handshakers: Handshakers::new(match options.certificates {
                Certificates::Both | Certificates::Chosen => Handshaker::default(),
                Certificates::OfKey(key) => Handshaker::of_key(key),
            }),
            crls: Crls::new(options.timeouts.handshake, resolver.clone()),
            sockets: Semaphore::new(options.sockets.max(1)),
            look_ups: options.in_lambda.then(Pace::new),
            resolver,
            options,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Reports on targets in the order in which they finish, and takes them from the stream as
    /// places get free. A stream that pauses holds nothing up. Dropping the result stops everything
    /// that is under way.
    pub fn run<S>(&self, targets: S) -> impl Stream<Item = EndpointReport> + use<S>
    where
        S: Stream<Item = Target>,
    {
        let prober = self.clone();
        let targets = Box::pin(targets.fuse());

        unfold((targets, JoinSet::new()), move |(mut targets, mut running)| {
            let prober = prober.clone();
            async move {
                loop {
                    let has_room = running.len() < prober.shared.options.sockets.max(1);
                    select! {
                        // New targets first, so that no place stays empty.
                        biased;
                        Some(target) = targets.next(), if has_room => {
                            let prober = prober.clone();
                            running.spawn(async move { prober.probe_isolated(&target).await });
                        }
                        Some(probed) = running.join_next() => {
                            // Without a report, the target is one that was not reached.
                            let Ok(report) = probed else { continue };
                            return Some((report, (targets, running)));
                        }
                        else => return None,
                    }
                }
            }
        })
    }

    /// Reports on all targets that can be reached until `deadline`, and lists the others.
    pub async fn report(&self, targets: Vec<Target>, deadline: Instant) -> Report {
        let started_at = Timestamp::now();
        // An endpoint may be there several times, with several names or addresses.
        let mut pending = BTreeMap::<String, usize>::new();
        for target in &targets {
            *pending.entry(target.endpoint.to_string()).or_default() += 1;
        }

        let mut endpoints = Vec::with_capacity(targets.len());
        let mut running = Box::pin(self.run(stream::iter(targets)));
        while let Ok(Some(endpoint)) = timeout_at(deadline, running.next()).await {
            if let Some(left) = pending.get_mut(&endpoint.endpoint) {
                *left -= 1;
            }
            endpoints.push(endpoint);
        }

        let mut report = Report::new(started_at, Timestamp::now(), endpoints);
        report.not_reached = pending
            .into_iter()
            .filter(|(_, left)| *left > 0)
            .map(|(endpoint, _)| endpoint)
            .collect();
        report
    }

    /// Probes a target, which costs no other anything whatever happens.
    async fn probe_isolated(&self, target: &Target) -> EndpointReport {
        match isolated_async(self.probe(target)).await {
            Ok(report) => report,
            Err(panicked) => {
                let findings = vec![Finding::not_judged(&panicked)];
                endpoint_report(target, Vec::new(), Vec::new(), findings, self.now())
            }
        }
    }

    /// Probes every address of one target.
    pub async fn probe(&self, target: &Target) -> EndpointReport {
        let (found, missing) = match self.addresses(target).await {
            Ok(found) => found,
            Err(finding) => return endpoint_report(target, Vec::new(), Vec::new(), vec![finding], self.now()),
        };
        let (addresses, mut skipped) = chosen(found);

        let probed = join_all(addresses.iter().map(|address| self.probe_address(target, *address))).await;
        let (observations, unreachable) = reachable(probed);
        skipped.extend(unreachable);

        let mut findings: Vec<_> = missing.into_iter().collect();
        if addresses.is_empty() && findings.is_empty() {
            let reason = "every address is IPv6, and this network has no IPv6 route".to_owned();
            findings.push(Finding::network(Kind::ConnectFailed { reason }));
        }
        findings.extend(disagreements(&observations, self.now()));
        endpoint_report(target, observations, skipped, findings, self.now())
    }

    /// The addresses that were given, or else those in DNS, with what is not known of them.
    async fn addresses(&self, target: &Target) -> Result<(Vec<IpAddr>, Option<Finding>), Finding> {
        if !target.addresses.is_empty() {
            return Ok((target.addresses.clone(), None));
        }

        let host = &target.endpoint.host;
        if let (Host::Name(_), Some(look_ups)) = (host, &self.shared.look_ups) {
            look_ups.turn().await;
        }

        let sockets = self.shared.options.sockets.clamp(1, resolve::SOCKETS) as u32;
        let _sockets = self.shared.sockets.acquire_many(sockets).await;
        let limit = self.shared.options.timeouts.dns;
        let failure = match timeout_at(Instant::now() + limit, self.look_up(host)).await {
            Ok(Ok(found)) => {
                let missing = found.missing.map(|missing| missing_family(host, &missing, self.now()));
                return Ok((found.addresses, missing));
            }
            Ok(Err(error)) => Kind::DnsFailed {
                name: host.to_string(),
                is_answer: error.is_answer(),
                reason: error.to_string(),
            },
            Err(_) => timed_out(Phase::Dns, limit),
        };
        Err(Finding::network(failure))
    }

    async fn look_up(&self, host: &Host) -> Result<resolve::Found, resolve::Error> {
        let mut tries = 1;
        loop {
            match self.shared.resolver.addresses(host).await {
                Err(resolve::Error::Failed(_)) if tries < self.shared.options.tries => sleep(pause()).await,
                result => return result,
            }
            tries += 1;
        }
    }

    /// Probes one address, again while the network is at fault and time is left.
    async fn probe_address(&self, target: &Target, address: IpAddr) -> Probed {
        let _socket = self.shared.sockets.acquire().await;
        let began = Instant::now();
        let options = &self.shared.options;
        let timeouts = target.timeout.map_or(options.timeouts, Timeouts::within);
        let peer = Peer {
            target,
            address,
            handshakers: &self.shared.handshakers,
            ehlo: target.ehlo.as_ref().or(options.ehlo.as_ref()),
            in_lambda: options.in_lambda,
            timeouts,
            deadline: began + timeouts.endpoint,
            sockets: &self.shared.sockets,
        };

        let mut tries = 1;
        let mut attempt = peer.attempt().await;
        while attempt.failure.is_some() && tries < self.shared.options.tries {
            let pause = pause();
            if Instant::now() + pause >= peer.deadline {
                break;
            }
            sleep(pause).await;
            attempt = attempt.or(peer.attempt().await);
            tries += 1;
        }

        let other = match options.certificates {
            Certificates::Both => peer.other_certificate(&attempt, options.tries).await,
            Certificates::Chosen | Certificates::OfKey(_) => None,
        };

        let connect_error = attempt.connect_error();
        let address = SocketAddr::new(address, target.endpoint.port);
        let mut observation = self.observe(target, address, attempt, other).await;
        observation.elapsed_ms = began.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        observation.tries = tries;
        Probed {
            observation,
            connect_error,
        }
    }

    /// Judges what an address showed: its certificate, and the other one if it has two.
    async fn observe(
        &self,
        target: &Target,
        address: SocketAddr,
        attempt: Attempt,
        other: Option<Attempt>,
    ) -> Observation {
        let mut observation = self.observe_one(target, address, attempt).await;
        if let Some(other) = other {
            let other = self.observe_one(target, address, other).await;
            add_other(&mut observation, other);
        }
        observation.findings.sort_by_key(|finding| Reverse(finding.severity));
        observation
    }

    async fn observe_one(&self, target: &Target, address: SocketAddr, attempt: Attempt) -> Observation {
        let now = self.now();
        let requested = target.requested();
        let mut verdict = judge(
            &attempt.chain,
            &Criteria {
                name: &requested
                    .server_name()
                    .unwrap_or_else(|| ServerName::from(address.ip())),
                roots: &target.roots,
                thresholds: target.thresholds,
                now,
                key_use: attempt.tls.as_ref().map_or(KeyUse::Signs, KeyUse::of),
                has_staple: attempt.staple.as_ref().map(|staple| !staple.is_empty()),
            },
        );
        if requested.server_name().is_none() {
            judge_odd_name(&mut verdict, requested, now);
        }
        let mut attempt = attempt.judged_by_key();
        let unusual_key = attempt.take_unusual_key();
        let status = self.revocation(target, &attempt, &verdict, now).await;
        let stapled = stapled(&attempt, &verdict, now);

        let mut findings = Vec::new();
        findings.extend(attempt.failure.map(|failure| Finding::network(failure.kind)));
        findings.extend(unusual_key.map(|kind| Finding::new(kind, Severity::Warning, now)));
        findings.extend(verdict.findings);
        findings.extend(status.as_ref().map_or_else(Vec::new, |status| status.findings(now)));
        // The list may have said the same.
        findings.extend(stapled.clone().filter(|stapled| !findings.contains(stapled)));
        if attempt.is_legacy
            && let Some(tls) = &attempt.tls
        {
            let kind = Kind::LegacyTls {
                version: tls.version.clone(),
                cipher_suite: tls.cipher_suite.clone(),
            };
            // Everybody refuses older versions; a suite of TLS 1.2, some do.
            let severity = if tls.version == "TLSv1.2" {
                Severity::Warning
            } else {
                Severity::Critical
            };
            findings.push(Finding::new(kind, severity, now));
        }
        Observation {
            address,
            tls: attempt.tls,
            leaf: verdict.leaf.map(Certificate::abridged),
            issuers: verdict.issuers.into_iter().map(Certificate::abridged).collect(),
            revocation: match stapled {
                Some(stapled) if matches!(stapled.kind, Kind::Revoked { .. }) => Some(Revocation::Revoked),
                _ => status.map(PathStatus::revocation),
            },
            other: None,
            findings,
            elapsed_ms: 0,
            tries: 0,
        }
    }

    /// Whether a certificate of the path is revoked, by the lists that trusted CAs name; none if
    /// that was not checked.
    async fn revocation(
        &self,
        target: &Target,
        attempt: &Attempt,
        verdict: &Verdict,
        now: Timestamp,
    ) -> Option<PathStatus> {
        let (leaf, sent) = attempt.chain.split_first()?;
        if !verdict.trusted || !self.shared.options.revocation {
            return None;
        }
        let check = self
            .shared
            .crls
            .check_path(leaf, &verdict.path, sent, &target.roots, now);
        Some(check.await)
    }

    fn now(&self) -> Timestamp {
        self.shared.options.at.unwrap_or_else(Timestamp::now)
    }
}

/// What is wrong with the OCSP response that a server sent with a chain that clients trust.
fn stapled(attempt: &Attempt, verdict: &Verdict, now: Timestamp) -> Option<Finding> {
    let leaf = attempt.chain.first().filter(|_| verdict.trusted)?;
    staple::finding(attempt.staple.as_ref()?, leaf, verdict.path.first(), now)
}

/// Judges a name that the verifier does not take as one: it judged an address in its place.
fn judge_odd_name(verdict: &mut Verdict, requested: &Host, now: Timestamp) {
    verdict
        .findings
        .retain(|finding| !matches!(finding.kind, Kind::NameMismatch { .. }));
    let Some(leaf) = &verdict.leaf else { return };
    if !requested.is_among(&leaf.names) {
        let expected = requested.to_string();
        let names = leaf.some_names(&expected);
        let kind = Kind::NameMismatch { expected, names };
        verdict.findings.push(Finding::new(kind, Severity::Critical, now));
    }
}

fn is_in(finding: &Finding, all: &[Finding]) -> bool {
    all.iter().any(|one| one.kind == finding.kind)
}

/// Adds the server's other certificate to the observation. A finding that both certificates have is
/// reported once; every other finding names its certificate.
fn add_other(observation: &mut Observation, other: Observation) {
    let (Some(first), Some(leaf)) = (&observation.leaf, other.leaf) else {
        return;
    };
    let (of_both, of_first): (Vec<_>, Vec<_>) = observation
        .findings
        .drain(..)
        .partition(|finding| is_in(finding, &other.findings));
    let of_other = other
        .findings
        .into_iter()
        .filter(|finding| !is_in(finding, &of_both))
        .map(|finding| finding.about(&leaf.key));

    let of_first = of_first.into_iter().map(|finding| finding.about(&first.key));
    observation.findings = of_both.iter().cloned().chain(of_first).chain(of_other).collect();
    observation.other = Some(Box::new(Other {
        leaf,
        issuers: other.issuers,
        revocation: other.revocation,
    }));
}

/// A name of which only the addresses of the other family are known. Without its IPv4 addresses,
/// most clients do not connect; name servers that know no AAAA records are common, and clients go
/// on without.
fn missing_family(host: &Host, missing: &resolve::Missing, now: Timestamp) -> Finding {
    let (records, severity) = if missing.is_ipv4 {
        ("A", Severity::Unknown)
    } else {
        ("AAAA", Severity::Ok)
    };
    let kind = Kind::DnsFailed {
        name: host.to_string(),
        reason: format!("its {records} records: {}", missing.error),
        is_answer: false,
    };
    Finding::new(kind, severity, now)
}

fn endpoint_report(
    target: &Target,
    observations: Vec<Observation>,
    skipped: Vec<Skipped>,
    findings: Vec<Finding>,
    now: Timestamp,
) -> EndpointReport {
    let endpoint = &target.endpoint;
    let not_after = observations
        .iter()
        .flat_map(Observation::leaves)
        .map(|leaf| leaf.not_after)
        .min();
    let sni = target.sni.as_ref().filter(|sni| **sni != endpoint.host);

    let mut report = EndpointReport {
        endpoint: endpoint.to_string(),
        unicode: endpoint.unicode(),
        sni: sni.map(ToString::to_string),
        quiet: target.quiet,
        status: Severity::Ok,
        not_after,
        seconds_left: not_after.map(|not_after| (not_after - now).whole_seconds()),
        observations,
        skipped,
        findings,
    };
    report.status = report
        .all_findings()
        .map(|(_, finding)| finding.severity)
        .max()
        .unwrap_or(Severity::Ok);
    report
}

/// The time between two tries; jittered, so that not all of them come back at once to a network in
/// trouble.
fn pause() -> Duration {
    Duration::from_millis(rand::rng().random_range(PAUSE_MS))
}

const PAUSE_MS: std::ops::Range<u64> = 200..600;
