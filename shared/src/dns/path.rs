//! Where a challenge's name leads: CNAMEs, in zones of ours and elsewhere.

use hickory_resolver::proto::rr::{RData, RecordType};

use super::zone::{At, HostedZone, Zones};
use super::{Dns, Error, plain};

/// Where a challenge's name leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The names on the way, the challenge's first.
    pub names: Vec<String>,
    /// Why nobody would see a TXT record at its end: the zone that holds it has delegated it.
    pub cut: Option<String>,
}

impl Path {
    /// The name that the TXT record has to have.
    pub fn end(&self) -> &str {
        self.names.last().map_or("", String::as_str)
    }
}

/// What is at a name.
enum Step {
    Cname(String),
    /// Nothing that leads elsewhere.
    End,
    /// See [`Path::cut`].
    Cut(String),
}

/// Follows a name's CNAMEs.
pub async fn path(name: &str, zones: &Zones, dns: &Dns) -> Result<Path, Error> {
    let mut names = vec![name.to_owned()];
    loop {
        let next = match step(names.last().map_or(name, String::as_str), zones, dns).await? {
            Step::Cname(next) => next,
            Step::End => return Ok(Path { names, cut: None }),
            Step::Cut(why) => return Ok(Path { names, cut: Some(why) }),
        };
        let looped = names.contains(&next);
        names.push(next);

        if looped || names.len() > LONGEST {
            let what = if looped { "runs in a circle" } else { "is too long" };
            return Err(Error(format!("the chain of CNAMEs {what}: {}", names.join(" -> "))));
        }
    }
}

/// In a zone of ours Route 53 itself knows: a question by DNS, asked just before the TXT record is
/// written, would leave "no such name" in the cache of each resolver on the way.
async fn step(name: &str, zones: &Zones, dns: &Dns) -> Result<Step, Error> {
    let Ok(zone) = zones.of(name) else {
        return Ok(cname_by_dns(name, dns).await?.map_or(Step::End, Step::Cname));
    };
    let Some((cut, servers)) = delegated_further(name, zone, dns).await? else {
        return match zone.at(name).await? {
            At::Cname(target) => Ok(Step::Cname(target)),
            At::Delegation(servers) => Ok(Step::Cut(why_cut(name, name, &servers, zone))),
            At::Nothing => Ok(Step::End),
        };
    };
    let cname = cname_by_dns(name, dns).await?;
    Ok(cname.map_or_else(|| Step::Cut(why_cut(name, &cut, &servers, zone)), Step::Cname))
}

fn why_cut(name: &str, cut: &str, servers: &[String], zone: &HostedZone) -> String {
    let HostedZone { id, name: holder, .. } = zone;
    format!(
        "nobody would see a TXT record of {name} in hosted zone {holder} ({id}), because its NS records delegate {cut} to {}. If those are \
         of a hosted zone in another account, add [[zone]] name = {cut:?} with its role_arn; if they are not of Route 53, make {name} a \
         CNAME there that leads into a zone that is",
        servers.join(", ")
    )
}

/// Where a name's CNAME leads, as the world's name servers say.
async fn cname_by_dns(name: &str, dns: &Dns) -> Result<Option<String>, Error> {
    let Some(target) = ask_for_cname(name, dns).await? else {
        return Ok(None);
    };
    // A wildcard makes up CNAMEs for all names that have no record (RFC 4592, 2.2). A TXT record at
    // the name itself would override it.
    if let Some((_, parent)) = name.split_once('.') {
        let sibling = format!("_neverlapse-{:08x}.{parent}", rand::random::<u32>());
        if ask_for_cname(&sibling, dns).await?.as_ref() == Some(&target) {
            return Ok(None);
        }
    }
    Ok(Some(target))
}

async fn ask_for_cname(name: &str, dns: &Dns) -> Result<Option<String>, Error> {
    let found = dns.any(name, RecordType::CNAME).await;
    let found = found.map_err(|reason| Error(format!("cannot look up the CNAME of {name}: {reason}")))?;
    Ok(found.iter().find_map(|record| match &record.data {
        RData::CNAME(target) => Some(plain(&target.0.to_string())),
        _ => None,
    }))
}

/// The name between a zone and a name in it that is delegated to other servers, so that Route 53
/// does not know what is below. DNS says where to look, because Route 53 allows few questions; but
/// in a VPC that may be the view of a private zone, so the zone's own records decide. No answer
/// counts as no delegation.
async fn delegated_further(name: &str, zone: &HostedZone, dns: &Dns) -> Result<Option<(String, Vec<String>)>, Error> {
    let mut rest = name;
    while let Some((_, parent)) = rest.split_once('.') {
        if parent == zone.name || !parent.ends_with(&zone.name) {
            break;
        }
        let found = dns.look_up(parent, RecordType::NS).await.unwrap_or_default();
        if found.iter().any(|record| plain(&record.name.to_string()) == parent)
            && let At::Delegation(servers) = zone.at(parent).await?
        {
            return Ok(Some((parent.to_owned(), servers)));
        }
        rest = parent;
    }
    Ok(None)
}

const LONGEST: usize = 9;
