//! DNS-01 where Route 53 is busy, shared, elsewhere, or led in circles.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use aws_sdk_route53::types::{ResourceRecord, ResourceRecordSet, RrType};
use neverlapse_tests::dns::Dns;
use neverlapse_tests::fault::{Fate, Gate, Passed, Proxy, Reply};
use neverlapse_tests::process::{command, run};
use neverlapse_tests::program::program;

use crate::fixture::{ANOTHER_ACCOUNT, Lab, certificate, request};
use crate::isolated::Isolated;

/// Route 53 is asked four times: it is busy twice, then somebody else's value comes between reading
/// and writing.
pub(crate) async fn a_busy_route_53_and_a_change_in_between_lose_nothing(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "busy-route53").await?;
    let (pebble, issuer) = isolated.issuer("busy").await?;
    let zone = lab.stack.create_zone("busy.test").await?;
    isolated
        .inventory(&format!("{}{issuer}", certificate("busy.test", &["busy.test"], "busy")))
        .await?;
    let (changes, gate) = (AtomicUsize::new(0), Gate::default());
    let between = gate.clone();
    let proxy = Proxy::start(lab.stack.endpoint(), move |line| {
        match line.starts_with("POST") && line.contains("/rrset") {
            false => Fate::Pass,
            true => match changes.fetch_add(1, Ordering::Relaxed) {
                0 => Fate::Refuse(400, route53_error("PriorRequestNotComplete")),
                1 => Fate::Refuse(400, route53_error("Throttling")),
                2 => Fate::Wait(between.clone()),
                _ => Fate::Pass,
            },
        }
    });
    let (proxy, request) = (proxy.await?, request("busy.test"));
    let name = "_acme-challenge.busy.test";
    let somebody_else = async {
        gate.reached().await;
        let value = "\"somebody else's\"";
        lab.stack.create_record(&zone, name, RrType::Txt, value).await?;
        gate.open();
        Ok::<_, anyhow::Error>(())
    };
    let (done, ()) = tokio::try_join!(isolated.run_through(&proxy.endpoint, &request), somebody_else)?;
    ensure!(done, "it was not issued:\n{}", isolated.log("busy.test")?);
    isolated.bucket.verified("busy.test", &pebble).await?;
    let passed = proxy.passed();
    let changes: Vec<_> = passed
        .iter()
        .filter(|passed| passed.line.contains("/rrset") && passed.line.starts_with("POST"))
        .collect();
    // Busy, busy, lost, written, and taken out again.
    ensure!(changes.len() == 5, "{} changes", changes.len());
    ensure!(changes[3].body.contains("<Action>DELETE</Action>") && changes[3].body.contains("somebody else"));
    let left = lab.stack.txt(&zone).await?;
    ensure!(
        left == [(name.to_owned(), "somebody else's".to_owned())],
        "in DNS: {left:?}"
    );
    Ok(())
}

pub(crate) async fn cnames_that_lead_in_circles_and_many_that_lead_to_one(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "cnames").await?;
    let (pebble, issuer) = isolated.issuer("cnames").await?;
    let (many, target) = (
        lab.stack.create_zone("many.test").await?,
        lab.stack.create_zone("target.test").await?,
    );
    let cname = async |name: &str, to: &str| lab.stack.create_record(&many, name, RrType::Cname, to).await;
    cname("_acme-challenge.loop.many.test", "a.many.test").await?;
    cname("a.many.test", "_acme-challenge.loop.many.test").await?;
    let hosts = [
        "a1.many.test",
        "a2.many.test",
        "a3.many.test",
        "b1.many.test",
        "b2.many.test",
    ];
    for host in hosts {
        cname(&format!("_acme-challenge.{host}"), "all.target.test").await?;
    }
    let entries = [
        certificate("loop", &["loop.many.test"], "cnames"),
        certificate("a", &hosts[..3], "cnames"),
        certificate("b", &hosts[3..], "cnames"),
    ];
    isolated.inventory(&format!("{}{issuer}", entries.concat())).await?;

    let problem = isolated.refused(&request("loop")).await?;
    let circle = "runs in a circle: _acme-challenge.loop.many.test -> a.many.test -> _acme-challenge.loop.many.test";
    ensure!(problem.contains(circle), "{problem}");

    let proxy = Proxy::start(lab.stack.endpoint(), |_| Fate::Pass).await?;
    let (a, b) = (request("a"), request("b"));
    let both = tokio::try_join!(
        isolated.run_through(&proxy.endpoint, &a),
        isolated.run_through(&proxy.endpoint, &b)
    )?;
    ensure!(both == (true, true), "{}{}", isolated.log("a")?, isolated.log("b")?);
    for name in ["a", "b"] {
        isolated.bucket.verified(name, &pebble).await?;
    }
    // All of an order's values are in one change of one record.
    let together = |passed: &Passed| {
        passed.line.starts_with("POST")
            && passed.body.matches("<Action>CREATE</Action>").count() == 1
            && passed.body.matches("<Name>all.target.test.</Name>").count() >= 1
            && passed.body.matches("<Value>").count() >= 3
    };
    ensure!(
        proxy.passed().iter().any(together),
        "no change has three values of one record"
    );
    for zone in [many, target] {
        let left = lab.stack.txt(&zone).await?;
        ensure!(left.is_empty(), "left in DNS: {left:?}");
    }
    Ok(())
}

