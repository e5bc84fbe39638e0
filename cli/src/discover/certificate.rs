//! Certificates that the account keeps for load balancers, CloudFront and the like: in ACM, and in
//! IAM's older store.

use std::fmt;

use neverlapse::endpoint::Endpoint;
use neverlapse::finding::{Severity, Thresholds};
use neverlapse::report::Left;
use neverlapse::timestamp::Timestamp;
use roxmltree::Node;
use serde::Deserialize;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::service::{self, ACM, IAM, Refused, Services};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) name: String,
    /// Those that it is for, where the list has them.
    pub(super) names: Vec<String>,
    pub(super) not_after: Option<Timestamp>,
    pub(super) kept: Kept,
}

/// Where it is kept, and by whom it is renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// ACM issued it in this region, and renews it.
    Renewed(String),
    /// ACM issued it in this region, and will not renew it: it is not in use, or its validation
    /// fails.
    NotRenewed(String),
    /// It was imported into ACM in this region: nobody renews it there.
    Imported(String),
    /// It was uploaded to IAM: nobody renews it there.
    Uploaded,
}

impl Certificate {
    fn in_acm(summary: Summary, region: &str) -> Self {
        let kept = Kept::of(&summary, region);
        let not_after = summary.not_after.and_then(|seconds| {
            let time = OffsetDateTime::from_unix_timestamp(seconds as i64).ok()?;
            Some(Timestamp::new(time))
        });

        let mut names = summary.subject_alternative_name_summaries;
        if !names.contains(&summary.domain_name) {
            names.insert(0, summary.domain_name.clone());
        }
        Self {
            name: summary.domain_name,
            names,
            not_after,
            kept,
        }
    }

    /// How urgent it is that somebody renews it.
    pub(super) fn status(&self, now: Timestamp) -> Severity {
        let Some(not_after) = self.not_after else {
            return Severity::Unknown;
        };
        let crossed = Thresholds::default().crossed(not_after - now, LONG);
        crossed.map_or(Severity::Ok, |(severity, _)| severity)
    }

    pub(super) fn left(&self, now: Timestamp) -> Option<Left> {
        self.not_after.map(|not_after| Left(not_after - now))
    }

    /// Where clients may meet it: on the usual port of its names.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        let names = self.names.iter().filter(|name| !name.starts_with('*'));
        names.filter_map(|name| name.parse().ok())
    }
}

impl Kept {
    fn of(summary: &Summary, region: &str) -> Self {
        let kept = match (summary.r#type.as_deref(), summary.renewal_eligibility.as_deref()) {
            (Some("IMPORTED"), _) => Self::Imported,
            (_, Some("INELIGIBLE")) => Self::NotRenewed,
            _ => Self::Renewed,
        };
        kept(region.to_owned())
    }
}

/// For people.
impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Renewed(region) => write!(f, "issued by ACM in {region}, which renews it"),
            Self::NotRenewed(region) => write!(
                f,
                "issued by ACM in {region}, which does not renew it as it is: see its page in the console"
            ),
            Self::Imported(region) => write!(f, "imported into ACM in {region}: nobody renews it there"),
            Self::Uploaded => f.write_str("uploaded to IAM: nobody renews it there"),
        }
    }
}

/// The region from which CloudFront takes certificates of ACM, if it is another than this one. In
/// China it takes none of ACM's, and the other partitions have no CloudFront.
pub(super) fn of_cloudfront(region: &str) -> Option<&'static str> {
    let is_apart = ["cn-", "us-gov-", "eusc-", "us-iso", "eu-iso"]
        .iter()
        .any(|partition| region.starts_with(partition));
    (!is_apart && region != CLOUDFRONT).then_some(CLOUDFRONT)
}

/// All in ACM, in one region.
pub(super) async fn in_acm(services: &Services) -> Result<Vec<Certificate>, Refused> {
    let mut all = Vec::new();
    let mut next: Option<String> = None;
    loop {
        // Without `Includes`, ACM lists certificates with RSA keys of 2,048 bits alone.
        let mut body = json!({"CertificateStatuses": ["ISSUED", "EXPIRED"], "Includes": {"keyTypes": KEY_TYPES}});
        if let Some(token) = &next {
            body["NextToken"] = json!(token);
        }
        let answer = services.json(ACM, "CertificateManager.ListCertificates", &body).await?;
        let page = Page::of(answer)?;
        let found = page.certificates.into_iter();
        all.extend(found.map(|summary| Certificate::in_acm(summary, services.region())));

        next = page.next;
        if next.is_none() {
            return Ok(all);
        }
    }
}

/// All in IAM.
pub(super) async fn in_iam(services: &Services) -> Result<Vec<Certificate>, Refused> {
    let mut all = Vec::new();
    let mut marker = None;
    loop {
        let mut call = vec![("Action", "ListServerCertificates"), ("Version", "2010-05-08")];
        call.extend(marker.as_deref().map(|marker| ("Marker", marker)));
        let answer = services.query(IAM, &call).await?;
        let answer = service::document(&answer)?;
        all.extend(uploaded(answer.root_element()));
        marker = service::text(answer.root_element(), "Marker").map(str::to_owned);
        if marker.is_none() {
            return Ok(all);
        }
    }
}

/// Of <https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListServerCertificates.html>.
fn uploaded(answer: Node<'_, '_>) -> impl Iterator<Item = Certificate> {
    service::elements(answer, "member").filter_map(|member| {
        Some(Certificate {
            name: service::text(member, "ServerCertificateName")?.to_owned(),
            names: Vec::new(),
            not_after: service::text(member, "Expiration").and_then(|end| end.parse().ok()),
            kept: Kept::Uploaded,
        })
    })
}

