//! The handshake: takes the chain whatever it is, and leaves judging to [`crate::chain`].

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{ResolvesClientCert, Resumption};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, InvalidMessage, NamedGroup,
    ProtocolVersion, SignatureScheme, SupportedCipherSuite,
};
use webpki::{EndEntityCert, RawPublicKeyEntity};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::legacy::alert_name;
use crate::certificate::Key;
use crate::inventory::KeyType;
use crate::observation::Tls;

/// What a handshake showed, however it ended.
#[derive(Debug)]
pub struct Capture {
    /// Everything that the server sent, leaf first; empty when it did not get that far.
    pub chain: Vec<CertificateDer<'static>>,
    /// The agreed parameters, as far as they were agreed.
    pub tls: Option<Tls>,
    /// The OCSP response that came with the chain; empty if none came.
    pub staple: Vec<u8>,
    /// Why the handshake failed; none if all that was missing is a client certificate.
    pub failure: Option<HandshakeFailure>,
}

/// Why a handshake failed.
#[derive(Debug)]
pub struct HandshakeFailure {
    /// In words.
    pub reason: String,
    /// What kind of failure it is.
    pub cause: HandshakeCause,
}

/// What kind of failure ended a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeCause {
    /// The bytes were not TLS at all.
    NotTls,
    /// The certificates are more than the library reads, which other clients read.
    TooLarge,
    /// The server sent a fatal alert, of this number.
    Alert(u8),
    /// The connection ended before the server had sent anything.
    Closed,
    /// Any other.
    Other,
}

/// Makes handshakes. It offers what today's clients offer: TLS 1.2 and 1.3 with the usual suites.
#[derive(Clone, Debug)]
pub struct Handshaker {
    provider: Arc<CryptoProvider>,
    /// What the server may sign with.
    schemes: Vec<SignatureScheme>,
}

impl Default for Handshaker {
    fn default() -> Self {
        let provider = aws_lc_rs::default_provider();
        Self {
            schemes: provider.signature_verification_algorithms.supported_schemes(),
            provider: Arc::new(provider),
        }
    }
}

impl Handshaker {
    /// Makes handshakes in which the server can sign with such a key only.
    ///
    /// A server with an ECDSA and an RSA certificate for a name chooses by the signature schemes
    /// that the client offers (RFC 8446, 4.2.3); below TLS 1.3 by the cipher suites as well.
    pub fn of_key(key: KeyType) -> Self {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| match suite {
            SupportedCipherSuite::Tls12(suite) => suite.sign.iter().any(|scheme| is_of(*scheme, key)),
            SupportedCipherSuite::Tls13(_) => true,
        });