/// Wildcards answer for `_acme-challenge.NAME` too: their CNAME led into a load balancer's zone,
/// where nobody of us may write.
pub(crate) async fn cnames_that_wildcards_make_up_are_not_followed(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "wildcards").await?;
    let (pebble, issuer) = isolated.issuer("wild").await?;
    let zone = lab.stack.create_zone("wildcards.test").await?;
    lab.stack
        .create_record(&zone, "*.wildcards.test", RrType::Cname, "lb-1.elb.amazonaws.example")
        .await?;
    lab.stack
        .create_record(&zone, "*.texts.wildcards.test", RrType::Txt, "\"of nobody\"")
        .await?;
    let names = ["wildcards.test", "apps.wildcards.test", "texts.wildcards.test"];
    let entry = certificate("wildcards", &names, "wild");
    isolated.inventory(&format!("{entry}{issuer}")).await?;

    isolated.renewed(&request("wildcards"), &pebble).await?;
    let left = lab.stack.txt(&zone).await?;
    ensure!(left.len() == 1 && left[0].1 == "of nobody", "in DNS: {left:?}");
    Ok(())
}

/// A TXT record beside or below NS records is seen by nobody. It was written, waited for, and the
/// registrar was said to be at fault.
pub(crate) async fn nothing_is_written_where_the_zone_delegates_to_others(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "cut").await?;
    let (_pebble, issuer) = isolated.issuer("cut").await?;
    let zone = lab.stack.create_zone("cut.test").await?;
    let stack = &lab.stack;
    for name in ["sub.cut.test", "_acme-challenge.own.cut.test"] {
        stack
            .create_record(&zone, name, RrType::Ns, "ns1.elsewhere.example.")
            .await?;
    }
    stack
        .create_record(&zone, "_acme-challenge.led.cut.test", RrType::Cname, "led.sub.cut.test")
        .await?;
    let cases = [
        (
            "www.sub.cut.test",
            "because its NS records delegate sub.cut.test to ns1.elsewhere.example",
        ),
        (
            "own.cut.test",
            "delegate _acme-challenge.own.cut.test to ns1.elsewhere.example",
        ),
        (
            "led.cut.test",
            "the CNAMEs _acme-challenge.led.cut.test -> led.sub.cut.test: nobody would see",
        ),
    ];
    let entries: String = cases
        .iter()
        .map(|(name, _)| certificate(name, &[name], "cut"))
        .collect();
    isolated.inventory(&format!("{entries}{issuer}")).await?;

    for (name, words) in cases {
        let problem = isolated.refused(&request(name)).await?;
        ensure!(problem.contains(words), "{name}: {problem}");
    }
    ensure!(stack.txt(&zone).await?.is_empty());
    Ok(())
}

