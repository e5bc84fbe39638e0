//! Where a challenge's name leads: CNAMEs, in zones of ours and elsewhere.

use hickory_resolver::proto::rr::{RData, RecordType};

use super::zone::Zones;
use super::{Dns, Error, plain};

/// Where a name's CNAMEs lead: the names on the way, the name itself first.
pub async fn path(name: &str, zones: &Zones, dns: &Dns) -> Result<Vec<String>, Error> {
    let mut path = vec![name.to_owned()];
    while let Some(next) = cname(path.last().map_or(name, String::as_str), zones, dns).await? {
        let looped = path.contains(&next);
        path.push(next);

        if looped || path.len() > LONGEST {
            let what = if looped { "runs in a circle" } else { "is too long" };
            return Err(Error(format!("the chain of CNAMEs {what}: {}", path.join(" -> "))));
        }
    }
    Ok(path)
}

/// A name's CNAME. In a zone of ours Route 53 itself knows: a question by DNS, asked just before
/// the TXT record is written, would leave "no such name" in the cache of each resolver on the way.
async fn cname(name: &str, zones: &Zones, dns: &Dns) -> Result<Option<String>, Error> {
    if let Ok(zone) = zones.of(name)
        && !is_delegated_further(name, &zone.name, dns).await
    {
        return zone.cname(name).await;
    }

    let Some(target) = cname_by_dns(name, dns).await? else {
        return Ok(None);
    };
    // A wildcard makes up CNAMEs for all names that have no record (RFC 4592, 2.2). A TXT record at
    // the name itself would override it.
    if let Some((_, parent)) = name.split_once('.') {
        let sibling = format!("_neverlapse-{:08x}.{parent}", rand::random::<u32>());
        if cname_by_dns(&sibling, dns).await?.as_ref() == Some(&target) {
            return Ok(None);
        }
    }
    Ok(Some(target))
}

async fn cname_by_dns(name: &str, dns: &Dns) -> Result<Option<String>, Error> {
    let found = dns.any(name, RecordType::CNAME).await;
    let found = found.map_err(|reason| Error(format!("cannot look up the CNAME of {name}: {reason}")))?;
    Ok(found.iter().find_map(|record| match &record.data {
        RData::CNAME(target) => Some(plain(&target.0.to_string())),
        _ => None,
    }))
}

/// Whether a name below the zone's is delegated to other servers, so that Route 53 does not know
/// what is there. No answer counts as no delegation.
async fn is_delegated_further(name: &str, zone: &str, dns: &Dns) -> bool {
    let mut rest = name;
    while let Some((_, parent)) = rest.split_once('.') {
        if parent == zone || !parent.ends_with(zone) {
            return false;
        }
        let found = dns.look_up(parent, RecordType::NS).await.unwrap_or_default();
        if found.iter().any(|record| plain(&record.name.to_string()) == parent) {
            return true;
        }
        rest = parent;
    }
    false
}

const LONGEST: usize = 9;