        let mut schemes = provider.signature_verification_algorithms.supported_schemes();
        schemes.retain(|scheme| is_of(*scheme, key));
        Self {
            schemes,
            provider: Arc::new(provider),
        }
    }

    /// The same with a ClientHello that fits into one packet: without the key share of the
    /// post-quantum exchange, which alone has 1,184 bytes.
    pub fn small(&self) -> Self {
        let mut provider = CryptoProvider::clone(&self.provider);
        provider
            .kx_groups
            .retain(|group| group.name() != NamedGroup::X25519MLKEM768);
        Self {
            provider: Arc::new(provider),
            ..self.clone()
        }
    }

    /// Makes the handshake of a client that asks for `name`.
    ///
    /// `witness` keeps what the server shows as it comes, so that it survives a caller that stops
    /// waiting.
    pub async fn handshake<S>(&self, stream: S, name: ServerName<'static>, witness: &Arc<Witness>) -> Capture
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = match self.config(witness) {
            Ok(config) => config,
            Err(error) => return witness.capture(None, Some(error)),
        };

        let stream = Heard {
            stream,
            witness: witness.clone(),
        };
        let mut connecting = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .into_fallible();
        match (&mut connecting).await {
            Ok(mut stream) => {
                let tls = parameters(stream.get_ref().1);
                // A courtesy that keeps server logs clean; nothing depends on it.
                let _ = stream.shutdown().await;
                witness.capture(tls, None)
            }
            Err((error, _)) => witness.capture(None, Some(error)),
        }
    }

    fn config(&self, witness: &Arc<Witness>) -> Result<ClientConfig, io::Error> {
        let verifier = Arc::new(Verifier {
            provider: self.provider.clone(),
            schemes: self.schemes.clone(),
            witness: witness.clone(),
        });
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(witness.clone());
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// What a server shows during a handshake, noted as it comes.
#[derive(Debug, Default)]
pub struct Witness {
    chain: Mutex<Vec<CertificateDer<'static>>>,
    /// The OCSP response that it sent, for which every hello asks.
    staple: Mutex<Vec<u8>>,
    /// Whether the server proved that it holds the leaf's key.
    key_proved: AtomicBool,
    /// Whether it signed with another key.
    key_refuted: AtomicBool,
    /// Whether the server asked for a client certificate.
    client_certificate_requested: AtomicBool,
    /// Whether the server sent anything.
    has_heard: AtomicBool,
}

impl Witness {
    /// The chain so far.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the server signed with another key than the leaf's.
    pub fn key_refuted(&self) -> bool {
        self.key_refuted.load(Ordering::Relaxed)
    }

    /// Whether the server sent anything.
    pub fn has_heard(&self) -> bool {
        self.has_heard.load(Ordering::Relaxed)
    }

    fn capture(&self, tls: Option<Tls>, error: Option<io::Error>) -> Capture {
        // A server that refuses us because we have no client certificate has shown and proved its
        // own by then.
        let is_refused_without_ours =
            self.client_certificate_requested.load(Ordering::Relaxed) && self.key_proved.load(Ordering::Relaxed);
        let failure = error
            .filter(|_| !is_refused_without_ours)
            .map(|error| HandshakeFailure::new(&error, self.has_heard()));
        Capture {
            chain: self.chain(),
            tls,
            staple: self.staple.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            failure,
        }
    }
}

/// A stream that notes whether anything came.
struct Heard<S> {
    stream: S,
    witness: Arc<Witness>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, into);
        if into.filled().len() > before {
            self.witness.has_heard.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl ResolvesClientCert for Witness {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.client_certificate_requested.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

impl HandshakeFailure {
    fn new(error: &io::Error, has_heard: bool) -> Self {
        let tls_error = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let closed = if has_heard {
            HandshakeCause::Other
        } else {
            HandshakeCause::Closed
        };
        let (reason, cause) = match (tls_error, error.kind()) {
            (Some(Error::AlertReceived(alert)), _) => {
                let number = (*alert).into();
                let reason = format!("the server refused it with the alert {}", alert_name(number));
                (reason, HandshakeCause::Alert(number))
            }
            (
                Some(Error::InvalidMessage(
                    InvalidMessage::HandshakePayloadTooLarge | InvalidMessage::CertificatePayloadTooLarge,
                )),
                _,
            ) => (TOO_LARGE.to_owned(), HandshakeCause::TooLarge),
            (Some(error @ Error::InvalidMessage(_)), _) => (sentence(error), HandshakeCause::NotTls),
            (Some(error), _) => (sentence(error), HandshakeCause::Other),
            (None, io::ErrorKind::UnexpectedEof) => ("the server closed the connection".to_owned(), closed),
            (None, io::ErrorKind::ConnectionReset) => ("the server reset the connection".to_owned(), closed),
            (None, _) => (error.to_string(), HandshakeCause::Other),
        };
        Self { reason, cause }
    }
}

/// The library's error in words: it prints the names of its variants.
fn sentence(error: &Error) -> String {
    match error {
        Error::PeerIncompatible(why) => format!("the server and this probe have nothing in common: {}", spelled(why)),
        Error::PeerMisbehaved(how) => format!("the server breaks the protocol: {}", spelled(how)),
        Error::InvalidMessage(what) => format!("a message of the server cannot be read: {}", spelled(what)),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "the server sent a message out of order".to_owned()
        }
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            "the server does not sign with the key of its certificate".to_owned()
        }
        Error::InvalidCertificate(why) => format!("the server's certificate cannot be used: {}", spelled(why)),
        Error::NoCertificatesPresented => "the server shows no certificate".to_owned(),
        Error::DecryptError => "what the server sent cannot be decrypted".to_owned(),
        other => other.to_string(),
    }
}

/// The name of a variant as words: `NoCipherSuitesInCommon` is "no cipher suites in common".
fn spelled(variant: &impl fmt::Debug) -> String {
    let name = format!("{variant:?}");
    let name = name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    let mut words = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
    }
    words
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    schemes: Vec<SignatureScheme>,
    witness: Arc<Witness>,
}

impl Verifier {
    /// Notes whether a signature of the handshake is right, by whichever version's rules.
    fn note(
        &self,
        leaf: &CertificateDer<'_>,
        verify: impl FnOnce(&WebPkiSupportedAlgorithms) -> Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = verify(&self.provider.signature_verification_algorithms);
        // The library takes every signature by a short key for a wrong one. Other clients verify
        // it, and the chain has a finding about the key.
        if verified.is_err() && has_short_rsa_key(leaf) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        self.witness.key_proved.store(verified.is_ok(), Ordering::Relaxed);
        // A leaf that the library cannot read refutes nothing.
        let is_refuted = matches!(verified, Err(Error::InvalidCertificate(CertificateError::BadSignature)));
        self.witness.key_refuted.store(is_refuted, Ordering::Relaxed);
        verified
    }
}