/// A change can be PENDING for minutes; what counts is what the name servers have.
pub(crate) async fn a_change_that_route_53_never_calls_in_sync_is_waited_for(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "pending").await?;
    let (pebble, issuer) = isolated.issuer("pending").await?;
    let zone = lab.stack.create_zone("pending.test").await?;
    let entry = certificate("pending", &["pending.test"], "pending");
    isolated.inventory(&format!("{entry}{issuer}")).await?;
    let pending = Reply {
        status: 200,
        headers: vec![("content-type", "text/xml".to_owned())],
        body: "<?xml version=\"1.0\"?>\n<GetChangeResponse xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><ChangeInfo>\
               <Id>/change/C1</Id><Status>PENDING</Status><SubmittedAt>2026-11-26T00:00:00Z</SubmittedAt></ChangeInfo></GetChangeResponse>"
            .to_owned(),
    };
    let proxy = Proxy::start(lab.stack.endpoint(), move |line| match line.contains("/change/") {
        true => Fate::Answer(pending.clone()),
        false => Fate::Pass,
    })
    .await?;

    // Half of its time is for the wait.
    let done = isolated.run_within("60", &proxy.endpoint, &request("pending")).await?;
    let log = isolated.log("pending")?;
    ensure!(
        done && log.contains("Route 53 does not say that the change is in sync"),
        "{log}"
    );
    let asked = proxy
        .passed()
        .iter()
        .filter(|passed| passed.line.contains("/change/"))
        .count();
    ensure!(asked > 3, "asked {asked} times");
    isolated.bucket.verified("pending", &pebble).await?;
    ensure!(lab.stack.txt(&zone).await?.is_empty());
    Ok(())
}

/// Clients that write each value as a multivalue answer kept ours from proving anything.
pub(crate) async fn beside_multivalue_answers_of_another_client_ours_come_and_go(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "multivalue").await?;
    let (pebble, issuer) = isolated.issuer("many").await?;
    let zone = lab.stack.create_zone("multivalue.test").await?;
    let theirs = ["theirs-1", "theirs-2", "theirs-3"];
    for value in theirs {
        let set = ResourceRecordSet::builder()
            .name("_acme-challenge.multivalue.test")
            .r#type(RrType::Txt)
            .ttl(300)
            .set_identifier(value)
            .multi_value_answer(true)
            .resource_records(ResourceRecord::builder().value(format!("{value:?}")).build()?);
        lab.stack.create_set(&zone, set.build()?).await?;
    }
    let entry = certificate("multivalue", &["multivalue.test", "*.multivalue.test"], "many");
    isolated.inventory(&format!("{entry}{issuer}")).await?;

    isolated.renewed(&request("multivalue"), &pebble).await?;
    let left = lab.stack.txt(&zone).await?;
    let values: Vec<_> = left.iter().map(|(_, value)| value.as_str()).collect();
    ensure!(values == theirs, "in DNS: {left:?}");
    Ok(())
}

/// A zone of ours has the name too, but is not delegated; and another role leads nowhere, which is
/// its own zone's trouble alone.
pub(crate) async fn a_zone_in_another_account_is_reached_by_its_role_alone(lab: &Lab) -> Result<()> {
    let isolated = Isolated::open(lab, "another-account").await?;
    let (pebble, issuer) = isolated.issuer("other").await?;
    let theirs = lab.stack.account(ANOTHER_ACCOUNT).await;
    let theirs = aws_sdk_route53::Client::new(&theirs);
    theirs
        .create_hosted_zone()
        .name("theirs.test")
        .caller_reference("theirs")
        .send()
        .await?;
    for name in ["ours.test", "theirs.test"] {
        lab.stack.create_zone(name).await?;
    }
    let (role, broken) = (
        format!("arn:aws:iam::{ANOTHER_ACCOUNT}:role/acme-dns"),
        format!("arn:aws:iam::{ANOTHER_ACCOUNT}:role/broken"),
    );
    let zones = format!(
        "[[zone]]\nname = \"theirs.test\"\nrole_arn = {role:?}\nexternal_id = \"neverlapse-7\"\n\
         [[zone]]\nname = \"locked.test\"\nrole_arn = {broken:?}\n"
    );
    let entries: String = ["theirs.test", "ours.test", "locked.test"]
        .iter()
        .map(|name| certificate(name, &[name], "other"))
        .collect();
    isolated.inventory(&format!("{entries}{zones}{issuer}")).await?;
    let proxy = Proxy::start(lab.stack.endpoint(), |_| Fate::Pass).await?;
    for name in ["theirs.test", "ours.test"] {
        let done = isolated.run_through(&proxy.endpoint, &request(name)).await?;
        ensure!(done, "{name}:\n{}", isolated.log(name)?);
        isolated.bucket.verified(name, &pebble).await?;
    }
    let passed = proxy.passed();
    let is_it = |passed: &&Passed| passed.body.contains("Action=AssumeRole") && passed.body.contains("acme-dns");
    let assumed = passed.iter().find(is_it);
    let assumed = assumed.context("a role was assumed")?;
    let encoded = role.replace(':', "%3A").replace('/', "%2F");
    for words in [
        format!("RoleArn={encoded}"),
        "ExternalId=neverlapse-7".into(),
        "RoleSessionName=neverlapse".into(),
    ] {
        ensure!(assumed.body.contains(&words), "{words} is not in {}", assumed.body);
    }
    // Their zone is written with the role's credentials, ours with our own.
    let signed = |name: &str| {
        let change = |passed: &&Passed| {
            passed.line.starts_with("POST") && passed.body.contains(&format!("_acme-challenge.{name}"))
        };
        passed.iter().find(change).map(|passed| passed.authorization.clone())
    };
    let (by_role, by_us) = (
        signed("theirs.test").context("theirs")?,
        signed("ours.test").context("ours")?,
    );
    ensure!(
        by_role.contains("Credential=ASIA") && by_us.contains("Credential=test/"),
        "{by_role}\n{by_us}"
    );
    let problem = isolated.refused(&request("locked.test")).await?;
    ensure!(
        problem.contains("role/broken leads to no hosted zone of that name"),
        "{problem}"
    );
    Ok(())
}

