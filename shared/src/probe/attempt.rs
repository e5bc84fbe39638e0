//! One try at one address: connect, upgrade, handshake; and what it showed, however far it got.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::select;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::legacy::{self, Legacy};
use super::starttls;
use super::target::Target;
use super::timeouts::{STEP, Timeouts};
use super::tls::{self, Handshaker, Witness};
use crate::certificate::{Curve, Key};
use crate::ehlo::Ehlo;
use crate::endpoint::Host;
use crate::finding::{Kind, Phase};
use crate::inventory::KeyType;
use crate::observation::Tls;

/// One address of a target, and how long it may take.
pub(super) struct Peer<'a> {
    pub(super) target: &'a Target,
    pub(super) address: IpAddr,
    pub(super) handshakers: &'a Handshakers,
    /// The name to give a mail server, if it is not an address.
    pub(super) ehlo: Option<&'a Ehlo>,
    /// Whether this is a Lambda function, from which AWS lets no mail out.
    pub(super) in_lambda: bool,
    pub(super) timeouts: Timeouts,
    /// When all tries together have to end.
    pub(super) deadline: Instant,
    /// How many more connections may be open. Its own counts already.
    pub(super) sockets: &'a Semaphore,
}

/// How to make a handshake.
#[derive(Debug)]
pub(super) struct Handshakers {
    /// As today's clients do.
    usual: Handshaker,
    /// The same with a ClientHello that fits into one packet.
    small: Handshaker,
    /// Those of clients that want an ECDSA or an RSA key only.
    ecdsa: Handshaker,
    rsa: Handshaker,
}

/// What one try showed.
pub(super) struct Attempt {
    /// Everything that the server sent, leaf first; empty when it did not get that far.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The agreed parameters, as far as they were agreed.
    pub(super) tls: Option<Tls>,
    /// Whether not all of today's clients can agree with this server.
    pub(super) is_legacy: bool,
    /// The OCSP response that came with the chain, if it was asked for; empty if none came.
    pub(super) staple: Option<Vec<u8>>,
    pub(super) failure: Option<Failure>,
}

/// Why a try failed.
#[derive(Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    cause: Cause,
}

#[derive(Debug, PartialEq, Eq)]
enum Cause {
    /// The network's error while connecting.
    Connect(io::ErrorKind),
    /// How the handshake ended.
    Handshake(tls::HandshakeCause),
    /// The server has not sent anything by the deadline.
    Silent,
    /// The server knows version and suite, but refuses whatever curve or signature is offered.
    NothingInCommon,
    /// Any other: `kind` has all of it.
    Other,
}

/// What a server answered to smaller hellos than the usual one.
struct SecondLook {
    /// None if there was no connection or no time for it.
    legacy: Option<Result<Legacy, legacy::Error>>,
    /// None if the answer to the other one gave no reason to ask.
    small: Option<Attempt>,
}

