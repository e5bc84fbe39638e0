//! Distinguished names (RFC 5280, 4.1.2.4) as people read them, and as clients compare them.

use data_encoding::HEXUPPER;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::x509::X509Name;

use crate::der::{self, Element};
use crate::text::cut;

/// A name in words, in the order in which it is encoded: `C=DE, O=Example GmbH, CN=Sub CA`.
///
/// Every type of string is read, also those of the nineties. A T61String is ISO 8859-1, as OpenSSL
/// reads it, and so is any string with bytes that its type does not allow. A long name is cut:
/// whoever runs a server chooses it, and findings quote it.
pub(crate) fn text(name: &X509Name<'_>) -> String {
    let relative_names = name.iter_rdn().map(|relative_name| {
        let attributes = relative_name.iter().map(|attribute| {
            let kind = oid2abbrev(attribute.attr_type(), oid_registry())
                .map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
            let value = attribute.attr_value();
            let text = u8::try_from(value.header.tag().0)
                .ok()
                .and_then(|tag| decode(tag, value.data))
                .unwrap_or_else(|| format!("#{}", HEXUPPER.encode(value.data)));
            format!("{kind}={text}")
        });
        attributes.collect::<Vec<_>>().join(" + ")
    });
    cut(&relative_names.collect::<Vec<_>>().join(", "), LONGEST)
}

/// The contents of a Name in one type of string, without letter case and surplus blanks, as RFC
/// 5280, 7.1, and OpenSSL compare names. A string that cannot be read stays as it is.
pub(crate) fn canonical(contents: &[u8]) -> Vec<u8> {
    let relative_names = der::elements(contents).map(|set| {
        let attributes = der::elements(set.contents).map(|attribute| {
            let parts = der::elements(attribute.contents).map(canonical_value);
            der::encode(attribute.tag, &parts.collect::<Vec<_>>().concat())
        });
        der::encode(set.tag, &attributes.collect::<Vec<_>>().concat())
    });
    relative_names.collect::<Vec<_>>().concat()
}

/// Whether two names, given as DER, are the same to a client that compares their contents.
pub(crate) fn is_same(one: &[u8], other: &[u8]) -> bool {
    one == other || canonical_name(one) == canonical_name(other)
}

/// A Name, given as DER, in its canonical form.
pub(crate) fn canonical_name(name: &[u8]) -> Vec<u8> {
    der::elements(name)
        .map(|name| der::encode(name.tag, &canonical(name.contents)))
        .collect::<Vec<_>>()
        .concat()
}

fn canonical_value(value: Element<'_>) -> Vec<u8> {
    // A NumericString is compared as it is.
    let text = (value.tag != NUMERIC)
        .then(|| decode(value.tag, value.contents))
        .flatten();
    let Some(text) = text else {
        return value.der.to_vec();
    };
    let words = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    der::encode(UTF8, words.to_ascii_lowercase().as_bytes())
}

/// A string of one of ASN.1's types.
fn decode(tag: u8, bytes: &[u8]) -> Option<String> {
    match tag {
        UTF8 | NUMERIC | PRINTABLE | IA5 | VISIBLE => {
            Some(std::str::from_utf8(bytes).map_or_else(|_| latin_1(bytes), str::to_owned))
        }
        T61 => Some(latin_1(bytes)),
        BMP => {
            let units = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            Some(String::from_utf16_lossy(&units.collect::<Vec<_>>()))
        }
        UNIVERSAL => Some(
            bytes
                .chunks_exact(4)
                .map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
                .map(|code| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect(),
        ),
        _ => None,
    }
}

fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

const UTF8: u8 = 12;
const NUMERIC: u8 = 18;
const PRINTABLE: u8 = 19;
const T61: u8 = 20;
const IA5: u8 = 22;
const VISIBLE: u8 = 26;
const UNIVERSAL: u8 = 28;
const BMP: u8 = 30;

/// Of a name in words, in characters. Names of CAs have less than 200.
const LONGEST: usize = 1_000;

#[cfg(test)]
mod tests {
    use x509_parser::prelude::FromDer;

    use super::*;

    fn name(tag: u8, value: &[u8]) -> Vec<u8> {
        let attribute = [der::encode(6, &[0x55, 4, 3]), der::encode(tag, value)].concat();
        der::encode(0x30, &der::encode(0x31, &der::encode(0x30, &attribute)))
    }

    #[test]
    fn every_type_of_string_is_read() {
        for (tag, value, expected) in [
            (UTF8, "Zürich".as_bytes(), "CN=Zürich"),
            (PRINTABLE, b"Sub CA", "CN=Sub CA"),
            (PRINTABLE, b"Z\xfcrich", "CN=Zürich"),
            (T61, b"Z\xfcrich", "CN=Zürich"),
            (BMP, b"\0Z\0\xfc", "CN=Zü"),
            (UNIVERSAL, b"\0\0\0Z\0\0\0\xfc", "CN=Zü"),
            (4, b"\x01\xab", "CN=#01AB"),
        ] {
            let der = name(tag, value);
            let (_, parsed) = X509Name::from_der(&der).unwrap();
            assert_eq!(text(&parsed), expected);
        }
    }

    #[test]
    fn names_are_the_same_by_content() {
        let ours = name(UTF8, b"Sub CA");
        for (tag, value, same) in [
            (PRINTABLE, &b"Sub CA"[..], true),
            (PRINTABLE, b"SUB  ca ", true),
            (T61, b"sub ca", true),
            (BMP, b"\0S\0u\0b\0 \0C\0A", true),
            (UTF8, b"SubCA", false),
            (NUMERIC, b"Sub CA", false),
        ] {
            assert_eq!(is_same(&ours, &name(tag, value)), same, "{tag} {value:?}");
        }
    }
}