/// Without `RenewerNameserver`, where production is: the resolver of resolv.conf names the zone's
/// servers, and these are asked at port 53. That takes a port and a mount that only root has;
/// elsewhere this says that it was not seen.
pub(crate) async fn the_zones_real_name_servers_are_asked(lab: &Lab) -> Result<()> {
    // The emulator says these of every zone. Two processes of this test do not meet at these
    // addresses.
    let own = |last: u8| {
        IpAddr::from([
            127,
            53,
            u8::try_from(std::process::id() % 250).unwrap_or_default() + 1,
            last,
        ])
    };
    let servers = [
        "ns-1.awsdns-1.com",
        "ns-2.awsdns-2.net",
        "ns-3.awsdns-3.org",
        "ns-4.awsdns-4.co.uk",
    ];
    let names: Vec<_> = servers
        .iter()
        .zip(2..)
        .map(|(name, last)| ((*name).to_owned(), vec![own(last)]))
        .collect();
    let at = async |last: u8| {
        Dns::at(
            SocketAddr::new(own(last), 53),
            names.iter().cloned().collect(),
            &lab.stack.config,
        )
        .await
    };
    let mounts = run(command("unshare").args(["--mount", "true"])).await;
    // The third of them is down; the others answer for it.
    let listening = futures::future::try_join_all([1, 2, 3, 5].map(at)).await;
    let _listening = match (listening, mounts) {
        (Ok(listening), Ok(_)) => listening,
        (listening, mounts) => {
            let reasons = [listening.err(), mounts.err()].into_iter().flatten();
            let reasons: Vec<_> = reasons.map(|reason| format!("{reason:#}")).collect();
            println!(
                "NOT SEEN: a zone's real name servers (needs root): {}",
                reasons.join("; ")
            );
            return Ok(());
        }
    };
    let isolated = Isolated::open(lab, "name-servers").await?;
    let (pebble, issuer) = isolated.issuer("delegated").await?;
    lab.stack.create_zone("nameservers.test").await?;
    let name = "www.nameservers.test";
    isolated
        .inventory(&format!("{}{issuer}", certificate(name, &[name], "delegated")))
        .await?;
    let configuration = isolated.program("resolv.conf", &format!("nameserver {}\n", own(1)))?;
    let script = format!(
        "#!/bin/sh\nexec unshare --mount sh -c 'mount --bind {} /etc/resolv.conf && exec {}'\n",
        configuration.display(),
        program("renewer").await?.display()
    );
    let program = isolated.program("renewer", &script)?;
    let more = [("RENEWER_NAMESERVER", "")];
    let done = isolated
        .run_with(&program, lab.stack.endpoint(), &more, &request(name))
        .await?;
    let log = isolated.log(name)?;
    ensure!(done, "it was not issued:\n{log}");
    isolated.bucket.verified(name, &pebble).await?;
    ensure!(
        log.contains("not all name servers answer") && log.contains("ns-3.awsdns-3.org"),
        "nobody missed the third:\n{log}"
    );
    Ok(())
}

fn route53_error(code: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<ErrorResponse xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>Please wait.</Message></Error><RequestId>00000000</RequestId></ErrorResponse>"
    )
}
