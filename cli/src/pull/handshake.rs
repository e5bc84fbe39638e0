//! What the local server really serves.
//!
//! There are three answers, and they are kept apart: it serves the certificate, it serves another
//! one, or nobody could look. Only the second one says that an installation failed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use neverlapse::bucket::version::Facts;
use neverlapse::certificate::Certificate;
use neverlapse::chain::roots::Roots;
use neverlapse::ehlo::Ehlo;
use neverlapse::endpoint::{Endpoint, Host};
use neverlapse::finding::{Finding, Kind};
use neverlapse::inventory::KeyType;
use neverlapse::observation::Observation;
use neverlapse::probe::starttls;
use neverlapse::probe::tls::{Handshaker, Witness};
use neverlapse::probe::{Certificates, Options, Prober, Target, Timeouts};
use neverlapse::text::{cut, printable, some_of};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::config::Wanted;
use super::relay::{Place, Relay};

/// What was seen of a certificate at the places where it is to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Every place serves it.
    Served,
    /// A place could not be checked, and no place that was seen serves another certificate.
    Unknown {
        reason: String,
        /// Whether there was no connection at all: the server may be down.
        is_down: bool,
    },
    /// A place serves it, and then the one before it again: some of its processes have the old one.
    Mixed(String),
    /// A place serves another certificate.
    Another(String),
}

/// Probes every place several times: processes that share a port can serve different certificates.
///
/// `before` is the version that was installed before, to name it where it is still served.
pub(crate) async fn looks(wanted: &Wanted, facts: &Facts, before: Option<&Facts>) -> Seen {
    let places = wanted.verify.iter().map(|place| async {
        let place = Look::new(place, wanted, facts, before).await;
        for _ in 1..LOOKS {
            let seen = place.look().await;
            if seen != Seen::Served {
                return seen;
            }
            sleep(PAUSE).await;
        }
        place.look().await
    });
    together(join_all(places).await)
}

/// Probes every place until it serves the certificate for a while, or time is up.
///
/// After a reload a server takes a moment to hand over, in which old and new processes answer in
/// turn.
pub(crate) async fn comes_to_serve(wanted: &Wanted, facts: &Facts, before: Option<&Facts>, limit: Duration) -> Seen {
    let deadline = Instant::now() + limit;
    let places = wanted.verify.iter().map(|place| async move {
        let place = Look::new(place, wanted, facts, before).await;
        let mut handover = Handover::default();
        loop {
            let seen = place.look().await;
            let now = Instant::now();
            if let Some(end) = handover.next(seen, now, now + PAUSE > deadline) {
                return end;
            }
            sleep(PAUSE).await;
        }
    });
    together(join_all(places).await)
}

/// The looks at one place after a reload.
#[derive(Default)]
struct Handover {
    /// When the new certificate was first seen.
    first: Option<Instant>,
    in_a_row: u32,
    /// The old one came back when the handover should have been over.
    fell_back: Option<String>,
}

impl Handover {
    /// Takes a look into account. The answer is the end, if this look settles it or is the last.
    fn next(&mut self, seen: Seen, now: Instant, is_last: bool) -> Option<Seen> {
        match &seen {
            Seen::Served => {
                if let Some(reason) = &self.fell_back {
                    return Some(Seen::Mixed(format!(
                        "not every process serves it: {reason}, and then serves it again"
                    )));
                }

                let first = *self.first.get_or_insert(now);
                if now >= first + SETTLING {
                    self.in_a_row += 1;
                }
                if self.in_a_row >= IN_A_ROW {
                    return Some(seen);
                }
            }
            Seen::Another(reason) | Seen::Mixed(reason) => {
                self.in_a_row = 0;
                if self.first.is_some_and(|first| now >= first + SETTLING) {
                    self.fell_back = Some(reason.clone());
                }
            }
            Seen::Unknown { .. } => self.in_a_row = 0,
        }
        is_last.then_some(seen)
    }
}

/// The worst answer, in the words of all that are not good.
fn together(seen: Vec<Seen>) -> Seen {
    let mut reasons = Vec::new();
    let mut all_down = true;
    let mut another = false;
    let mut mixed = false;

    for place in seen {
        match place {
            Seen::Served => continue,
            Seen::Unknown { reason, is_down } => {
                all_down &= is_down;
                reasons.push(reason);
            }
            Seen::Mixed(reason) => {
                mixed = true;
                reasons.push(reason);
            }
            Seen::Another(reason) => {
                another = true;
                reasons.push(reason);
            }
        }
    }

    let reason = reasons.join("; ");
    if another {
        Seen::Another(reason)
    } else if mixed {
        Seen::Mixed(reason)
    } else if reason.is_empty() {
        Seen::Served
    } else {
        Seen::Unknown {
            reason,
            is_down: all_down,
        }
    }
}

