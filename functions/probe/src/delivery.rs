//! What the bucket says of the managed certificates, read and put beside what was seen of them.

use futures::stream::{self, StreamExt as _};
use neverlapse::delivery::{Known, join};
use neverlapse::inventory::Certificate;
use neverlapse::receipt::{self, Receipt};
use neverlapse::renewal::Renewal;
use neverlapse::report::{CertificateReport, EndpointReport};
use neverlapse::store::{Error, Store};
use neverlapse::version::{Current, current_key};
use time::OffsetDateTime;

/// One report a certificate, worst first, and what could not be read. One that cannot be read hides no other.
pub(crate) async fn reports(
    store: &Store,
    certificates: &[Certificate],
    endpoints: &[EndpointReport],
    now: OffsetDateTime,
) -> (Vec<CertificateReport>, Vec<String>) {
    let one = |certificate| async move { report(store, certificate, endpoints, now).await };
    let all: Vec<_> = stream::iter(certificates).map(one).buffered(AT_ONCE).collect().await;
    let (mut reports, mut unreadable) = (Vec::new(), Vec::new());
    for result in all {
        match result {
            Ok(report) => reports.push(report),
            Err(error) => unreadable.push(error.to_string()),
        }
    }
    reports.sort_by(|one, other| other.status.cmp(&one.status).then_with(|| one.name.cmp(&other.name)));
    (reports, unreadable)
}

async fn report(
    store: &Store,
    certificate: &Certificate,
    endpoints: &[EndpointReport],
    now: OffsetDateTime,
) -> Result<CertificateReport, Error> {
    let current = store.json::<Current>(&current_key(&certificate.name)).await?;
    let renewal = store.json::<Renewal>(&Renewal::key(&certificate.name)).await?;
    let keys = store.keys(&receipt::prefix(&certificate.name)).await?;
    let read = |key: String| async move { store.json::<Receipt>(&key).await };
    let read: Vec<_> = stream::iter(keys).map(read).buffered(AT_ONCE).collect().await;
    let mut receipts = Vec::new();
    for receipt in read {
        receipts.extend(receipt?.map(|tagged| tagged.value));
    }
    let (current, renewal) = (current.map(|tagged| tagged.value), renewal.map(|tagged| tagged.value));
    let known = Known {
        certificate,
        current: current.as_ref(),
        renewal: renewal.as_ref(),
        receipts: &receipts,
        endpoints,
    };
    Ok(join(&known, now))
}

const AT_ONCE: usize = 10;
