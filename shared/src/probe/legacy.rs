//! The handshake of an old client, for servers that today's clients cannot agree with.
//!
//! Below TLS 1.3 the Certificate message is sent in clear, so a minimal ClientHello is enough to
//! read it (RFC 5246, 7.4).

use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::rustls::pki_types::CertificateDer;

/// What a server showed to an old client.
#[derive(Debug, PartialEq, Eq)]
pub struct Legacy {
    /// What it chose.
    pub choice: Choice,
    /// Leaf first.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl Legacy {
    /// The length of all certificates together.
    pub fn bytes(&self) -> usize {
        self.certificates.iter().map(|der| der.len()).sum()
    }
}

/// The version and the cipher suite that a server chose (RFC 5246, 7.4.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// 0x0303 is TLS 1.2, 0x0300 is SSL 3.0.
    pub version: u16,
    /// Its number at IANA.
    pub cipher_suite: u16,
}

impl Choice {
    /// Whether today's clients could have agreed on this version and suite. Then the server is not
    /// old, and their handshake failed for another reason: a lost connection, a size, or a curve.
    pub fn is_modern(self) -> bool {
        self.version == TLS_1_2 && MODERN.iter().any(|(code, _)| *code == self.cipher_suite)
    }

    /// `TLSv1.0`, `TLSv1.1`, `TLSv1.2` or `SSLv3`.
    pub fn version(self) -> String {
        match self.version {
            SSL_3 => "SSLv3".to_owned(),
            tls => format!("TLSv1.{}", tls - TLS_1_0),
        }
    }

    /// The suite by its IANA name where we know it.
    pub fn cipher_suite(self) -> String {
        let name = suites().find(|(code, _)| *code == self.cipher_suite);
        name.map_or_else(|| format!("{:#06x}", self.cipher_suite), |(_, name)| name.to_owned())
    }
}

/// Why a server showed nothing.
#[derive(Debug, Error)]
pub enum Error {
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The connection ended before the certificates.
    #[error("the server closed the connection")]
    Closed,
    /// The first line of something else than TLS.
    #[error("the server does not speak TLS: it answered {0:?}")]
    NotTls(String),
    /// A fatal alert, by its number.
    #[error("the server refused it with the alert {}", alert_name(*.0))]
    Alert(u8),
    /// A handshake that breaks a rule.
    #[error("the server's handshake cannot be read: {0}")]
    Garbled(&'static str),
}

/// Sends an old client's hello, and reads until the certificates. Nothing is verified.
pub async fn fetch<S>(stream: &mut S, server_name: Option<&str>) -> Result<Legacy, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&client_hello(server_name)).await?;

    let mut handshake = Vec::new();
    let mut records = 0;
    loop {
        append_record(stream, &mut handshake).await?;
        records += 1;
        if let Some(legacy) = parse(&handshake)? {
            return Ok(legacy);
        }
        if handshake.len() > HANDSHAKE || records > RECORDS {
            return Err(Error::Garbled("too long"));
        }
    }
}

/// Reads one record and appends its handshake bytes.
async fn append_record<S: AsyncRead + Unpin>(stream: &mut S, handshake: &mut Vec<u8>) -> Result<(), Error> {
    // Byte by byte as they come: a server that does not speak TLS may send fewer than five.
    let mut header = [0; 5];
    let mut read = 0;
    while read < header.len() {
        match stream.read(&mut header[read..]).await? {
            0 if read == 0 => return Err(Error::Closed),
            0 => break,
            some => read += some,
        }
    }

    let [kind, major, _, high, low] = header;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if read < header.len() || !(20..=24).contains(&kind) || major != 3 {
        return Err(Error::NotTls(first_line(stream, &header[..read]).await));
    }
    if length > RECORD {
        return Err(Error::Garbled("a record too long"));
    }

    // A connection may be lost within a record that had all of the certificates. The next read
    // fails then, if there is a need for one.
    let mut body = Vec::with_capacity(length);
    let _ = stream.take(length as u64).read_to_end(&mut body).await;
    match (kind, body.as_slice()) {
        (22, _) => handshake.extend_from_slice(&body),
        // A warning such as unrecognized_name does not end a handshake.
        (21, [1, _]) => {}
        (21, [_, alert, ..]) => return Err(Error::Alert(*alert)),
        _ => return Err(Error::Garbled("a record that is no handshake")),
    }
    Ok(())
}

