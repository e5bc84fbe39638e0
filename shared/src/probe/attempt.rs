//! One try at one address: connect, upgrade, handshake; and what it showed, however far it got.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

use super::legacy::{self, Legacy};
use super::starttls;
use super::target::Target;
use super::timeouts::Timeouts;
use super::tls::{Handshaker, Witness};
use crate::finding::{Kind, Phase};
use crate::observation::Tls;

/// One address of a target, and how long it may take.
pub(super) struct Peer<'a> {
    pub(super) target: &'a Target,
    pub(super) address: IpAddr,
    pub(super) handshaker: &'a Handshaker,
    pub(super) timeouts: Timeouts,
    /// When all tries together have to end.
    pub(super) deadline: Instant,
}

/// What one try showed.
pub(super) struct Attempt {
    /// Everything that the server sent, leaf first; empty when it did not get that far.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The agreed parameters, as far as they were agreed.
    pub(super) tls: Option<Tls>,
    /// Whether today's clients cannot agree with this server on anything.
    pub(super) is_legacy: bool,
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
    /// The server answered with something else than TLS.
    NotTls,
    /// Any other: `kind` has all of it.
    Other,
}

impl Peer<'_> {
    /// Tries once.
    pub(super) async fn attempt(&self) -> Attempt {
        let attempt = self.handshake().await;
        let Some(failure) = &attempt.failure else {
            return attempt;
        };
        if !matches!(failure.kind, Kind::HandshakeFailed { .. }) || !attempt.chain.is_empty() {
            return attempt;
        }

        // The server accepts nothing that today's clients offer. Older servers show their
        // certificate in clear.
        let is_tls = failure.cause != Cause::NotTls;
        match self.legacy_handshake().await {
            // It could have agreed with today's clients: the handshake failed for another reason.
            Some(Ok(legacy)) if legacy.is_modern() => Attempt {
                is_legacy: false,
                failure: attempt.failure,
                ..Attempt::legacy(legacy)
            },
            Some(Ok(legacy)) => Attempt::legacy(legacy),
            // The legacy handshake reads what a server says that does not speak TLS.
            Some(Err(error)) if !is_tls => Attempt {
                failure: Some(Failure::from(Kind::HandshakeFailed {
                    reason: error.to_string(),
                })),
                ..attempt
            },
            _ => attempt,
        }
    }

    /// The handshake of today's clients.
    async fn handshake(&self) -> Attempt {
        let stream = match self.open().await {
            Ok(stream) => stream,
            Err(failure) => return Attempt::failed(Vec::new(), failure),
        };

        // A witness survives the deadline, and has what the server showed by then.
        let witness = Arc::new(Witness::default());
        let handshake = self.handshaker.handshake(stream, self.target.server_name(), &witness);
        match self.timeouts.limit(Phase::Handshake, self.deadline, handshake).await {
            Ok(capture) => Attempt {
                chain: capture.chain,
                tls: capture.tls,
                is_legacy: false,
                failure: capture.failure.map(|failure| Failure {
                    kind: Kind::HandshakeFailed { reason: failure.reason },
                    cause: if failure.not_tls { Cause::NotTls } else { Cause::Other },
                }),
            },
            Err(late) => Attempt::failed(witness.chain(), Failure::from(late)),
        }
    }

    /// The handshake of an old client, as far as the certificates; none if there was no connection
    /// or no time for it.
    async fn legacy_handshake(&self) -> Option<Result<Legacy, legacy::Error>> {
        let mut stream = self.open().await.ok()?;
        let name = match self.target.server_name() {
            ServerName::DnsName(name) => Some(name.as_ref().to_owned()),
            _ => None,
        };
        let fetch = legacy::fetch(&mut stream, name.as_deref());
        self.timeouts.limit(Phase::Handshake, self.deadline, fetch).await.ok()
    }

    /// A connection on which TLS can begin.
    async fn open(&self) -> Result<TcpStream, Failure> {
        let endpoint = &self.target.endpoint;
        let connect = TcpStream::connect((self.address, endpoint.port));
        let mut stream = self
            .timeouts
            .limit(Phase::Connect, self.deadline, connect)
            .await?
            .map_err(|error| Failure::connect(&error))?;

        if let Some(protocol) = endpoint.starttls {
            let host = endpoint.host.to_string();
            let upgrade = starttls::upgrade(protocol, &mut stream, &host);
            self.timeouts
                .limit(Phase::Starttls, self.deadline, upgrade)
                .await?
                .map_err(|error| Kind::StarttlsFailed {
                    protocol: protocol.to_string(),
                    reason: error.to_string(),
                })?;
        }
        Ok(stream)
    }
}

impl Attempt {
    fn failed(chain: Vec<CertificateDer<'static>>, failure: Failure) -> Self {
        Self {
            chain,
            tls: None,
            is_legacy: false,
            failure: Some(failure),
        }
    }

    fn legacy(legacy: Legacy) -> Self {
        let tls = Tls {
            version: legacy.version,
            cipher_suite: legacy.cipher_suite,
            key_exchange: None,
        };
        Self {
            chain: legacy.certificates,
            tls: Some(tls),
            is_legacy: true,
            failure: None,
        }
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
            Cause::NotTls | Cause::Other => None,
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
