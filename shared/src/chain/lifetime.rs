//! Lifetimes that are longer than the rules of their day allow.

use time::Duration;
use x509_parser::certificate::X509Certificate;

use crate::certificate::time_of;
use crate::finding::{Kind, LifetimeRule};
use crate::timestamp;
use crate::timestamp::Timestamp;

/// What a leaf's lifetime breaks, if its path leads to a public root or to a private one.
///
/// Nothing is known of the day of issue but the leaf's notBefore.
pub(super) fn too_long(leaf: &X509Certificate<'_>, is_public: bool) -> Option<Kind> {
    let from = time_of(leaf.validity().not_before);
    let to = time_of(leaf.validity().not_after);
    let rules: &[_] = if is_public { &PUBLIC } else { &PRIVATE };
    let (since, rule, most) = rules.iter().rev().find(|(since, ..)| *since <= from)?;

    let lifetime = match rule {
        // Both ends belong to it (BR, 1.6.1).
        LifetimeRule::CaBrowserForum => to - from + Duration::SECOND,
        LifetimeRule::Apple => to - from,
    };
    // A part of a day counts as a day.
    let days = (lifetime - Duration::SECOND).whole_days() + 1;
    (days > *most).then_some(Kind::LongLifetime {
        days,
        most_days: *most,
        rule: *rule,
        since: *since,
    })
}

type Rule = (Timestamp, LifetimeRule, i64);

/// The CA/Browser Forum's Baseline Requirements, 6.3.2.
const PUBLIC: [Rule; 4] = [
    (timestamp!(2020-09-01 00:00 UTC), LifetimeRule::CaBrowserForum, 398),
    (timestamp!(2026-03-15 00:00 UTC), LifetimeRule::CaBrowserForum, 200),
    (timestamp!(2027-03-15 00:00 UTC), LifetimeRule::CaBrowserForum, 100),
    (timestamp!(2029-03-15 00:00 UTC), LifetimeRule::CaBrowserForum, 47),
];
/// <https://support.apple.com/en-us/103769>
const PRIVATE: [Rule; 1] = [(timestamp!(2019-07-01 00:00 UTC), LifetimeRule::Apple, 825)];

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use x509_parser::prelude::FromDer;

    use super::*;

    #[test]
    fn the_day_of_issue_decides() {
        let second = Duration::SECOND;
        for (from, lifetime, public, private) in [
            (
                timestamp!(2026-03-14 23:59 UTC),
                Duration::days(398) - second,
                None,
                None,
            ),
            (
                timestamp!(2026-03-14 23:59 UTC),
                Duration::days(398),
                Some((399, 398)),
                None,
            ),
            (
                timestamp!(2026-03-15 00:00 UTC),
                Duration::days(200) - second,
                None,
                None,
            ),
            (
                timestamp!(2026-03-15 00:00 UTC),
                Duration::days(200),
                Some((201, 200)),
                None,
            ),
            (
                timestamp!(2027-03-15 00:00 UTC),
                Duration::days(200) - second,
                Some((200, 100)),
                None,
            ),
            (
                timestamp!(2029-03-15 00:00 UTC),
                Duration::days(47) - second,
                None,
                None,
            ),
            (
                timestamp!(2029-03-15 00:00 UTC),
                Duration::days(90) - second,
                Some((90, 47)),
                None,
            ),
            (
                timestamp!(2026-10-01 00:00 UTC),
                Duration::days(825),
                Some((826, 200)),
                None,
            ),
            (
                timestamp!(2026-10-01 00:00 UTC),
                Duration::days(825) + second,
                Some((826, 200)),
                Some((826, 825)),
            ),
            // The rules of its day allowed it.
            (timestamp!(2019-01-01 00:00 UTC), Duration::days(3_650), None, None),
        ] {
            let mut params = CertificateParams::default();
            params.not_before = from.into();
            params.not_after = (from + lifetime).into();
            let leaf = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let (_, leaf) = X509Certificate::from_der(leaf.der()).unwrap();
            let days = |is_public: bool| match too_long(&leaf, is_public) {
                Some(Kind::LongLifetime { days, most_days, .. }) => Some((days, most_days)),
                _ => None,
            };
            assert_eq!((days(true), days(false)), (public, private), "{from}, {lifetime}");
        }
    }
}