impl Peer<'_> {
    /// Tries once.
    pub(super) async fn attempt(&self) -> Attempt {
        if self.target.requested().server_name().is_none() {
            return self.attempt_by_odd_name().await;
        }

        // A server that is given more time than usual may be slow, or may never answer this hello.
        // It is asked in another way while the first one waits.
        let mut handshake = pin!(self.handshake(&self.handshakers.usual));
        let (attempt, early) = select! {
            attempt = &mut handshake => (attempt, None),
            second = self.second_look_after(STEP + STEP / 2) => (handshake.await, Some(second)),
        };
        if !attempt.is_worth_a_second_look() && early.is_none() {
            return attempt;
        }
        if attempt.failure.is_none() || !attempt.chain.is_empty() {
            return attempt;
        }

        let second = match early {
            Some(second) => second,
            None => self.second_look(Some(&attempt)).await,
        };
        attempt.with(second)
    }

    /// Tries once with a name that the TLS library does not ask for. It makes a handshake without a
    /// name, and reads what the server shows an old client that asks for it.
    async fn attempt_by_odd_name(&self) -> Attempt {
        let attempt = self.handshake(&self.handshakers.usual).await;
        if attempt.connect_error().is_some() {
            return attempt;
        }
        match self.legacy_handshake().await {
            Some(Ok(legacy)) if legacy.certificates.first() != attempt.chain.first() => {
                let is_legacy = !legacy.choice.is_modern();
                Attempt {
                    is_legacy,
                    ..Attempt::legacy(legacy)
                }
            }
            _ => attempt,
        }
    }

    async fn second_look_after(&self, pause: Duration) -> SecondLook {
        sleep(pause).await;
        // The first connection is open still.
        let _socket = self.sockets.acquire().await;
        self.second_look(None).await
    }

    /// Asks as an old client, and if that is answered otherwise than the usual hello was, as
    /// today's clients with a small hello. `first` is how the usual one ended, if it has ended.
    async fn second_look(&self, first: Option<&Attempt>) -> SecondLook {
        // Older servers show their certificate in clear.
        let legacy = self.legacy_handshake().await;
        let may_be_size = first.is_none_or(Attempt::may_be_refused_for_size);
        let is_another_answer = match &legacy {
            Some(Ok(legacy)) => legacy.choice.is_modern(),
            Some(Err(legacy::Error::Alert(code))) => first.and_then(Attempt::alert) != Some(*code),
            _ => false,
        };

        let small = if may_be_size && is_another_answer {
            Some(self.handshake(&self.handshakers.small).await)
        } else {
            None
        };
        SecondLook { legacy, small }
    }

    /// The certificate of a server for clients that want the other kind of key than that of the one
    /// which it chose. Most servers have none, and refuse such clients at once.
    pub(super) async fn other_certificate(&self, chosen: &Attempt, tries: u32) -> Option<Attempt> {
        let is_askable = chosen.failure.is_none() && !chosen.is_legacy;
        if !is_askable || self.target.requested().server_name().is_none() {
            return None;
        }
        let leaf = chosen.chain.first()?;
        let handshaker = match key_of(leaf)? {
            Key::Rsa { .. } => &self.handshakers.ecdsa,
            _ => &self.handshakers.rsa,
        };

        let mut other = self.handshake(handshaker).await;
        // A lost connection must not look like a certificate that is gone.
        for _ in 1..tries {
            if other.connect_error().is_none() {
                break;
            }
            other = self.handshake(handshaker).await;
        }
        let is_other = is_rsa(other.chain.first()?)? != is_rsa(leaf)?;
        is_other.then_some(other)
    }

    /// The handshake of today's clients.
    async fn handshake(&self, handshaker: &Handshaker) -> Attempt {
        let stream = match self.open().await {
            Ok(stream) => stream,
            Err(failure) => return Attempt::failed(Vec::new(), failure),
        };

        // A witness survives the deadline, and has what the server showed by then.
        let witness = Arc::new(Witness::default());
        // For an address, no name is asked for.
        let name = self.target.requested().server_name();
        let name = name.unwrap_or_else(|| ServerName::from(self.address));
        let handshake = handshaker.handshake(stream, name, &witness);
        match self.timeouts.limit(Phase::Handshake, self.deadline, handshake).await {
            Ok(capture) => Attempt {
                chain: capture.chain,
                tls: capture.tls,
                is_legacy: false,
                staple: Some(capture.staple),
                failure: capture.failure.map(|failure| Failure {
                    kind: Kind::HandshakeFailed { reason: failure.reason },
                    cause: Cause::Handshake(failure.cause),
                }),
            },
            Err(late) => Attempt::failed(
                witness.chain(),
                Failure {
                    kind: late,
                    cause: if witness.has_heard() {
                        Cause::Other
                    } else {
                        Cause::Silent
                    },
                },
            ),
        }
    }

    /// The handshake of an old client, as far as the certificates; none if there was no connection
    /// or no time for it.
    async fn legacy_handshake(&self) -> Option<Result<Legacy, legacy::Error>> {
        let mut stream = self.open().await.ok()?;
        let name = match self.target.requested() {
            Host::Name(name) => Some(name.as_ref()),
            Host::Ip(_) => None,
        };
        let fetch = legacy::fetch(&mut stream, name);
        self.timeouts.limit(Phase::Handshake, self.deadline, fetch).await.ok()
    }

    /// A connection on which TLS can begin.
    async fn open(&self) -> Result<TcpStream, Failure> {
        let endpoint = &self.target.endpoint;
        let mut stream = self.connect().await?;

        if let Some(protocol) = endpoint.starttls {
            let host = self.target.requested().to_string();
            let ehlo = match self.ehlo {
                Some(ehlo) => ehlo.clone(),
                // The name of this machine may be unknown to the DNS; its address is what it is.
                None => Ehlo::literal(stream.local_addr().map_or(Ipv4Addr::LOCALHOST.into(), |own| own.ip())),
            };
            let upgrade = starttls::upgrade(protocol, &mut stream, &host, &ehlo);
            self.timeouts
                .limit(Phase::Starttls, self.deadline, upgrade)
                .await
                .map_err(|late| self.silence_before_tls(late))?
                .map_err(|error| Kind::StarttlsFailed {
                    protocol: protocol.to_string(),
                    reason: error.to_string(),
                })?;
        }
        Ok(stream)
    }

    /// A server that says nothing in plain text may wait for TLS.
    fn silence_before_tls(&self, late: Kind) -> Kind {
        let endpoint = &self.target.endpoint;
        match (endpoint.starttls, endpoint.scheme_with_tls()) {
            (Some(protocol), Some(scheme)) => Kind::StarttlsFailed {
                protocol: protocol.to_string(),
                reason: format!(
                    "{}. At port {}, TLS usually begins at once, which is {scheme}://",
                    late.failure(),
                    endpoint.port
                ),
            },
            _ => late,
        }
    }

    async fn connect(&self) -> Result<TcpStream, Failure> {
        let port = self.target.endpoint.port;
        let connect = TcpStream::connect((self.address, port));
        let connected = self.timeouts.limit(Phase::Connect, self.deadline, connect).await;
        let failure = match connected {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => Failure::connect(&error),
            Err(late) => Failure::from(late),
        };

        if port == MAIL && self.in_lambda {
            return Err(Failure {
                kind: Kind::ConnectFailed {
                    reason: format!("{}: {MAIL_FROM_LAMBDA}", failure.kind.failure()),
                },
                ..failure
            });
        }
        Err(failure)
    }
}