/// The first line from a server that does not speak TLS, or its beginning.
async fn first_line<S: AsyncRead + Unpin>(stream: &mut S, header: &[u8]) -> String {
    let mut rest = [0; FIRST_LINE];
    let more = stream.read(&mut rest).await.unwrap_or(0);
    let answer = [header, &rest[..more]].concat();
    let text = String::from_utf8_lossy(&answer);
    text.lines().next().unwrap_or_default().to_owned()
}

/// One handshake message (RFC 5246, 7.4).
struct Message<'a> {
    kind: u8,
    body: &'a [u8],
    /// The bytes that follow it.
    rest: &'a [u8],
}

/// The certificates, once they are complete.
fn parse(mut bytes: &[u8]) -> Result<Option<Legacy>, Error> {
    let mut hello = None;
    while let Some(Message { kind, body, rest }) = message(bytes)? {
        match kind {
            SERVER_HELLO => hello = Some(server_hello(body).ok_or(Error::Garbled("a ServerHello"))?),
            CERTIFICATE => {
                let choice = hello.ok_or(Error::Garbled("a Certificate before the ServerHello"))?;
                let certificates = certificates(body).ok_or(Error::Garbled("a Certificate"))?;
                return Ok(Some(Legacy { choice, certificates }));
            }
            SERVER_HELLO_DONE => return Err(Error::Garbled("no Certificate")),
            _ => {}
        }
        bytes = rest;
    }
    Ok(None)
}

/// The first handshake message, if all of it is there.
fn message(bytes: &[u8]) -> Result<Option<Message<'_>>, Error> {
    let Some((&kind, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let Some((length, rest)) = uint24(rest) else {
        return Ok(None);
    };
    if length > HANDSHAKE {
        return Err(Error::Garbled("a message too long"));
    }
    Ok(rest
        .split_at_checked(length)
        .map(|(body, rest)| Message { kind, body, rest }))
}

/// What the server chose.
fn server_hello(body: &[u8]) -> Option<Choice> {
    // version (2), random (32), session id with its length before it, cipher suite (2)
    let (version, rest) = body.split_first_chunk::<2>()?;
    let rest = rest.get(32..)?;
    let (session, rest) = rest.split_first()?;
    let suite = rest.get(usize::from(*session)..)?.first_chunk::<2>()?;

    let choice = Choice {
        version: u16::from_be_bytes(*version),
        cipher_suite: u16::from_be_bytes(*suite),
    };
    (SSL_3..=TLS_1_2).contains(&choice.version).then_some(choice)
}

/// The list in a Certificate message, which must not be empty (RFC 5246, 7.4.2).
fn certificates(body: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let (length, rest) = uint24(body)?;
    let mut list = rest.get(..length)?;
    let mut certificates = Vec::new();
    while !list.is_empty() {
        let (length, rest) = uint24(list)?;
        let (certificate, rest) = rest.split_at_checked(length)?;
        if certificate.is_empty() || certificates.len() == CERTIFICATES {
            return None;
        }
        certificates.push(CertificateDer::from(certificate.to_vec()));
        list = rest;
    }
    (!certificates.is_empty()).then_some(certificates)
}

/// An alert's name (RFC 5246, 7.2) and number.
pub(super) fn alert_name(code: u8) -> String {
    let known = ALERTS.iter().find(|(known, _)| *known == code);
    known.map_or_else(|| code.to_string(), |(_, name)| format!("{name} ({code})"))
}

fn uint24(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let ([a, b, c], rest) = bytes.split_first_chunk::<3>()?;
    Some((usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c), rest))
}

