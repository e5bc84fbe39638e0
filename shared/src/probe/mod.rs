//! The probe: from targets to what was observed of each, every step under a deadline.

pub mod legacy;
pub mod starttls;
mod target;
pub mod tls;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::future::join_all;
use futures::stream::{self, StreamExt, unfold};
use rand::RngExt;
use tokio::net::TcpStream;
use tokio::select;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

pub use self::target::Target;
use crate::chain::roots::Roots;
use crate::chain::{Criteria, judge};
use crate::crl::{self, Crls};
use crate::endpoint::Host;
use crate::finding::{Finding, Kind, Phase, Served, Severity};
use crate::observation::{Observation, Skipped, Tls};
use crate::probe::legacy::Legacy;
use crate::probe::tls::{Failure, Handshaker, Witness};
use crate::report::{EndpointReport, Report};
use crate::resolve::{self, Resolver, has_route};
use crate::timestamp::Timestamp;

/// How a [`Prober`] works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Judge as of this time instead of now.
    pub at: Option<Timestamp>,
    /// Ask this name server instead of the system's.
    pub nameserver: Option<SocketAddr>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// How many connections may be open together. Lambda allows 1,024 file descriptors.
    pub sockets: usize,
    /// How often a network failure is tried, the first time included.
    pub tries: u32,
    /// Whether to ask for revocation lists.
    pub revocation: bool,
}

impl Default for Options {
    fn default() -> Self {
        let timeouts = Timeouts::within(Duration::from_secs(15));
        Self {
            at: None,
            nameserver: None,
            timeouts,
            sockets: 800,
            tries: 2,
            revocation: true,
        }
    }
}

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Timeouts {
    pub dns: Duration,
    pub connect: Duration,
    pub starttls: Duration,
    pub handshake: Duration,
    /// All of an address's steps and tries together.
    pub endpoint: Duration,
}

impl Timeouts {
    /// Five seconds a step, ten for STARTTLS, and never more than `endpoint` in all.
    pub fn within(endpoint: Duration) -> Self {
        let step = endpoint.min(STEP);
        Self {
            dns: step,
            connect: step,
            // Mail servers let strangers wait before they greet: postscreen(8) for six seconds.
            starttls: endpoint.min(2 * STEP),
            handshake: step,
            endpoint,
        }
    }
}

/// Looks at endpoints. Cheap to clone; clones share caches and the bound on connections.
#[derive(Clone, Debug)]
pub struct Prober {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    resolver: Resolver,
    handshaker: Handshaker,
    crls: Crls,
    sockets: Semaphore,
}

