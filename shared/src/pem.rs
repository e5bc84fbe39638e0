//! Certificates in PEM files (RFC 7468), as people, programs and CAs really write them.

use data_encoding::BASE64;
use thiserror::Error;
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::der;
use crate::text::from_utf_16;

/// Why a file has no certificates.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// Nothing in it is a certificate.
    #[error("no certificate in it{} (expected PEM with -----BEGIN CERTIFICATE-----)", found(.labels))]
    Empty {
        /// What it holds instead, such as "PKCS7".
        labels: Vec<String>,
    },
    /// A certificate begins in it and does not end.
    #[error("certificate {number} in it has no -----END CERTIFICATE-----: is the file cut off?")]
    Unfinished {
        /// Counted from 1.
        number: usize,
    },
    /// A certificate in it is not encoded as one.
    #[error("certificate {number} in it is damaged: {reason}")]
    Damaged {
        /// Counted from 1.
        number: usize,
        /// What is wrong, without the contents.
        reason: &'static str,
    },
}

/// All certificates of a file, in their order. Keys and other blocks are left out, and so is text
/// around the blocks.
///
/// It takes what OpenSSL takes: the labels `X509 CERTIFICATE` and `TRUSTED CERTIFICATE`, text, any
/// length of line. It also takes what copying does to a file: a byte order mark, UTF-16,
/// indentation, and line breaks that are missing. A file in DER is one certificate, or a bundle of
/// them (PKCS #7), as Windows exports it.
pub fn certificates(file: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    if der::only(file).is_some_and(|element| element.tag == SEQUENCE) {
        return Ok(bundled(file).unwrap_or_else(|| vec![file.to_vec().into()]));
    }

    // Bytes of another encoding can be in comments only, so they do not matter.
    let text = from_utf_16(file).unwrap_or_else(|| String::from_utf8_lossy(file).into_owned());
    let mut pieces = text.split("-----");
    let mut certificates = Vec::new();
    let mut labels = Vec::new();
    while let Some(piece) = pieces.next() {
        let Some(label) = piece.strip_prefix("BEGIN ") else {
            continue;
        };
        if !LABELS.contains(&label) {
            labels.push(label.to_owned());
            continue;
        }

        let number = certificates.len() + 1;
        let body = pieces.next().unwrap_or_default();
        if pieces.next().is_none_or(|end| end.strip_prefix("END ") != Some(label)) {
            return Err(Error::Unfinished { number });
        }
        let der = decode(body).map_err(|reason| Error::Damaged { number, reason })?;
        certificates.extend(bundled(&der).unwrap_or_else(|| vec![der.into()]));
    }

    if certificates.is_empty() {
        return Err(Error::Empty { labels });
    }
    Ok(certificates)
}

/// The certificates in a bundle, which is a SignedData without signatures (RFC 2315, 9.1); none if
/// it is none.
fn bundled(der: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut whole = der::elements(der::only(der)?.contents);
    whole.next().filter(|kind| kind.contents == SIGNED_DATA)?;
    let content = der::only(whole.next()?.contents)?;
    let certificates = der::elements(content.contents).find(|part| part.tag == CERTIFICATES)?;

    let certificates = der::elements(certificates.contents).map(|one| one.der.to_vec().into());
    Some(certificates.collect())
}

/// The certificate in the lines between two markers.
fn decode(body: &str) -> Result<Vec<u8>, &'static str> {
    let base64: String = body.split_whitespace().collect();
    let contents = BASE64.decode(base64.as_bytes()).map_err(|_| "it is not base64")?;

    // OpenSSL's TRUSTED CERTIFICATE has what the certificate is trusted for after it.
    let first = der::elements(&contents).next().ok_or("it is not DER")?;
    Ok(first.der.to_vec())
}

fn found(labels: &[String]) -> String {
    match labels.first().map(String::as_str) {
        None => String::new(),
        Some(label) => format!(", but a {label}"),
    }
}

const LABELS: [&str; 4] = ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE", "PKCS7"];

const SEQUENCE: u8 = 0x30;
const CERTIFICATES: u8 = 0xa0;
/// 1.2.840.113549.1.7.2
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];

#[cfg(test)]
mod tests {
    use super::*;