/// Of <https://docs.aws.amazon.com/acm/latest/APIReference/API_ListCertificates.html>.
#[derive(Deserialize)]
struct Page {
    #[serde(rename = "CertificateSummaryList", default)]
    certificates: Vec<Summary>,
    #[serde(rename = "NextToken")]
    next: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    domain_name: String,
    #[serde(default)]
    subject_alternative_name_summaries: Vec<String>,
    /// Seconds.
    not_after: Option<f64>,
    r#type: Option<String>,
    renewal_eligibility: Option<String>,
}

impl Page {
    fn of(answer: Value) -> Result<Self, Refused> {
        serde_json::from_value(answer).map_err(Refused::not_understood)
    }
}

/// The thresholds as they are for all lifetimes of more than 42 days.
const LONG: Duration = Duration::days(365);
const CLOUDFRONT: &str = "us-east-1";
const KEY_TYPES: [&str; 7] = [
    "RSA_1024",
    "RSA_2048",
    "RSA_3072",
    "RSA_4096",
    "EC_prime256v1",
    "EC_secp384r1",
    "EC_secp521r1",
];

#[cfg(test)]
mod tests {
    use neverlapse::timestamp;

    use super::*;

    #[test]
    fn what_acm_lists() {
        let answer = json!({"NextToken": "x", "CertificateSummaryList": [
            {"CertificateArn": "arn", "DomainName": "example.com", "SubjectAlternativeNameSummaries": ["example.com", "*.example.com"],
             "HasAdditionalSubjectAlternativeNames": false, "Status": "ISSUED", "Type": "AMAZON_ISSUED", "KeyAlgorithm": "RSA-2048",
             "InUse": true, "RenewalEligibility": "ELIGIBLE", "NotBefore": 1.7e9, "NotAfter": 1_800_000_000.0},
            {"CertificateArn": "arn", "DomainName": "shop.example", "Status": "ISSUED", "Type": "IMPORTED",
             "RenewalEligibility": "INELIGIBLE", "NotAfter": 1_800_000_000},
            {"CertificateArn": "arn", "DomainName": "unused.example", "Type": "AMAZON_ISSUED", "RenewalEligibility": "INELIGIBLE"},
        ]});
        let page = Page::of(answer).unwrap();
        assert_eq!(page.next.as_deref(), Some("x"));

        let summaries = page.certificates.into_iter();
        let found: Vec<_> = summaries
            .map(|summary| Certificate::in_acm(summary, "eu-central-1"))
            .collect();
        let kept: Vec<_> = found.iter().map(|found| found.kept.clone()).collect();
        assert_eq!(
            kept,
            [Kept::Renewed, Kept::Imported, Kept::NotRenewed].map(|kept| kept("eu-central-1".to_owned()))
        );
        assert_eq!(found[0].not_after, Some(timestamp!(2027-01-15 08:00 UTC)));
        let endpoints: Vec<_> = found[0].endpoints().map(|endpoint| endpoint.to_string()).collect();
        assert_eq!(endpoints, ["example.com:443"], "a wildcard has none");

        for (now, expected) in [
            (timestamp!(2027-01-01 00:00 UTC), Severity::Ok),
            (timestamp!(2027-01-02 00:00 UTC), Severity::Warning),
            (timestamp!(2027-01-14 00:00 UTC), Severity::Critical),
            (timestamp!(2027-02-01 00:00 UTC), Severity::Critical),
        ] {
            assert_eq!(found[1].status(now), expected, "{now}");
        }
        assert_eq!(found[2].status(timestamp!(2027-01-01 00:00 UTC)), Severity::Unknown);
    }

    #[test]
    fn where_certificates_of_cloudfront_are() {
        for (region, expected) in [
            ("eu-central-1", Some("us-east-1")),
            ("us-east-1", None),
            ("cn-north-1", None),
            ("us-gov-west-1", None),
            ("eusc-de-east-1", None),
        ] {
            assert_eq!(of_cloudfront(region), expected, "{region}");
        }
    }

    #[test]
    fn what_iam_lists() {
        let xml = "<ListServerCertificatesResponse><ListServerCertificatesResult><IsTruncated>false</IsTruncated>\
            <ServerCertificateMetadataList><member><ServerCertificateName>Old</ServerCertificateName></member>\
            <member><ServerCertificateName>ProdServerCert</ServerCertificateName>\
            <Path>/company/servercerts/</Path><Arn>arn:aws:iam::123456789012:server-certificate/ProdServerCert</Arn>\
            <UploadDate>2010-05-08T01:02:03.004Z</UploadDate><ServerCertificateId>ASCA</ServerCertificateId>\
            <Expiration>2012-05-08T01:02:03Z</Expiration></member></ServerCertificateMetadataList>\
            </ListServerCertificatesResult></ListServerCertificatesResponse>";
        let document = service::document(xml).unwrap();
        let found: Vec<_> = uploaded(document.root_element()).collect();
        let expected = |name: &str, not_after| Certificate {
            name: name.into(),
            names: Vec::new(),
            not_after,
            kept: Kept::Uploaded,
        };
        let end = timestamp!(2012-05-08 01:02:03 UTC);
        assert_eq!(found, [expected("Old", None), expected("ProdServerCert", Some(end))]);
    }
}