/// The kind of a certificate's key; none if the certificate cannot be read.
fn is_rsa(leaf: &CertificateDer<'_>) -> Option<bool> {
    Some(matches!(key_of(leaf)?, Key::Rsa { .. }))
}

fn key_of(leaf: &CertificateDer<'_>) -> Option<Key> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    Some(Key::of(&leaf))
}

impl Handshakers {
    pub(super) fn new(usual: Handshaker) -> Self {
        Self {
            small: usual.small(),
            usual,
            ecdsa: Handshaker::of_key(KeyType::EcdsaP256).small(),
            rsa: Handshaker::of_key(KeyType::Rsa2048).small(),
        }
    }
}

impl Attempt {
    fn failed(chain: Vec<CertificateDer<'static>>, failure: Failure) -> Self {
        Self {
            chain,
            tls: None,
            is_legacy: false,
            staple: None,
            failure: Some(failure),
        }
    }

    fn legacy(legacy: Legacy) -> Self {
        let tls = Tls {
            version: legacy.choice.version(),
            cipher_suite: legacy.choice.cipher_suite(),
            key_exchange: None,
        };
        Self {
            chain: legacy.certificates,
            tls: Some(tls),
            is_legacy: true,
            staple: None,
            failure: None,
        }
    }

    /// Whether the server may answer another hello: it did not get as far as its certificate.
    fn is_worth_a_second_look(&self) -> bool {
        let is_handshake = self.failure.as_ref().is_some_and(|failure| {
            matches!(
                failure.kind,
                Kind::HandshakeFailed { .. }
                    | Kind::TimedOut {
                        phase: Phase::Handshake,
                        ..
                    }
            )
        });
        is_handshake && self.chain.is_empty()
    }