impl Prober {
    /// A prober with empty caches; fails when the system's DNS configuration cannot be read.
    pub fn new(options: Options) -> Result<Self, resolve::Error> {
        let resolver = Resolver::new(options.nameserver, options.timeouts.dns)?;
        let sockets = Semaphore::new(options.sockets.max(1));
        let crls = Crls::new(options.timeouts.handshake, resolver.clone());
        let shared = Shared {
            options,
            resolver,
            handshaker: Handshaker::default(),
            crls,
            sockets,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Reports on targets in the order in which they finish, taking them from the stream as places get free; one that
    /// pauses holds nothing up. Dropping the result stops everything that is under way.
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
                    let room = running.len() < prober.shared.options.sockets.max(1);
                    select! {
                        biased;
                        Some(target) = targets.next(), if room => {
                            let prober = prober.clone();
                            running.spawn(async move { prober.probe(&target).await });
                        }
                        Some(probed) = running.join_next() => {
                            let report = probed.unwrap_or_else(|error| resume_unwind(error.into_panic()));
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

    /// Looks at every address of one target.
    pub async fn probe(&self, target: &Target) -> EndpointReport {
        let (addresses, mut skipped) = match self.addresses(target).await {
            Ok(addresses) => few(routable(addresses)),
            Err(finding) => return self.collect(target, Vec::new(), Vec::new(), vec![finding]),
        };
        let observations = join_all(addresses.iter().map(|address| self.observe(target, *address))).await;
        let (observations, lost) = reachable(observations);
        skipped.extend(lost);
        let mut findings = Vec::new();
        if addresses.is_empty() {
            let reason = "every address is IPv6, and this network has no IPv6 route".to_owned();
            findings.push(Finding::network(Kind::ConnectFailed { reason }));
        }
        findings.extend(disagreement(&observations, self.now()));
        self.collect(target, observations, skipped, findings)
    }

    fn collect(
        &self,
        target: &Target,
        observations: Vec<Observation>,
        skipped: Vec<Skipped>,
        findings: Vec<Finding>,
    ) -> EndpointReport {
        let not_after = observations
            .iter()
            .filter_map(|seen| Some(seen.leaf.as_ref()?.not_after))
            .min();
        let mut report = EndpointReport {
            endpoint: target.endpoint.to_string(),
            unicode: target.endpoint.unicode(),
            sni: (target.sni.as_ref().filter(|sni| **sni != target.endpoint.host)).map(ToString::to_string),
            status: Severity::Ok,
            not_after,
            seconds_left: not_after.map(|end| (end - self.now()).whole_seconds()),
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

    async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, Finding> {
        if !target.addresses.is_empty() {
            return Ok(target.addresses.clone());
        }
        // One for A, one for AAAA.
        let sockets = self.shared.options.sockets.clamp(1, 2) as u32;
        let _sockets = self.shared.sockets.acquire_many(sockets).await;
        let limit = self.shared.options.timeouts.dns;
        let failed = match timeout_at(Instant::now() + limit, self.look_up(&target.endpoint.host)).await {
            Ok(Ok(addresses)) => return Ok(addresses),
            Ok(Err(error)) => Kind::DnsFailed {
                name: target.endpoint.host.to_string(),
                reason: error.to_string(),
            },
            Err(_) => timed_out(Phase::Dns, limit),
        };
        Err(Finding::network(failed))
    }

    async fn look_up(&self, host: &Host) -> Result<Vec<IpAddr>, resolve::Error> {
        let mut tries = 1;
        loop {
            match self.shared.resolver.addresses(host).await {
                Err(resolve::Error::Failed(_)) if tries < self.shared.options.tries => {
                    tokio::time::sleep(pause()).await
                }
                result => return result,
            }
            tries += 1;
        }
    }

    /// One address: tried again while the network is at fault and time is left.
    async fn observe(&self, target: &Target, address: IpAddr) -> Observation {
        let _socket = self.shared.sockets.acquire().await;
        let began = Instant::now();
        let deadline = began + self.shared.options.timeouts.endpoint;
        let mut tries = 1;
        let mut sight = self.look(target, address, deadline).await;
        while sight.failure.is_some() && tries < self.shared.options.tries {
            let pause = pause();
            if Instant::now() + pause >= deadline {
                break;
            }
            tokio::time::sleep(pause).await;
            sight = sight.or(self.look(target, address, deadline).await);
            tries += 1;
        }
        let address = SocketAddr::new(address, target.endpoint.port);
        let mut observation = self.judge(target, address, sight).await;
        observation.elapsed_ms = began.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        observation.tries = tries;
        observation
    }

    async fn look(&self, target: &Target, address: IpAddr, deadline: Instant) -> Sight {
        let sight = self.shake_hands(target, address, deadline).await;
        let Some(Kind::HandshakeFailed { .. }) = &sight.failure else {
            return sight;
        };
        if !sight.chain.is_empty() {
            return sight;
        }
        // Nothing that today's clients accept. Older servers show their certificate in clear.
        match self.shake_hands_as_of_old(target, address, deadline).await {
            // It could have agreed with today's clients: what made us fail is something else.
            Some(Ok(old)) if old.is_modern() => Sight {
                failure: sight.failure,
                ..Sight::of_old(old, false)
            },
            Some(Ok(old)) => Sight::of_old(old, true),
            Some(Err(error)) if sight.not_tls => Sight {
                failure: Some(Kind::HandshakeFailed {
                    reason: error.to_string(),
                }),
                ..sight
            },
            _ => sight,
        }
    }

    async fn shake_hands(&self, target: &Target, address: IpAddr, deadline: Instant) -> Sight {
        let stream = match self.open(target, address, deadline).await {
            Ok(stream) => stream,
            Err(failure) => return Sight::failed(failure),
        };
        let witness = Arc::new(Witness::default());
        let handshake = self.shared.handshaker.handshake(stream, server_name(target), &witness);
        match within(Phase::Handshake, self.shared.options.timeouts, deadline, handshake).await {
            Ok(capture) => {
                let not_tls = capture.failure.as_ref().is_some_and(|failure| failure.not_tls);
                let failure = capture
                    .failure
                    .map(|Failure { reason, .. }| Kind::HandshakeFailed { reason });
                Sight {
                    chain: capture.chain,
                    tls: capture.tls,
                    legacy: false,
                    failure,
                    not_tls,
                }
            }
            Err(failure) => Sight {
                chain: witness.chain(),
                ..Sight::failed(failure)
            },
        }
    }

    async fn shake_hands_as_of_old(
        &self,
        target: &Target,
        address: IpAddr,
        deadline: Instant,
    ) -> Option<Result<Legacy, legacy::Error>> {
        let mut stream = self.open(target, address, deadline).await.ok()?;
        let name = match server_name(target) {
            ServerName::DnsName(name) => Some(name.as_ref().to_owned()),
            _ => None,
        };
        let fetch = legacy::fetch(&mut stream, name.as_deref());
        within(Phase::Handshake, self.shared.options.timeouts, deadline, fetch)
            .await
            .ok()
    }

    /// A connection on which TLS can begin.
    async fn open(&self, target: &Target, address: IpAddr, deadline: Instant) -> Result<TcpStream, Kind> {
        let timeouts = self.shared.options.timeouts;
        let connect = TcpStream::connect((address, target.endpoint.port));
        let mut stream = within(Phase::Connect, timeouts, deadline, connect)
            .await?
            .map_err(|error| Kind::ConnectFailed { reason: plain(&error) })?;
        if let Some(protocol) = target.endpoint.starttls {
            let host = target.endpoint.host.to_string();
            let upgrade = starttls::upgrade(protocol, &mut stream, &host);
            within(Phase::Starttls, timeouts, deadline, upgrade)
                .await?
                .map_err(|error| Kind::StarttlsFailed {
                    protocol: protocol.to_string(),
                    reason: error.to_string(),
                })?;
        }
        Ok(stream)
    }

    async fn judge(&self, target: &Target, address: SocketAddr, sight: Sight) -> Observation {
        let now = self.now();
        let mut findings: Vec<_> = sight.failure.into_iter().map(Finding::network).collect();
        let (mut leaf, mut issuers, mut revocation) = (None, Vec::new(), None);
        if !sight.chain.is_empty() {
            let name = server_name(target);
            let criteria = Criteria {
                name: &name,
                roots: &target.roots,
                thresholds: target.thresholds,
                now,
            };
            let verdict = judge(&sight.chain, &criteria);
            findings.extend(verdict.findings);
            if verdict.trusted && self.shared.options.revocation {
                let status = self.revocation(&sight.chain, &target.roots, now).await;
                findings.extend(status.finding(now));
                revocation = Some(status.into());
            }
            (leaf, issuers) = (verdict.leaf, verdict.issuers);
        }
        if let (
            true,
            Some(Tls {
                version, cipher_suite, ..
            }),
        ) = (sight.legacy, &sight.tls)
        {
            let kind = Kind::LegacyTls {
                version: version.clone(),
                cipher_suite: cipher_suite.clone(),
            };
            findings.push(Finding::new(kind, Severity::Warning, now));
        }
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Observation {
            address,
            tls: sight.tls,
            leaf,
            issuers,
            revocation,
            findings,
            elapsed_ms: 0,
            tries: 0,
        }
    }

    async fn revocation(&self, chain: &[CertificateDer<'static>], roots: &Roots, now: Timestamp) -> crl::Status {
        match chain.split_first() {
            Some((leaf, sent)) => self.shared.crls.check(leaf, sent, roots, now).await,
            None => crl::Status::Skipped {
                reason: "there is no certificate".to_owned(),
            },
        }
    }

    fn now(&self) -> Timestamp {
        self.shared.options.at.unwrap_or_else(Timestamp::now)
    }
}

/// What one try showed.
struct Sight {
    chain: Vec<CertificateDer<'static>>,
    tls: Option<Tls>,
    legacy: bool,
    failure: Option<Kind>,
    not_tls: bool,
}

impl Sight {
    fn failed(failure: Kind) -> Self {
        Self {
            chain: Vec::new(),
            tls: None,
            legacy: false,
            failure: Some(failure),
            not_tls: false,
        }
    }

    fn of_old(shown: Legacy, legacy: bool) -> Self {
        let tls = Tls {
            version: shown.version,
            cipher_suite: shown.cipher_suite,
            key_exchange: None,
        };
        Self {
            chain: shown.certificates,
            tls: Some(tls),
            legacy,
            failure: None,
            not_tls: false,
        }
    }

    /// The next try, unless it failed too and saw less, or was cut short: that says nothing of the server.
    fn or(self, next: Self) -> Self {
        let saw_less = next.failure.is_some() && next.chain.is_empty() && !self.chain.is_empty();
        let cut_short = matches!(
            next.failure,
            Some(Kind::TimedOut {
                phase: Phase::Endpoint,
                ..
            })
        );
        if saw_less || cut_short { self } else { next }
    }
}

/// Runs a step under its own deadline and the endpoint's, whichever is first.
async fn within<T>(
    phase: Phase,
    timeouts: Timeouts,
    deadline: Instant,
    step: impl Future<Output = T>,
) -> Result<T, Kind> {
    let limit = match phase {
        Phase::Dns => timeouts.dns,
        Phase::Connect => timeouts.connect,
        Phase::Starttls => timeouts.starttls,
        Phase::Handshake => timeouts.handshake,
        Phase::Endpoint => timeouts.endpoint,
    };
    let own = Instant::now() + limit;
    let late = if own <= deadline {
        timed_out(phase, limit)
    } else {
        timed_out(Phase::Endpoint, timeouts.endpoint)
    };
    timeout_at(own.min(deadline), step).await.map_err(|_| late)
}

fn timed_out(phase: Phase, after: Duration) -> Kind {
    Kind::TimedOut {
        phase,
        after_ms: after.as_millis().try_into().unwrap_or(u64::MAX),
    }
}

/// The name that a client asks for: the SNI that was set, else the host.
fn server_name(target: &Target) -> ServerName<'static> {
    target.sni.as_ref().unwrap_or(&target.endpoint.host).server_name()
}

/// Leaves out IPv6 where there is no route to it.
fn routable(addresses: Vec<IpAddr>) -> (Vec<IpAddr>, Vec<Skipped>) {
    let (routable, lost): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|to| to.is_ipv4() || has_route(*to));
    let reason = "no IPv6 route from here";
    (
        routable,
        lost.into_iter()
            .map(|address| Skipped {
                address,
                reason: reason.to_owned(),
            })
            .collect(),
    )
}

/// Leaves out what is too much for one name: whoever answers for it in DNS must not take the time of all the others.
fn few((mut addresses, mut skipped): (Vec<IpAddr>, Vec<Skipped>)) -> (Vec<IpAddr>, Vec<Skipped>) {
    let surplus = addresses.split_off(addresses.len().min(ADDRESSES));
    skipped.extend(surplus.into_iter().map(|address| Skipped {
        address,
        reason: format!("more than {ADDRESSES} addresses"),
    }));
    (addresses, skipped)
}

/// Leaves out IPv6 that the network cannot carry, as when a host has an address but its router no way out. Only when
/// another address could be reached: otherwise it is all there is to say of the name.
fn reachable(observations: Vec<Observation>) -> (Vec<Observation>, Vec<Skipped>) {
    let (lost, reached): (Vec<_>, Vec<_>) = observations
        .into_iter()
        .map(|seen| (unreachable(&seen), seen))
        .partition(|(reason, _)| reason.is_some());
    if reached.is_empty() {
        return (lost.into_iter().map(|(_, seen)| seen).collect(), Vec::new());
    }
    let skipped = lost.into_iter().filter_map(|(reason, seen)| {
        Some(Skipped {
            address: seen.address.ip(),
            reason: format!("no IPv6 connection from here: {}", reason?),
        })
    });
    let skipped = skipped.collect();
    (reached.into_iter().map(|(_, seen)| seen).collect(), skipped)
}

/// What the network said of an IPv6 address that it could not carry anything to.
fn unreachable(seen: &Observation) -> Option<&'static str> {
    let reason = seen.findings.iter().find_map(|finding| match &finding.kind {
        Kind::ConnectFailed { reason } => [HOST_UNREACHABLE, NETWORK_UNREACHABLE]
            .into_iter()
            .find(|unreachable| reason == unreachable),
        _ => None,
    });
    reason.filter(|_| seen.address.is_ipv6())
}

fn disagreement(observations: &[Observation], now: Timestamp) -> Option<Finding> {
    let mut served = BTreeMap::<&str, Served>::new();
    for seen in observations {
        let Some(leaf) = &seen.leaf else { continue };
        let (fingerprint, not_after) = (leaf.fingerprint.clone(), leaf.not_after);
        let entry = served.entry(&leaf.fingerprint);
        entry
            .or_insert(Served {
                fingerprint,
                not_after,
                addresses: Vec::new(),
            })
            .addresses
            .push(seen.address);
    }
    let certificates: Vec<_> = served.into_values().collect();
    (certificates.len() > 1).then(|| Finding::new(Kind::AddressesDisagree { certificates }, Severity::Warning, now))
}

/// The usual reasons in words, without the error number.
fn plain(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset => "connection reset".to_owned(),
        ErrorKind::HostUnreachable => HOST_UNREACHABLE.to_owned(),
        ErrorKind::NetworkUnreachable => NETWORK_UNREACHABLE.to_owned(),
        ErrorKind::TimedOut => "timed out".to_owned(),
        _ => error.to_string(),
    }
}

/// Between two tries; jittered, so that a network in trouble does not see all of them come back at once.
fn pause() -> Duration {
    Duration::from_millis(rand::rng().random_range(PAUSE_MS))
}

const STEP: Duration = Duration::from_secs(5);
/// The largest round robins have some dozens.
const ADDRESSES: usize = 100;
const PAUSE_MS: std::ops::Range<u64> = 200..600;
const HOST_UNREACHABLE: &str = "host unreachable";
const NETWORK_UNREACHABLE: &str = "network unreachable";

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    fn seen(address: &str, failure: Option<ErrorKind>) -> Observation {
        let failed = |kind: ErrorKind| Kind::ConnectFailed {
            reason: plain(&Error::from(kind)),
        };
        Observation {
            address: address.parse().unwrap(),
            tls: None,
            leaf: None,
            issuers: Vec::new(),
            revocation: None,
            findings: failure.map(|kind| Finding::network(failed(kind))).into_iter().collect(),
            elapsed_ms: 0,
            tries: 2,
        }
    }

    #[test]
    fn a_try_that_was_cut_short_hides_no_reason() {
        let failed = |reason: &str| Kind::ConnectFailed {
            reason: reason.to_owned(),
        };
        let (phase, second) = (Phase::Endpoint, Duration::from_secs(1));
        for (next, expected) in [
            (failed("second"), failed("second")),
            (timed_out(phase, second), failed("first")),
            (timed_out(Phase::Connect, second), timed_out(Phase::Connect, second)),
        ] {
            let sight = Sight::failed(failed("first")).or(Sight::failed(next));
            assert_eq!(sight.failure, Some(expected));
        }
    }

    #[test]
    fn ipv6_that_the_network_cannot_carry_is_skipped_when_another_address_is_left() {
        let (v4, v6, other_v6) = ("192.0.2.7:443", "[2001:db8::7]:443", "[2001:db8::8]:443");
        let (host, network) = (Some(ErrorKind::HostUnreachable), Some(ErrorKind::NetworkUnreachable));
        let refused = Some(ErrorKind::ConnectionRefused);
        for (observations, expected) in [
            (vec![seen(v4, None), seen(v6, None)], vec![]),
            (
                vec![seen(v4, None), seen(v6, network)],
                vec!["2001:db8::7 no IPv6 connection from here: network unreachable"],
            ),
            (
                vec![seen(v4, refused), seen(v6, host), seen(other_v6, network)],
                vec![
                    "2001:db8::7 no IPv6 connection from here: host unreachable",
                    "2001:db8::8 no IPv6 connection from here: network unreachable",
                ],
            ),
            (
                vec![seen(v6, host), seen(other_v6, None)],
                vec!["2001:db8::7 no IPv6 connection from here: host unreachable"],
            ),
            // It may be the server, and nothing else tells.
            (vec![seen(v6, host)], vec![]),
            (vec![seen(v6, host), seen(other_v6, network)], vec![]),
            // Everybody has IPv4: the server is at fault, or the way to it.
            (vec![seen(v4, host), seen(v6, None)], vec![]),
            (vec![seen(v4, None), seen(v6, refused)], vec![]),
        ] {
            let before = observations.len();
            let (left, skipped) = reachable(observations);
            let said: Vec<_> = skipped
                .iter()
                .map(|skipped| format!("{} {}", skipped.address, skipped.reason))
                .collect();
            assert_eq!(said, expected);
            assert_eq!(left.len() + skipped.len(), before);
            assert!(
                left.iter()
                    .all(|seen| !said.iter().any(|line| line.starts_with(&seen.address.ip().to_string())))
            );
        }
    }
}
