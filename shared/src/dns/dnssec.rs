//! DNSSEC of a zone, as far as a lookup tells: DS records at the parent that the zone's keys do not
//! fit make every validating resolver refuse the whole zone, those of CAs included.

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384};
use hickory_resolver::proto::rr::{RData, RecordType};

use super::Dns;

/// What is known of a zone's DNSSEC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chain {
    /// The parent has no DS records: the zone is not signed, or nobody verifies it.
    Unsigned,
    /// A key of the zone fits a DS record. Whether signatures have expired is for a validating
    /// resolver to say.
    Fits,
    /// No validating resolver believes the zone.
    Broken(&'static str),
}

/// Compares the DS records of a zone at its parent with its keys.
pub async fn look_up(zone: &str, dns: &Dns) -> Result<Chain, String> {
    let Some(delegation) = data(zone, RecordType::DS, dns).await? else {
        return Ok(Chain::Unsigned);
    };
    let Some(keys) = data(zone, RecordType::DNSKEY, dns).await? else {
        return Ok(Chain::Broken(
            "the parent has DS records, but the zone has no keys (DNSKEY)",
        ));
    };
    Ok(chain(zone, &delegation, &keys))
}

/// The raw data of a name's records, if there are any.
async fn data(name: &str, kind: RecordType, dns: &Dns) -> Result<Option<Vec<Vec<u8>>>, String> {
    let found = dns.any(name, kind).await;
    let found = found.map_err(|reason| format!("the {kind} records of {name}: {reason}"))?;
    if found.is_empty() {
        return Ok(None);
    }

    let raw = found.into_iter().filter_map(|record| match record.data {
        RData::Unknown { rdata, .. } => Some(rdata.anything),
        _ => None,
    });
    Ok(Some(raw.collect()))
}

/// RFC 4034, 5.1.4: a DS record has a digest of the zone's name and of a key's data.
fn chain(zone: &str, delegation: &[Vec<u8>], keys: &[Vec<u8>]) -> Chain {
    let mut is_any_known = false;
    for record in delegation {
        // Key tag, algorithm, kind of digest, digest.
        let [_, _, _, kind, expected @ ..] = record.as_slice() else {
            continue;
        };
        let algorithm = match kind {
            1 => &SHA1_FOR_LEGACY_USE_ONLY,
            2 => &SHA256,
            4 => &SHA384,
            _ => continue,
        };
        is_any_known = true;

        let fits = keys.iter().any(|key| {
            let mut context = digest::Context::new(algorithm);
            context.update(&wire_name(zone));
            context.update(key);
            context.finish().as_ref() == expected
        });
        if fits {
            return Chain::Fits;
        }
    }

    // A resolver that knows none of the digests takes the zone for unsigned (RFC 4035, 5.2).
    if is_any_known {
        Chain::Broken("the parent's DS records fit none of the zone's keys (DNSKEY)")
    } else {
        Chain::Unsigned
    }
}

/// A name in its canonical form (RFC 4034, 6.2).
fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        wire.push(label.len().try_into().unwrap_or(u8::MAX));
        wire.extend(label.to_ascii_lowercase().bytes());
    }
    wire.push(0);
    wire
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::{BASE64, HEXUPPER};

    /// RFC 4509, 2.3.
    #[test]
    fn a_digest_of_the_zones_key_fits() {
        let key = "AQOeiiR0GOMYkDshWoSKz9XzfwJr1AYtsmx3TGkJaNXVbfi/2pHm822aJ5iI9BMzNXxeYCmZDRD99WYwYqUSdjMmmAphXdvxegXd/M5+X7OrzKBaMbCVdFLU\
                   Uh6DhweJBjEVv5f2wwjM9XzcnOf+EPbtG9DMBmADjFDc2w/rljwvFw==";
        let key = [&[1, 0, 3, 5], BASE64.decode(key.as_bytes()).unwrap().as_slice()].concat();
        let digest = HEXUPPER
            .decode(b"D4B7D520E7BB5F0F67674A0CCEB1E3E0614B93C4F9E99B8383F6A1E4469DA50A")
            .unwrap();
        let delegation = |kind: u8| [&[0xec, 0x45, 5, kind], digest.as_slice()].concat();

        for (zone, kind, keys, expected) in [
            ("dskey.example.com", 2, vec![key.clone()], Chain::Fits),
            (
                "DSKEY.example.com",
                2,
                vec![vec![1, 1, 3, 13], key.clone()],
                Chain::Fits,
            ),
            ("dskey.example.com", 200, vec![key.clone()], Chain::Unsigned),
            (
                "other.example.com",
                2,
                vec![key],
                Chain::Broken("the parent's DS records fit none of the zone's keys (DNSKEY)"),
            ),
        ] {
            assert_eq!(chain(zone, &[delegation(kind)], &keys), expected, "{zone} {kind}");
        }
    }
}