/// A ClientHello that offers TLS 1.2 and whatever old servers know. The suites of modern servers
/// come first, so that these can be recognized ([`Choice::is_modern`]).
fn client_hello(server_name: Option<&str>) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = server_name {
        let entry = [&[0][..], &sized(name.as_bytes())].concat();
        extension(&mut extensions, SERVER_NAME, &sized(&entry));
    }
    extension(&mut extensions, SUPPORTED_GROUPS, &sized(&GROUPS));
    extension(&mut extensions, EC_POINT_FORMATS, &[1, 0]);
    extension(&mut extensions, SIGNATURE_ALGORITHMS, &sized(&SIGNATURES));

    // Strict servers talk only to clients that know RFC 5746. A suite that is not a real one
    // signals it.
    let suites: Vec<u8> = suites()
        .map(|(code, _)| code)
        .chain([RENEGOTIATION_INFO])
        .flat_map(u16::to_be_bytes)
        .collect();

    // version, random, no session id, suites, no compression, extensions
    let random: [u8; 32] = rand::random();
    let body = [
        &[3, 3][..],
        &random,
        &[0],
        &sized(&suites),
        &[1, 0],
        &sized(&extensions),
    ]
    .concat();
    let message = [&[1, 0][..], &sized(&body)].concat();
    [&[22, 3, 1][..], &sized(&message)].concat()
}

/// All suites that are offered, those of modern servers first.
fn suites() -> impl Iterator<Item = (u16, &'static str)> {
    MODERN.into_iter().chain(OLD)
}

fn extension(extensions: &mut Vec<u8>, kind: u16, body: &[u8]) {
    extensions.extend_from_slice(&kind.to_be_bytes());
    extensions.extend(sized(body));
}

/// A vector with its length in two bytes before it; ours are all shorter than that allows.
fn sized(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], body].concat()
}