    /// Whether the server, or something before it, may not have liked how large the hello was: all
    /// that came back was an alert, if anything.
    fn may_be_refused_for_size(&self) -> bool {
        use tls::HandshakeCause::{Alert, Closed};
        self.failure.as_ref().is_some_and(|failure| {
            matches!(
                failure.cause,
                Cause::Silent | Cause::Handshake(Alert(_)) | Cause::Handshake(Closed)
            )
        })
    }

    /// The alert that ended the handshake.
    fn alert(&self) -> Option<u8> {
        match self.failure.as_ref()?.cause {
            Cause::Handshake(tls::HandshakeCause::Alert(code)) => Some(code),
            _ => None,
        }
    }

    /// The attempt with what the server answered to smaller hellos. The reason of its failure stays
    /// the first one, unless that was only that the answer is not TLS.
    fn with(self, second: SecondLook) -> Self {
        let Some(failure) = &self.failure else { return self };
        let is_tls = failure.cause != Cause::Handshake(tls::HandshakeCause::NotTls);

        if let Some(small) = second.small.as_ref()
            && small.failure.is_none()
            && self.may_be_refused_for_size()
        {
            let reason = failure.kind.failure();
            let kind = Kind::HandshakeFailed {
                reason: format!("{reason}; {LARGE_HELLO}"),
            };
            return Self {
                chain: small.chain.clone(),
                tls: small.tls.clone(),
                is_legacy: false,
                staple: small.staple.clone(),
                failure: Some(Failure::from(kind)),
            };
        }

        let has_refused_both = self.alert().is_some() && second.small.is_some_and(|small| small.alert().is_some());
        // Noise may look like a long message, too.
        let is_too_large = failure.cause == Cause::Handshake(tls::HandshakeCause::TooLarge)
            && matches!(&second.legacy, Some(Ok(legacy)) if legacy.bytes() > tls::LONGEST_MESSAGE);
        match second.legacy {
            // It is no fault of the server that the library does not read its certificates.
            Some(Ok(legacy)) if is_too_large && legacy.choice.is_modern() => Self {
                is_legacy: false,
                ..Self::legacy(legacy)
            },
            // It could have agreed with today's clients: the handshake failed for another reason.
            Some(Ok(legacy)) if legacy.choice.is_modern() => Self {
                is_legacy: false,
                failure: self.failure.map(|failure| Failure {
                    cause: if has_refused_both {
                        Cause::NothingInCommon
                    } else {
                        failure.cause
                    },
                    ..failure
                }),
                ..Self::legacy(legacy)
            },
            Some(Ok(legacy)) => Self::legacy(legacy),
            // The legacy handshake reads what a server says that does not speak TLS.
            Some(Err(error @ legacy::Error::NotTls(_))) if !is_tls => Self {
                failure: Some(Failure::from(Kind::HandshakeFailed {
                    reason: error.to_string(),
                })),
                ..self
            },
            _ => self,
        }
    }

    /// Takes the failure away if all that it means is that the server wants a curve that this probe
    /// does not have: with a key of a usual kind, there are clients that connect.
    pub(super) fn judged_by_key(mut self) -> Self {
        let key = self.chain.first().and_then(key_of);
        let has_usual_key = match key {
            Some(Key::Rsa { bits }) => (2_048..=4_096).contains(&bits),
            Some(Key::Ecdsa(curve)) => curve.is_usual(),
            Some(Key::Dsa | Key::Ed25519 | Key::Ed448 | Key::RsaPss | Key::Other(_)) | None => false,
        };
        if has_usual_key && (self.failure.as_ref()).is_some_and(|failure| failure.cause == Cause::NothingInCommon) {
            self.failure = None;
            self.is_legacy = true;
        }
        self
    }