    /// A sequence that has an integer in it, and is no certificate: only the frame is looked at
    /// here.
    const DER: [u8; 5] = [0x30, 0x03, 0x02, 0x01, 0x07];

    fn pem(label: &str) -> String {
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            BASE64.encode(&DER)
        )
    }

    #[test]
    fn files_as_people_programs_and_cas_write_them() {
        let plain = pem("CERTIFICATE");
        let utf16 = |to_bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}"
                .encode_utf16()
                .chain(plain.encode_utf16())
                .flat_map(to_bytes)
                .collect()
        };

        for (what, file) in [
            ("plain", plain.clone().into_bytes()),
            ("DER", DER.to_vec()),
            ("an old label", pem("X509 CERTIFICATE").into_bytes()),
            ("a byte order mark", format!("\u{feff}{plain}").into_bytes()),
            ("CRLF", plain.replace('\n', "\r\n").into_bytes()),
            ("no line break at the end", plain.trim_end().as_bytes().to_vec()),
            ("one line", plain.replace('\n', "").into_bytes()),
            (
                "indentation",
                format!("  {}", plain.replace('\n', " \n\t")).into_bytes(),
            ),
            ("an empty line inside", plain.replacen('\n', "\n\n", 1).into_bytes()),
            (
                "a line of dashes and Latin-1 before",
                [b"------ Z\xfcrich ------\n", plain.as_bytes()].concat(),
            ),
            ("a key before", format!("{}{plain}", pem("PRIVATE KEY")).into_bytes()),
            ("UTF-16, little-endian", utf16(u16::to_le_bytes)),
            ("UTF-16, big-endian", utf16(u16::to_be_bytes)),
        ] {
            assert_eq!(certificates(&file), Ok(vec![DER.to_vec().into()]), "{what}");
        }
    }

    #[test]
    fn a_bundle_of_pkcs_7() {
        let parts = [
            &der::encode(2, &[1])[..],
            &der::encode(0x31, &[]),
            &der::encode(
                SEQUENCE,
                &der::encode(6, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1]),
            ),
            &der::encode(CERTIFICATES, &DER.repeat(2)),
            &der::encode(0x31, &[]),
        ];
        let content = der::encode(0xa0, &der::encode(SEQUENCE, &parts.concat()));
        let bundle = der::encode(SEQUENCE, &[der::encode(6, SIGNED_DATA), content].concat());
        let pem = pem("PKCS7").replace(&BASE64.encode(&DER), &BASE64.encode(&bundle));
        for file in [&bundle[..], pem.as_bytes()] {
            assert_eq!(certificates(file), Ok(vec![DER.to_vec().into(); 2]));
        }
    }

    #[test]
    fn two_without_a_line_break_between_them() {
        let glued = pem("CERTIFICATE").trim_end().repeat(2);
        assert_eq!(certificates(glued.as_bytes()).unwrap().len(), 2);
    }

    #[test]
    fn what_openssl_adds_to_a_trusted_certificate_is_left_out() {
        let file = pem("TRUSTED CERTIFICATE").replace(&BASE64.encode(&DER), &BASE64.encode(&[DER, DER].concat()));
        assert_eq!(certificates(file.as_bytes()), Ok(vec![DER.to_vec().into()]));
    }

    #[test]
    fn an_error_says_what_the_file_holds_and_never_quotes_it() {
        let cut = pem("CERTIFICATE").replace("-----END CERTIFICATE-----", "");
        let damaged = pem("CERTIFICATE") + &pem("CERTIFICATE").replace("MA", "M_");
        for (file, error) in [
            (
                "",
                "no certificate in it (expected PEM with -----BEGIN CERTIFICATE-----)",
            ),
            (
                &pem("PRIVATE KEY"),
                "no certificate in it, but a PRIVATE KEY (expected PEM with -----BEGIN CERTIFICATE-----)",
            ),
            (
                &cut,
                "certificate 1 in it has no -----END CERTIFICATE-----: is the file cut off?",
            ),
            (&damaged, "certificate 2 in it is damaged: it is not base64"),
        ] {
            assert_eq!(certificates(file.as_bytes()).unwrap_err().to_string(), error);
        }
    }
}