/// Where a certificate is looked for, and under which name.
struct Look<'a> {
    place: &'a Place,
    /// What the prober connects to: the place itself, or a relay to it.
    endpoint: Endpoint,
    relay: Option<Relay>,
    name: Host,
    facts: &'a Facts,
    before: Option<&'a Facts>,
    live: &'a Path,
    of_its_key: Result<Prober, String>,
    of_any_key: Result<Prober, String>,
}

impl<'a> Look<'a> {
    async fn new(place: &'a Place, wanted: &'a Wanted, facts: &'a Facts, before: Option<&'a Facts>) -> Self {
        let (endpoint, relay, failure) = match place.direct() {
            Some(endpoint) => (endpoint.clone(), None, None),
            None => match Relay::open(place).await {
                Ok(relay) => (relay.endpoint.clone(), Some(relay), None),
                Err(error) => (NOWHERE, None, Some(format!("no port is left on this host: {error}"))),
            },
        };

        let prober = |key| match &failure {
            Some(failure) => Err(failure.clone()),
            None => prober(&endpoint, key),
        };
        Self {
            of_its_key: prober(Some(facts.key)),
            of_any_key: prober(None),
            place,
            endpoint,
            relay,
            name: server_name(wanted, facts),
            facts,
            before,
            live: &wanted.live,
        }
    }

    /// Looks once, as a client that only takes the certificate's kind of key: a server with two
    /// certificates for a name shows the one that is meant. A server that has nothing for such a
    /// client is asked as any client does.
    async fn look(&self) -> Seen {
        match self.ask(&self.of_its_key).await {
            Seen::Unknown { is_down: false, .. } => self.ask(&self.of_any_key).await,
            seen => seen,
        }
    }

    async fn ask(&self, prober: &Result<Prober, String>) -> Seen {
        let prober = match prober {
            Ok(prober) => prober,
            Err(reason) => {
                return Seen::Unknown {
                    reason: format!("{}: {reason}", self.place),
                    is_down: false,
                };
            }
        };
        let target = Target {
            sni: Some(self.name.clone()),
            ..Target::plain(self.endpoint.clone(), Roots::public().into())
        };
        let report = prober.probe(&target).await;

        let mut seen = Vec::new();
        for observation in &report.observations {
            seen.push((observation.address, self.judge(observation).await));
        }
        // `localhost` is two addresses, and a server that listens on one of them is not down.
        let is_served = seen.iter().any(|(_, seen)| *seen == Seen::Served);
        if is_served {
            seen.retain(|(address, seen)| {
                !(address.ip().is_loopback() && matches!(seen, Seen::Unknown { is_down: true, .. }))
            });
        }

        match report.findings.first() {
            Some(finding) if report.observations.is_empty() => Seen::Unknown {
                reason: format!("{}: {}", self.place, finding.message),
                is_down: matches!(finding.kind, Kind::ConnectFailed { .. }),
            },
            _ => together(seen.into_iter().map(|(_, seen)| seen).collect()),
        }
    }

    /// What an address shows. The certificate counts as seen even where the handshake cannot be
    /// completed: that the library lacks what the server wants says nothing about the certificate.
    async fn judge(&self, observation: &Observation) -> Seen {
        let address = observation.address;
        // The address of a relay says nothing to anybody.
        let shown = match self.relay {
            Some(_) => self.place.to_string(),
            None => address.to_string(),
        };
        let stopped = observation.findings.iter().filter(|finding| finding.is_network());
        let message = stopped
            .clone()
            .map(|finding| finding.message.as_str())
            .collect::<Vec<_>>()
            .join("; ");

        let unreached = self.relay.as_ref().and_then(Relay::failure);
        match &observation.leaf {
            None if unreached.is_some() => Seen::Unknown {
                reason: unreached.unwrap_or_default().to_owned(),
                is_down: true,
            },
            None => Seen::Unknown {
                reason: format!("{shown} shows no certificate: {message}"),
                is_down: stopped.clone().any(is_down),
            },
            Some(leaf) if leaf.fingerprint != self.facts.fingerprint => Seen::Another(format!(
                "{shown} does not serve it for {}, but {}",
                self.name,
                self.other(leaf)
            )),
            // A server can show a certificate whose key it cannot use.
            Some(_) if !message.is_empty() && self.is_key_refuted(address).await => Seen::Another(format!(
                "{shown} shows it, but no handshake comes to its end: {message}"
            )),
            Some(_) => Seen::Served,
        }
    }