    /// Who does not take the kind of key that the server signs with, if that is all that is wrong:
    /// then a failure that came of it is taken away. Chromium was asked by hand.
    pub(super) fn take_unusual_key(&mut self) -> Option<Kind> {
        let key = self.chain.first().and_then(key_of)?;
        let failed = match &self.failure {
            None => false,
            Some(failure) if failure.cause == Cause::NothingInCommon => true,
            Some(_) => return None,
        };
        let clients: &[_] = match (&key, failed) {
            (Key::Ed25519 | Key::Ecdsa(Curve::P521), false) => &["Chrome"],
            (Key::Ecdsa(Curve::P521), true) => &["Chrome", "rustls"],
            (Key::Ed448 | Key::RsaPss, true) => &["Go", "Chrome", "Firefox", "rustls"],
            _ => return None,
        };

        self.failure = None;
        let reason = format!("the server signs with a key of the kind {key}");
        Some(Kind::refused_by(clients, reason))
    }

    /// The better of two tries: the next one, unless it failed too and saw less, or was cut short.
    /// A try that was cut short says nothing about the server.
    pub(super) fn or(self, next: Self) -> Self {
        let saw_less = next.failure.is_some() && next.chain.is_empty() && !self.chain.is_empty();
        let was_cut_short = next.failure.as_ref().is_some_and(|failure| {
            matches!(
                failure.kind,
                Kind::TimedOut {
                    phase: Phase::Endpoint,
                    ..
                }
            )
        });
        if saw_less || was_cut_short { self } else { next }
    }

    /// The network's error, if there was no connection.
    pub(super) fn connect_error(&self) -> Option<io::ErrorKind> {
        match self.failure.as_ref()?.cause {
            Cause::Connect(error) => Some(error),
            Cause::Handshake(_) | Cause::Silent | Cause::NothingInCommon | Cause::Other => None,
        }
    }
}

impl Failure {
    fn connect(error: &io::Error) -> Self {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};
        // The usual errors in words, without the error number.
        let reason = match error.kind() {
            kind @ (ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable | TimedOut) => {
                kind.to_string()
            }
            _ => error.to_string(),
        };
        Self {
            kind: Kind::ConnectFailed { reason },
            cause: Cause::Connect(error.kind()),
        }
    }
}

impl From<Kind> for Failure {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            cause: Cause::Other,
        }
    }
}

/// SMTP between servers.
pub const MAIL: u16 = 25;
/// Why a Lambda function never reaches it.
pub const MAIL_FROM_LAMBDA: &str = "AWS lets no Lambda function connect to port 25; watch port 587 or 465 of the \
                                    server, or run `neverlapse check` somewhere else";
const LARGE_HELLO: &str = "a smaller ClientHello is answered. Probably the server, or a middlebox before it, does not \
                           take a ClientHello of more than one packet: today's clients send 1,500 bytes, because of \
                           the post-quantum key share X25519MLKEM768";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::timeouts::timed_out;
    use super::*;

    #[test]
    fn a_try_that_was_cut_short_hides_no_reason() {
        let failed = |reason: &str| Kind::ConnectFailed {
            reason: reason.to_owned(),
        };
        let attempt = |kind: Kind| Attempt::failed(Vec::new(), Failure::from(kind));
        let second = Duration::from_secs(1);
        for (next, expected) in [
            (failed("second"), failed("second")),
            (timed_out(Phase::Endpoint, second), failed("first")),
            (timed_out(Phase::Connect, second), timed_out(Phase::Connect, second)),
        ] {
            let better = attempt(failed("first")).or(attempt(next));
            assert_eq!(better.failure.map(|failure| failure.kind), Some(expected));
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_usual_errors_are_in_words() {
        for (error, expected) in [
            (io::Error::from_raw_os_error(111), "connection refused"),
            (io::Error::from_raw_os_error(104), "connection reset"),
            (io::Error::from_raw_os_error(113), "host unreachable"),
            (io::Error::from_raw_os_error(101), "network unreachable"),
            (io::Error::from_raw_os_error(110), "timed out"),
            (io::Error::other("anything else"), "anything else"),
        ] {
            let failure = Failure::connect(&error);
            assert_eq!(
                failure.kind,
                Kind::ConnectFailed {
                    reason: expected.to_owned()
                }
            );
            assert_eq!(Attempt::failed(Vec::new(), failure).connect_error(), Some(error.kind()));
        }
    }
}
