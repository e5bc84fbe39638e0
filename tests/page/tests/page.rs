//! The report's page in a real browser.

use neverlapse::report::Report;
use neverlapse::report::page::page;
use neverlapse::timestamp::Timestamp;
use neverlapse_page_tests::browser::{Browser, ENTER, Visit};
use neverlapse_tests::fleet;

const WIDE: (u32, u32) = (1_280, 1_000);
const PHONE: (u32, u32) = (390, 844);

async fn open(browser: &Browser, report: &Report, window: (u32, u32)) -> Visit {
    browser
        .open(&page(report, Some("shop in eu-central-1")).unwrap(), window)
        .await
        .unwrap()
}

async fn names(visit: &Visit) -> Vec<String> {
    visit
        .value("[...document.querySelectorAll('#rows .open')].map(button => button.textContent)")
        .await
        .unwrap()
}

async fn text(visit: &Visit, selector: &str) -> String {
    visit
        .value(&format!("document.querySelector('{selector}').textContent"))
        .await
        .unwrap()
}

async fn aria_sort(visit: &Visit, column: &str) -> String {
    let header = format!("document.querySelector('[data-sort={column}]').parentElement.ariaSort");
    visit.value(&header).await.unwrap()
}

#[tokio::test]
async fn it_filters_and_sorts_and_asks_nobody_for_anything() {
    let browser = Browser::start().await.unwrap();
    let visit = open(&browser, &fleet::shop(Timestamp::now()), WIDE).await;
    assert_eq!(text(&visit, "h1").await, "4 of 31 endpoints are critical");
    assert_eq!(text(&visit, "#shown").await, "31 endpoints");
    assert_eq!(names(&visit).await[0], "status.shop.example:443", "worst first");

    // Words are and-ed, and look into certificates too.
    visit.type_into("#query", "DigiCert pay").await.unwrap();
    assert_eq!(names(&visit).await, ["pay-eu.shop.example:443", "pay.shop.example:443"]);
    assert_eq!(text(&visit, "#shown").await, "2 of 31 endpoints");
    visit.click("#reset").await.unwrap();
    assert_eq!(names(&visit).await.len(), 31);

    // By status, with the choice in the address.
    visit.click("input[value=unknown]").await.unwrap();
    assert_eq!(
        names(&visit).await,
        ["old-shop.example:443", "partner.example.net:8443"]
    );
    assert_eq!(visit.value::<String>("location.hash").await.unwrap(), "#status=unknown");
    visit.click("input[value=unknown]").await.unwrap();
    visit.click(".count.warning").await.unwrap();
    assert_eq!(names(&visit).await.len(), 3, "the tiles above choose too");
    visit.click("#reset").await.unwrap();

    // Sorted once, then the other way, and said so.
    assert_eq!(aria_sort(&visit, "expires").await, "none");
    visit.click("[data-sort=expires]").await.unwrap();
    assert_eq!(aria_sort(&visit, "expires").await, "ascending");
    assert_eq!(
        names(&visit).await[..2],
        ["status.shop.example:443", "smtp://mail.shop.example:587"]
    );
    visit.click("[data-sort=expires]").await.unwrap();
    assert_eq!(aria_sort(&visit, "expires").await, "descending");
    visit.click("[data-sort=endpoint]").await.unwrap();
    let sorted = names(&visit).await;
    assert_eq!(sorted[0], "admin.shop.example:8443");
    assert_eq!(aria_sort(&visit, "expires").await, "none");

    // Details, by keyboard.
    visit.press("#rows .open", ENTER).await.unwrap();
    let details = text(&visit, "#rows .details").await;
    for words in [
        "Fingerprint",
        "X25519MLKEM768",
        "CN=E8,O=Let's Encrypt,C=US",
        "not revoked",
    ] {
        assert!(details.contains(words), "{words:?} is missing in {details}");
    }
    visit.press("#rows .open", ENTER).await.unwrap();
    let count: usize = visit
        .value("document.querySelectorAll('.details').length")
        .await
        .unwrap();
    assert_eq!(count, 0);

    assert_eq!(visit.trouble().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_in_a_certificate_runs() {
    let browser = Browser::start().await.unwrap();
    let visit = open(&browser, &fleet::hostile(Timestamp::now()), WIDE).await;
    // Everything that can be shown is.
    let _: bool = visit
        .value("document.querySelectorAll('details').forEach(one => one.open = true), document.querySelectorAll('.open').forEach(one => one.click()), true")
        .await
        .unwrap();
    let shown: String = visit.value("document.body.innerText").await.unwrap();
    assert!(
        shown.contains("<script>window.owned=1</script>"),
        "it is shown as what it is"
    );
    assert!(!shown.contains('\u{202e}'), "nothing turns a line");
    assert!(visit.value::<bool>("window.owned === undefined").await.unwrap());
    let strange: usize = visit
        .value("document.querySelectorAll('body img, body script:not(:nth-last-child(-n+2)), [onload], [onerror], [style]').length")
        .await
        .unwrap();
    assert_eq!(strange, 0);
    assert_eq!(visit.trouble().await.unwrap(), Vec::<String>::new());
}

/// That this test sees what it is there for.
#[tokio::test]
async fn a_script_that_got_in_would_not_run_and_would_be_seen() {
    let browser = Browser::start().await.unwrap();
    let html = page(&fleet::shop(Timestamp::now()), None).unwrap();
    let html = html.replace(
        "<h1>",
        "<script>window.owned=1</script><img src=https://x.example/><h1>",
    );
    let visit = browser.open(&html, WIDE).await.unwrap();
    assert!(visit.value::<bool>("window.owned === undefined").await.unwrap());
    let trouble = visit.trouble().await.unwrap();
    assert!(trouble.iter().any(|one| one.contains("script-src")), "{trouble:?}");
    assert!(trouble.iter().any(|one| one.contains("x.example")), "{trouble:?}");
}

/// As many as one page shows, and managed certificates with two thousand instances.
#[tokio::test]
async fn ten_thousand_endpoints() {
    let browser = Browser::start().await.unwrap();
    let now = Timestamp::now();
    let html = page(&fleet::large(now, 10_000, 200), None).unwrap();
    assert!(html.len() < 12_000_000, "{}", html.len());
    assert!(!html.contains("These are"), "nothing is left out");
    let visit = browser.open(&html, WIDE).await.unwrap();
    assert_eq!(
        text(&visit, "#shown").await,
        "10,000 endpoints; the first 100 are shown"
    );
    assert_eq!(
        names(&visit).await.len(),
        100,
        "the browser lays out no more than people look at"
    );
    visit.type_into("#query", "host-09999").await.unwrap();
    assert_eq!(names(&visit).await, ["host-09999.fleet.example:443"]);
    visit.click("#reset").await.unwrap();
    visit.click("[data-sort=endpoint]").await.unwrap();
    visit.click("#more").await.unwrap();
    let names = names(&visit).await;
    assert_eq!(
        (names.len(), names[599].as_str()),
        (600, "host-00599.fleet.example:443")
    );
    // Each key in the filter, each click on a header. What was measured is printed; a busy machine
    // is no failure.
    let times: Vec<f64> = visit.value(TIMES).await.unwrap();
    println!("first filter, second filter, sort, opening: {times:?} ms");
    assert_eq!(times.len(), 4);
    assert_eq!(visit.trouble().await.unwrap(), Vec::<String>::new());

    let more = page(&fleet::large(now, 10_500, 0), None).unwrap();
    assert!(more.contains("These are 10,000 of 10,500 endpoints: the worst, then those that expire soonest."));
}

/// Milliseconds until what was asked for is laid out, and until the page was ready at first.
const TIMES: &str = r"
(() => {
  const timed = (act) => {
    const begin = performance.now();
    act();
    document.body.getBoundingClientRect();
    return Math.round(performance.now() - begin);
  };
  const query = document.getElementById('query');
  const filter = (text) => () => {
    query.value = text;
    query.dispatchEvent(new Event('input'));
  };
  const [opened] = performance.getEntriesByType('navigation');
  return [
    timed(filter('fleet digicert')),
    timed(filter('fleet')),
    timed(() => document.querySelector('[data-sort=issuer]').click()),
    Math.round(opened.domContentLoadedEventEnd),
  ];
})()";

/// What somebody without a mouse meets: the way to the table, its filter, its headers, its rows,
/// each with a ring around it.
#[tokio::test]
async fn everything_can_be_reached_by_keyboard() {
    let browser = Browser::start().await.unwrap();
    let visit = open(&browser, &fleet::shop(Timestamp::now()), WIDE).await;
    let unreachable: Vec<String> = visit.value(UNREACHABLE).await.unwrap();
    assert_eq!(unreachable, Vec::<String>::new());
    // The first stop leads past everything else, a slash to the filter from anywhere.
    let first = "document.querySelector('a[href], button, input, summary, [tabindex]').textContent";
    assert_eq!(visit.value::<String>(first).await.unwrap(), "To the table of endpoints");
    visit.press(".skip", '/').await.unwrap();
    assert_eq!(
        visit.value::<String>("document.activeElement.id").await.unwrap(),
        "query"
    );
    visit.press("[data-sort=issuer]", ENTER).await.unwrap();
    assert_eq!(aria_sort(&visit, "issuer").await, "ascending");
}

/// Controls that the Tab key passes by, or that do not show that they have the focus.
const UNREACHABLE: &str = r"
[...document.querySelectorAll('a[href], button, input, summary')].filter((element) => {
  if (!element.checkVisibility()) return false;
  element.focus({ focusVisible: true });
  const ring = element.matches('.toggle input') ? element.nextElementSibling : element;
  return document.activeElement !== element || element.tabIndex < 0 || getComputedStyle(ring).outlineStyle === 'none';
}).map((element) => element.outerHTML.slice(0, 80))";

/// On paper, in black on white, whatever the reader's screen is like.
#[tokio::test]
async fn it_prints() {
    let browser = Browser::start().await.unwrap();
    let visit = open(&browser, &fleet::shop(Timestamp::now()), (720, 1_000)).await;
    visit.print_on_dark().await.unwrap();
    let faint: Vec<String> = visit.value(FAINT).await.unwrap();
    assert_eq!(faint, Vec::<String>::new());
    let page: String = visit
        .value("getComputedStyle(document.body).backgroundColor")
        .await
        .unwrap();
    assert_eq!(page, "rgb(255, 255, 255)");
    let controls: usize = visit
        .value("[...document.querySelectorAll('.tools, .skip, #more')].filter((one) => one.checkVisibility()).length")
        .await
        .unwrap();
    assert_eq!(controls, 0, "nothing to click on paper");
}

/// Contrast of every piece of text with what is behind it (WCAG 2, 1.4.3), names and scopes, on
/// both screens and in both schemes.
#[tokio::test]
async fn everybody_can_read_it() {
    let browser = Browser::start().await.unwrap();
    let report = fleet::shop(Timestamp::now());
    for (window, scheme) in [(WIDE, "light"), (WIDE, "dark"), (PHONE, "light"), (PHONE, "dark")] {
        let visit = open(&browser, &report, window).await;
        visit.prefer(scheme).await.unwrap();
        let _: bool = visit
            .value("document.querySelectorAll('details').forEach(one => one.open = true), document.querySelector('.open').click(), true")
            .await
            .unwrap();
        let faint: Vec<String> = visit.value(FAINT).await.unwrap();
        assert_eq!(faint, Vec::<String>::new(), "{window:?} {scheme}");
        let nameless: Vec<String> = visit.value(NAMELESS).await.unwrap();
        assert_eq!(nameless, Vec::<String>::new(), "{window:?} {scheme}");
        let wide: i64 = visit
            .value("document.documentElement.scrollWidth - innerWidth")
            .await
            .unwrap();
        assert!(wide <= 0, "{window:?}: it is {wide} pixels wider than its window");
    }
}

/// Texts whose contrast is under 4.5.
const FAINT: &str = r"
(() => {
  const rgb = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const luminance = ([r, g, b]) => {
    const linear = [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgb(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const faint = new Set();
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || element.closest('script, style, title, noscript') || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const front = rgb(element.closest('svg') ? style.fill : style.color);
    const [a, b] = [luminance(front), luminance(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.add(`${walker.currentNode.textContent.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return [...faint];
})()";

/// Headers without scope, controls and pictures without a name.
const NAMELESS: &str = r"
[...document.querySelectorAll('th:not([scope]), button, input, a, svg[role=img], section')].filter((element) => {
  if (element.matches('th')) return true;
  if (element.matches('section')) return !document.getElementById(element.getAttribute('aria-labelledby'));
  if (element.matches('input')) return !element.labels[0]?.textContent.trim();
  return !element.getAttribute('aria-label') && !element.textContent.trim() && !element.hidden;
}).map((element) => element.outerHTML.slice(0, 80))";