    /// What is served instead.
    fn other(&self, leaf: &Certificate) -> String {
        match self.before {
            Some(before) if before.fingerprint == leaf.fingerprint => format!(
                "version {} from before, which ends on {}",
                before.version, before.not_after
            ),
            _ => unknown_here(leaf, self.live),
        }
    }

    /// Whether the server signs the handshake with another key than the certificate's.
    async fn is_key_refuted(&self, address: SocketAddr) -> bool {
        let witness = Arc::new(Witness::default());
        let handshake = async {
            let mut stream = TcpStream::connect(address).await.ok()?;
            if let Some(protocol) = self.endpoint.starttls {
                let host = self.endpoint.host.to_string();
                let ehlo = Ehlo::literal(stream.local_addr().ok()?.ip());
                starttls::upgrade(protocol, &mut stream, &host, &ehlo).await.ok()?;
            }
            let name = self.name.server_name()?;
            Some(Handshaker::default().handshake(stream, name, &witness).await)
        };
        let _ = timeout(STEP, handshake).await;
        witness.key_refuted()
    }
}

/// A certificate that is not known here most likely never came from here: then the server's
/// configuration does not name our files.
fn unknown_here(leaf: &Certificate, live: &Path) -> String {
    // A server can have any text as a name, and any number of them.
    let names = leaf.names.iter().map(|name| cut(&printable(name), LONGEST_NAME));
    format!(
        "another certificate, for {} by {:?}, which ends on {} (fingerprint {}); does the server's configuration \
         name {} for this name (server_name = \"…\" in pull.toml asks for another)?",
        some_of(names, NAMES),
        leaf.issuer,
        leaf.not_after,
        leaf.fingerprint,
        live.display()
    )
}

fn is_down(finding: &Finding) -> bool {
    matches!(finding.kind, Kind::ConnectFailed { .. })
}

/// A name that the certificate is for: a server may have another certificate for any other.
///
/// What is written in the configuration comes first, a name before a wildcard, and a wildcard is
/// asked for by a name that it covers.
fn server_name(wanted: &Wanted, facts: &Facts) -> Host {
    if let Some(name) = &wanted.server_name {
        return name.clone();
    }

    let written = wanted.identifiers.iter();
    let issued = facts.identifiers.iter();
    let names = written
        .clone()
        .filter(|name| !is_wildcard(name))
        .chain(written.filter(is_wildcard))
        .chain(issued.clone().filter(|name| !is_wildcard(name)))
        .chain(issued.filter(is_wildcard))
        .chain([&wanted.name]);

    let mut hosts = names.filter_map(|name| name.replacen('*', CHECK, 1).parse::<Host>().ok());
    hosts.next().unwrap_or(Host::Ip(std::net::Ipv4Addr::LOCALHOST.into()))
}

fn is_wildcard(name: &&String) -> bool {
    name.starts_with("*.")
}

fn prober(endpoint: &Endpoint, key: Option<KeyType>) -> Result<Prober, String> {
    // An address needs no name server: whatever the system's configuration says makes no
    // difference.
    let nameserver = match &endpoint.host {
        Host::Ip(_) => Some(SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), 53)),
        Host::Name(_) => None,
    };
    let options = Options {
        nameserver,
        tries: 1,
        revocation: false,
        timeouts: Timeouts::within(STEP),
        certificates: key.map_or(Certificates::Chosen, Certificates::OfKey),
        ..Options::default()
    };
    Prober::new(options).map_err(|error| error.to_string())
}