const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;
const SERVER_HELLO_DONE: u8 = 14;
const SERVER_NAME: u16 = 0;
const SUPPORTED_GROUPS: u16 = 10;
const EC_POINT_FORMATS: u16 = 11;
const SIGNATURE_ALGORITHMS: u16 = 13;
/// x25519, secp256r1, secp384r1, secp521r1, x448, brainpool of 256, 384 and 512 bits, secp256k1:
/// all that a server may insist on. The handshake does not get as far as their use.
const GROUPS: [u8; 18] = [0, 29, 0, 23, 0, 24, 0, 25, 0, 30, 0, 26, 0, 27, 0, 28, 0, 22];
/// Hash and signature in pairs: RSA and ECDSA with SHA-2, RSA-PSS by either kind of key and EdDSA,
/// then SHA-1.
const SIGNATURES: [u8; 34] = [
    4, 1, 4, 3, 5, 1, 5, 3, 6, 1, 6, 3, 8, 4, 8, 5, 8, 6, 8, 7, 8, 8, 8, 9, 8, 10, 8, 11, 2, 1, 2, 3, 2, 2,
];
const RECORD: usize = 16_384 + 2_048;
const HANDSHAKE: usize = 131_072;
const RECORDS: usize = 512;
const FIRST_LINE: usize = 60;
const CERTIFICATES: usize = 64;
const RENEGOTIATION_INFO: u16 = 0x00ff;
const SSL_3: u16 = 0x0300;
const TLS_1_0: u16 = 0x0301;
const TLS_1_2: u16 = 0x0303;
/// With forward secrecy by ECDHE, and AEAD: today's clients offer them all.
const MODERN: [(u16, &str); 4] = [
    (0xc02f, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    (0xc02b, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    (0xc030, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    (0xc02c, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
];
const OLD: [(u16, &str); 33] = [
    (0xc028, "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384"),
    (0xc024, "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384"),
    (0xc027, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256"),
    (0xc023, "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256"),
    (0xc014, "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"),
    (0xc00a, "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"),
    (0xc013, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"),
    (0xc009, "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"),
    (0xccaa, "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    (0x009f, "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384"),
    (0x009e, "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256"),
    (0x006b, "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256"),
    (0x0067, "TLS_DHE_RSA_WITH_AES_128_CBC_SHA256"),
    (0x0039, "TLS_DHE_RSA_WITH_AES_256_CBC_SHA"),
    (0x0033, "TLS_DHE_RSA_WITH_AES_128_CBC_SHA"),
    (0x009d, "TLS_RSA_WITH_AES_256_GCM_SHA384"),
    (0x009c, "TLS_RSA_WITH_AES_128_GCM_SHA256"),
    (0x003d, "TLS_RSA_WITH_AES_256_CBC_SHA256"),
    (0x003c, "TLS_RSA_WITH_AES_128_CBC_SHA256"),
    (0x0035, "TLS_RSA_WITH_AES_256_CBC_SHA"),
    (0x002f, "TLS_RSA_WITH_AES_128_CBC_SHA"),
    (0x0084, "TLS_RSA_WITH_CAMELLIA_256_CBC_SHA"),
    (0x0041, "TLS_RSA_WITH_CAMELLIA_128_CBC_SHA"),
    (0x0038, "TLS_DHE_DSS_WITH_AES_256_CBC_SHA"),
    (0x0032, "TLS_DHE_DSS_WITH_AES_128_CBC_SHA"),
    (0xc012, "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA"),
    (0xc008, "TLS_ECDHE_ECDSA_WITH_3DES_EDE_CBC_SHA"),
    (0x0016, "TLS_DHE_RSA_WITH_3DES_EDE_CBC_SHA"),
    (0x0013, "TLS_DHE_DSS_WITH_3DES_EDE_CBC_SHA"),
    (0x000a, "TLS_RSA_WITH_3DES_EDE_CBC_SHA"),
    (0xc011, "TLS_ECDHE_RSA_WITH_RC4_128_SHA"),
    (0x0005, "TLS_RSA_WITH_RC4_128_SHA"),
    (0x0004, "TLS_RSA_WITH_RC4_128_MD5"),
];
const ALERTS: [(u8, &str); 20] = [
    (10, "unexpected_message"),
    (20, "bad_record_mac"),
    (22, "record_overflow"),
    (40, "handshake_failure"),
    (42, "bad_certificate"),
    (43, "unsupported_certificate"),
    (47, "illegal_parameter"),
    (48, "unknown_ca"),
    (49, "access_denied"),
    (50, "decode_error"),
    (51, "decrypt_error"),
    (70, "protocol_version"),
    (71, "insufficient_security"),
    (80, "internal_error"),
    (86, "inappropriate_fallback"),
    (90, "user_canceled"),
    (109, "missing_extension"),
    (112, "unrecognized_name"),
    (116, "certificate_required"),
    (120, "no_application_protocol"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// ServerHello (TLS 1.0, RSA with 3DES) and a Certificate with two entries.
    fn flight() -> Vec<u8> {
        let hello = [&[3, 1][..], &[7; 32], &[0], &[0, 0x0a], &[0]].concat();
        let list = [&[0, 0, 3][..], b"one", &[0, 0, 3], b"two"].concat();
        let certificate = [&[0, 0, list.len() as u8][..], &list].concat();
        let message = |kind: u8, body: &[u8]| [&[kind, 0, 0, body.len() as u8][..], body].concat();
        [message(SERVER_HELLO, &hello), message(CERTIFICATE, &certificate)].concat()
    }

    fn expected() -> Legacy {
        let certificates = vec![
            CertificateDer::from(b"one".to_vec()),
            CertificateDer::from(b"two".to_vec()),
        ];
        Legacy {
            choice: Choice {
                version: TLS_1_0,
                cipher_suite: 0x000a,
            },
            certificates,
        }
    }

    async fn answer(bytes: Vec<u8>) -> Result<Legacy, Error> {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        server.write_all(&bytes).await.unwrap();
        let mut heard = vec![0; 1_024];
        let fetching = tokio::spawn(async move { fetch(&mut client, Some("a.example")).await });
        let _ = server.read(&mut heard).await;
        drop(server);
        fetching.await.unwrap()
    }

    #[tokio::test]
    async fn however_it_is_cut_into_records() {
        let flight = flight();
        for size in [1, 3, 7, 1_000] {
            let records: Vec<u8> = flight
                .chunks(size)
                .flat_map(|part| [&[22, 3, 1][..], &sized(part)].concat())
                .collect();
            assert_eq!(answer(records).await.unwrap(), expected(), "{size} bytes per record");
        }
    }

    #[tokio::test]
    async fn what_is_no_handshake_is_reported() {
        for (bytes, words) in [
            (
                &b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n"[..],
                "does not speak TLS: it answered \"HTTP/1.1 400 Bad Request\"",
            ),
            (b"SSH-2.0-x\r\n", "SSH-2.0-x"),
            (&[0, 0, 1], "it answered \"\\0\\0\\u{1}\""),
            (&[21, 3, 1, 0, 2, 2, 40], "alert handshake_failure (40)"),
            (&[21, 3, 1, 0, 2, 2, 250], "alert 250"),
            (&[23, 3, 1, 0, 1, 0], "no handshake"),
            (&[22, 3, 1, 0xff, 0xff, 0], "a record too long"),
            (&[22, 3, 1, 0, 4, 11, 0xff, 0xff, 0xff], "a message too long"),
            (&[22, 3, 1, 0, 4, 14, 0, 0, 0], "no Certificate"),
            (&[22, 3, 1, 0, 9, 2], "closed the connection"),
        ] {
            let error = answer(bytes.to_vec()).await.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(matches!(answer(Vec::new()).await, Err(Error::Closed)));
    }

    #[tokio::test]
    async fn a_warning_does_not_end_it() {
        let warning = [21, 3, 1, 0, 2, 1, 112];
        let records = [&warning[..], &[22, 3, 1], &sized(&flight())].concat();
        assert_eq!(answer(records).await.unwrap(), expected());
    }

    #[tokio::test]
    async fn what_has_no_end_is_given_up() {
        let hello_requests = [&[22, 3, 1][..], &sized(&[0; 16_384])].concat().repeat(20);
        let empty_records = [22, 3, 1, 0, 0].repeat(10_000);
        let warnings = [21, 3, 1, 0, 2, 1, 112].repeat(10_000);
        for records in [hello_requests, empty_records, warnings] {
            assert_eq!(
                answer(records).await.unwrap_err().to_string(),
                Error::Garbled("too long").to_string()
            );
        }
    }

    #[test]
    fn modern_is_what_rustls_would_have_agreed_to() {
        for (version, suite, modern) in [
            (TLS_1_2, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", true),
            (TLS_1_2, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", false),
            (TLS_1_2, "TLS_RSA_WITH_AES_128_GCM_SHA256", false),
            (TLS_1_2, "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256", false),
            (TLS_1_0, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", false),
        ] {
            let (cipher_suite, _) = suites().find(|(_, name)| *name == suite).unwrap();
            let choice = Choice { version, cipher_suite };
            assert_eq!(choice.is_modern(), modern, "{version:#x} {suite}");
            assert_eq!(choice.cipher_suite(), suite);
        }
        let unknown = Choice {
            version: SSL_3,
            cipher_suite: 0x1234,
        };
        assert_eq!(
            (unknown.version(), unknown.cipher_suite()),
            ("SSLv3".into(), "0x1234".into())
        );
    }

    #[test]
    fn certificates_are_counted() {
        let chain = |each: &[u8], count: usize| {
            let list = each.repeat(count);
            [&[0, 0, list.len() as u8][..], &list].concat()
        };
        assert_eq!(certificates(&chain(b"\0\0\0", 1)), None, "an empty one is none");
        assert_eq!(certificates(&chain(b"", 0)), None);
        let some = [&[0, 1, 0][..], &[0, 0, 1, 7].repeat(CERTIFICATES)].concat();
        assert_eq!(certificates(&some).unwrap().len(), CERTIFICATES);
        let more = [&[0, 1, 4][..], &[0, 0, 1, 7].repeat(CERTIFICATES + 1)].concat();
        assert_eq!(certificates(&more), None);
    }

    #[test]
    fn what_we_send_is_a_client_hello() {
        for name in [None, Some("a.example")] {
            let bytes = client_hello(name);
            let length = usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
            assert_eq!((&bytes[..3], bytes.len()), (&[22, 3, 1][..], 5 + length));
            let Message { kind, body, rest } = message(&bytes[5..]).unwrap().unwrap();
            assert_eq!((kind, rest, &body[..2]), (1, &[][..], &[3, 3][..]));
            let at = bytes.windows(9).position(|window| window == b"a.example");
            assert_eq!(at.is_some(), name.is_some());
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let flight = flight();
        for at in 0..flight.len() {
            assert!(parse(&flight[..at]).unwrap().is_none());
            for value in [0, 1, 0x7f, 0xff] {
                let mut broken = flight.clone();
                broken[at] = value;
                let _ = parse(&broken);
            }
        }
    }

    #[tokio::test]
    async fn random_bytes_make_it_fail_and_nothing_worse() {
        use rand::{RngExt, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        for round in 0..2_000 {
            let mut bytes = vec![0; random.random_range(0..200)];
            random.fill(&mut bytes[..]);
            let _ = parse(&bytes);
            // As often as not behind a header that promises a handshake.
            if round % 2 == 0 {
                bytes = [&[22, 3, 1][..], &sized(&bytes)].concat();
            }
            assert!(answer(bytes).await.is_err());
        }
    }
}