/// Accepts every chain, but insists that the server holds the leaf's key.
impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(leaf)
            .chain(issuers)
            .map(|certificate| certificate.clone().into_owned());
        *self.witness.staple.lock().unwrap_or_else(PoisonError::into_inner) = ocsp_response.to_vec();
        *self.witness.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain.collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.note(leaf, |algorithms| match raw_key(leaf) {
            Some(key) => verify_tls12_signature_with_raw_key(message, &key, signed, algorithms),
            None => verify_tls12_signature(message, leaf, signed, algorithms),
        })
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.note(leaf, |algorithms| match raw_key(leaf) {
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, signed, algorithms),
            None => verify_tls13_signature(message, leaf, signed, algorithms),
        })
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// Whether such a key signs by this scheme.
fn is_of(scheme: SignatureScheme, key: KeyType) -> bool {
    use SignatureScheme::{
        ECDSA_NISTP256_SHA256, ECDSA_NISTP384_SHA384, ECDSA_NISTP521_SHA512, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
        RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    };
    match key {
        KeyType::EcdsaP256 | KeyType::EcdsaP384 => matches!(
            scheme,
            ECDSA_NISTP256_SHA256 | ECDSA_NISTP384_SHA384 | ECDSA_NISTP521_SHA512
        ),
        KeyType::Rsa2048 | KeyType::Rsa4096 => matches!(
            scheme,
            RSA_PKCS1_SHA256 | RSA_PKCS1_SHA384 | RSA_PKCS1_SHA512 | RSA_PSS_SHA256 | RSA_PSS_SHA384 | RSA_PSS_SHA512
        ),
    }
}

/// Whether a leaf has an RSA key of fewer bits than the library takes.
fn has_short_rsa_key(leaf: &CertificateDer<'_>) -> bool {
    let parsed = X509Certificate::from_der(leaf);
    parsed.is_ok_and(|(_, leaf)| matches!(Key::of(&leaf), Key::Rsa { bits: ..2_048 }))
}

/// The key of a leaf that webpki does not read, as with critical certificate policies. Whether
/// clients read it is for [`crate::chain`] to judge; here the question is who holds its key.
fn raw_key(leaf: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    if EndEntityCert::try_from(leaf).is_ok() {
        return None;
    }
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    Some(SubjectPublicKeyInfoDer::from(leaf.public_key().raw.to_vec()))
}

/// What rustls has for TLS 1.3 only.
fn verify_tls12_signature_with_raw_key(
    message: &[u8],
    key: &SubjectPublicKeyInfoDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let key = RawPublicKeyEntity::try_from(key).map_err(|error| Error::General(error.to_string()))?;
    let of_scheme = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
    let is_valid = of_scheme
        .flat_map(|(_, algorithms)| algorithms.iter())
        .any(|algorithm| key.verify_signature(*algorithm, message, signed.signature()).is_ok());
    if is_valid {
        Ok(HandshakeSignatureValid::assertion())
    } else {
        Err(CertificateError::BadSignature.into())
    }
}

fn parameters(connection: &ClientConnection) -> Option<Tls> {
    let version = match connection.protocol_version()? {
        ProtocolVersion::TLSv1_2 => "TLSv1.2".to_owned(),
        ProtocolVersion::TLSv1_3 => "TLSv1.3".to_owned(),
        other => format!("{other:?}"),
    };

    // rustls names TLS 1.3 suites TLS13_…; IANA does not.
    let cipher_suite = format!("{:?}", connection.negotiated_cipher_suite()?.suite()).replacen("TLS13_", "TLS_", 1);
    let key_exchange = connection
        .negotiated_key_exchange_group()
        .map(|group| format!("{:?}", group.name()));
    Some(Tls {
        version,
        cipher_suite,
        key_exchange,
    })
}

/// The bytes of a handshake message that the library reads at most.
pub(crate) const LONGEST_MESSAGE: usize = 0xffff;
const TOO_LARGE: &str = "the server sends certificates of more than 64 KiB, which this probe does not read";

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::{AlertDescription, PeerIncompatible, PeerMisbehaved};

    use super::*;

    #[test]
    fn the_librarys_errors_are_sentences() {
        for (error, expected) in [
            (
                Error::AlertReceived(AlertDescription::DecodeError),
                "the server refused it with the alert decode_error (50)",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "the server and this probe have nothing in common: no cipher suites in common",
            ),
            (
                Error::PeerMisbehaved(PeerMisbehaved::IllegalTlsInnerPlaintext),
                "the server breaks the protocol: illegal tls inner plaintext",
            ),
            (
                Error::InvalidMessage(InvalidMessage::MissingData("ServerHello")),
                "a message of the server cannot be read: missing data",
            ),
            (
                Error::InvalidCertificate(CertificateError::BadSignature),
                "the server does not sign with the key of its certificate",
            ),
        ] {
            assert_eq!(HandshakeFailure::new(&io::Error::other(error), true).reason, expected);
        }
    }
}