/// What is connected to where there is no relay: nothing, because there is no prober either.
const NOWHERE: Endpoint = Endpoint {
    host: Host::Ip(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
    port: 0,
    starttls: None,
};
const STEP: Duration = Duration::from_secs(5);
/// Of another certificate.
const NAMES: usize = 5;
/// A DNS name has at most 253 characters.
const LONGEST_NAME: usize = 253;
/// The label that stands for the asterisk of a wildcard.
const CHECK: &str = "neverlapse-check";
/// In each run. Half of the clients getting the old certificate goes unseen once in a thousand
/// runs.
const LOOKS: u32 = 10;
/// After a handover. One process of eight with the old certificate is seen more often than not.
const IN_A_ROW: u32 = 20;
/// Old and new processes answer in turn for so long at most.
const SETTLING: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(40);

#[cfg(test)]
mod tests {
    use neverlapse::certificate::Role;
    use neverlapse::timestamp;

    use super::super::state::tests::current;
    use super::*;

    fn unknown(reason: &str, is_down: bool) -> Seen {
        Seen::Unknown {
            reason: reason.into(),
            is_down,
        }
    }

    #[test]
    fn could_not_look_was_taken_for_not_served() {
        let another = |reason: &str| Seen::Another(reason.into());
        for (seen, expected) in [
            (vec![], Seen::Served),
            (vec![Seen::Served, Seen::Served], Seen::Served),
            (
                vec![Seen::Served, unknown("b is down", true)],
                unknown("b is down", true),
            ),
            (vec![unknown("a", true), unknown("b", false)], unknown("a; b", false)),
            (vec![unknown("a", true), another("b")], another("a; b")),
            (
                vec![Seen::Mixed("a".into()), unknown("b", true)],
                Seen::Mixed("a; b".into()),
            ),
        ] {
            assert_eq!(together(seen), expected);
        }
    }

    #[test]
    fn a_lucky_streak_was_a_proof() {
        let start = Instant::now();
        // A look in every pause: "n" is the new certificate, "o" the old one, "?" no look.
        let follow = |looks: String| {
            let mut handover = Handover::default();
            let last = looks.len() - 1;
            looks.chars().enumerate().find_map(|(number, look)| {
                let seen = match look {
                    'n' => Seen::Served,
                    'o' => Seen::Another("old".into()),
                    _ => unknown("refused", true),
                };
                handover.next(seen, start + PAUSE * u32::try_from(number).unwrap(), number == last)
            })
        };
        let new = "n".repeat(60);
        let old = "o".repeat(60);

        let mixed = |end: &Option<Seen>| matches!(end, Some(Seen::Mixed(_)));
        assert_eq!(follow(new.clone()), Some(Seen::Served));
        assert_eq!(follow(format!("{old}{new}")), Some(Seen::Served));
        assert_eq!(follow(format!("{old}nononoon{new}")), Some(Seen::Served), "a handover");
        assert_eq!(follow(format!("??{new}")), Some(Seen::Served), "a restart");
        assert!(mixed(&follow(format!("{}on", "n".repeat(15)))));
        assert!(mixed(&follow("no".repeat(60))));
        assert_eq!(
            follow(format!("{}{old}", "n".repeat(15))),
            Some(Seen::Another("old".into()))
        );
        assert_eq!(follow("nnn".into()), Some(Seen::Served), "there was no time for more");
    }

    #[test]
    fn the_names_of_another_certificate_wrote_lines_of_their_own() {
        let mut names = vec!["a.test\n<3>error: \u{1b}[2J".to_owned(), "b".repeat(70_000)];
        names.extend((0..5_000).map(|number| format!("{number}.test")));
        let leaf = Certificate {
            subject: String::new(),
            issuer: "CN=CA".into(),
            serial: String::new(),
            fingerprint: "f0".into(),
            not_before: timestamp!(2026-10-01 12:00 UTC),
            not_after: timestamp!(2026-12-01 12:00 UTC),
            names,
            key: String::new(),
            signature: String::new(),
            role: Role::Leaf,
        };
        let text = unknown_here(&leaf, Path::new("/live/shop/fullchain.pem"));
        let start = "another certificate, for a.test\\n<3>error: \\u{1b}[2J, bbb";
        assert!(text.starts_with(start), "{text}");
        assert!(text.contains(" and 4997 more by \"CN=CA\""), "{text}");
        assert!(text.len() < 2_000 && !text.contains(char::is_control), "{text}");
    }

    #[test]
    fn a_server_was_asked_for_a_name_that_the_certificate_is_not_for() {
        for (server_name, written, issued, expected) in [
            (None, vec![], vec!["www.shop.test"], "www.shop.test"),
            (None, vec![], vec!["*.shop.test"], "neverlapse-check.shop.test"),
            (None, vec![], vec!["*.shop.test", "shop.test"], "shop.test"),
            (
                None,
                vec!["*.shop.test"],
                vec!["shop.test"],
                "neverlapse-check.shop.test",
            ),
            (None, vec!["*.shop.test", "a.shop.test"], vec![], "a.shop.test"),
            (None, vec![], vec!["192.0.2.1"], "192.0.2.1"),
            (None, vec![], vec![], "shop"),
            (Some("b.test"), vec!["a.test"], vec!["c.test"], "b.test"),
        ] {
            let mut config = "[[certificate]]\nname = \"shop\"\n".to_owned();
            config += &format!("identifiers = {written:?}\n");
            if let Some(server_name) = server_name {
                config += &format!("server_name = {server_name:?}\n");
            }
            let wanted = super::super::config::Config::parse(&config)
                .unwrap()
                .certificates
                .remove(0);
            let mut facts = current(1, "v1").facts;
            facts.identifiers = issued.iter().map(ToString::to_string).collect();
            assert_eq!(super::server_name(&wanted, &facts).to_string(), expected);
        }
    }
}
