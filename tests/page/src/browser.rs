//! Headless Chromium, which tells what a page did: what it asked for, what it complained about.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chromiumoxide::cdp::browser_protocol::emulation::{MediaFeature, SetEmulatedMediaParams};
use chromiumoxide::cdp::browser_protocol::log::{self, EventEntryAdded};
use chromiumoxide::cdp::browser_protocol::network::{self, EventRequestWillBeSent};
use chromiumoxide::cdp::js_protocol::runtime::{EventConsoleApiCalled, EventExceptionThrown};
use chromiumoxide::handler::HandlerConfig;
use chromiumoxide::listeners::EventStream;
use futures::{FutureExt as _, StreamExt as _};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use neverlapse_tests::process::{Group, command, eventually};

/// A running browser that finds no host; ends when dropped.
#[derive(Debug)]
pub struct Browser {
    _group: Group,
    folder: TempDir,
    browser: chromiumoxide::Browser,
    events: JoinHandle<()>,
}

/// A page that it has open.
pub struct Visit {
    page: chromiumoxide::Page,
    url: String,
    requests: EventStream<EventRequestWillBeSent>,
    entries: EventStream<EventEntryAdded>,
    console: EventStream<EventConsoleApiCalled>,
    exceptions: EventStream<EventExceptionThrown>,
}

impl Browser {
    /// Starts Debian's chromium.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("neverlapse-browser-").tempdir()?;
        let mut command = command("chromium");
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--no-first-run",
                "--disable-gpu",
                "--hide-scrollbars",
            ])
            .args(["--remote-debugging-port=0", "--host-resolver-rules=MAP * ~NOTFOUND"])
            .arg(format!("--user-data-dir={}", folder.path().display()))
            .arg("about:blank")
            .current_dir(folder.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());

        let mut group = Group::start(&mut command)?;
        let url = address(folder.path(), &mut group).await?;

        let config = HandlerConfig {
            request_timeout: PATIENT,
            ..HandlerConfig::default()
        };
        let (browser, mut handler) = chromiumoxide::Browser::connect_with_config(url, config)
            .await
            .context("cannot connect to chromium")?;
        // What it says beyond this library's knowledge is no matter.
        let events = tokio::spawn(async move { while handler.next().await.is_some() {} });
        Ok(Self {
            _group: group,
            folder,
            browser,
            events,
        })
    }

    /// Opens this HTML from a file, in a window of this width and height.
    pub async fn open(&self, html: &str, (width, height): (u32, u32)) -> Result<Visit> {
        let file = tempfile::Builder::new()
            .suffix(".html")
            .tempfile_in(self.folder.path())?;
        let (_, path) = file.keep()?;
        std::fs::write(&path, html)?;
        let url = format!("file://{}", path.display());

        let page = self.browser.new_page("about:blank").await?;
        page.execute(network::EnableParams::default()).await?;
        page.execute(log::EnableParams::default()).await?;
        let metrics = chromiumoxide::cdp::browser_protocol::emulation::SetDeviceMetricsOverrideParams::new(
            width, height, 1.0, false,
        );
        page.execute(metrics).await?;

        let visit = Visit {
            requests: page.event_listener().await?,
            entries: page.event_listener().await?,
            console: page.event_listener().await?,
            exceptions: page.event_listener().await?,
            page,
            url,
        };
        visit.page.goto(visit.url.as_str()).await?;
        Ok(visit)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.events.abort();
    }
}

impl Visit {
    /// What an expression of JavaScript is worth.
    pub async fn value<T: DeserializeOwned>(&self, expression: &str) -> Result<T> {
        let value = self.page.evaluate(expression).await;
        let value = value.with_context(|| format!("cannot evaluate {expression}"))?;
        Ok(value.into_value()?)
    }

    /// Clicks, as a mouse does.
    pub async fn click(&self, selector: &str) -> Result<()> {
        self.page.find_element(selector).await?.click().await?;
        Ok(())
    }

    /// Clicks and types.
    pub async fn type_into(&self, selector: &str, text: &str) -> Result<()> {
        let element = self.page.find_element(selector).await?;
        element.click().await?.type_str(text).await?;
        Ok(())
    }

    /// Focuses an element and presses a key.
    pub async fn press(&self, selector: &str, key: &str) -> Result<()> {
        let element = self.page.find_element(selector).await?;
        element.focus().await?.press_key(key).await?;
        Ok(())
    }

    /// `light` or `dark`.
    pub async fn prefer(&self, scheme: &str) -> Result<()> {
        let feature = MediaFeature::new("prefers-color-scheme", scheme);
        let media = SetEmulatedMediaParams::builder().features([feature]).build();
        self.page.execute(media).await?;
        Ok(())
    }

    /// A picture of the window, as PNG.
    pub async fn picture(&self) -> Result<Vec<u8>> {
        let parameters = chromiumoxide::page::ScreenshotParams::builder().build();
        Ok(self.page.screenshot(parameters).await?)
    }

    /// A picture of all of the page, as PNG.
    pub async fn whole_picture(&self) -> Result<Vec<u8>> {
        let parameters = chromiumoxide::page::ScreenshotParams::builder().full_page(true).build();
        Ok(self.page.screenshot(parameters).await?)
    }

    /// As it would be printed by somebody who prefers dark screens.
    pub async fn print_on_dark(&self) -> Result<()> {
        let feature = MediaFeature::new("prefers-color-scheme", "dark");
        let media = SetEmulatedMediaParams::builder()
            .media("print")
            .features([feature])
            .build();
        self.page.execute(media).await?;
        Ok(())
    }

    /// Everything that it asked for beside itself, and everything that it complained about, since
    /// the last time.
    pub async fn trouble(&mut self) -> Result<Vec<String>> {
        // Whatever was told before the answer to this is here by then.
        let _: bool = self.value("true").await?;

        let mut trouble = Vec::new();
        while let Some(Some(event)) = self.requests.next().now_or_never() {
            let url = &event.request.url;
            if *url != self.url && !url.starts_with("data:") {
                trouble.push(format!("request: {url}"));
            }
        }
        while let Some(Some(event)) = self.entries.next().now_or_never() {
            trouble.push(format!("log: {}", event.entry.text));
        }
        while let Some(Some(event)) = self.console.next().now_or_never() {
            trouble.push(format!("console: {:?}", event.args));
        }
        while let Some(Some(event)) = self.exceptions.next().now_or_never() {
            trouble.push(format!("exception: {:?}", event.exception_details));
        }
        Ok(trouble)
    }
}

/// Where it listens: it writes that to a file once it does.
async fn address(folder: &Path, group: &mut Group) -> Result<String> {
    eventually("chromium's start", async || {
        ensure!(
            group.is_running(),
            "chromium does not start; is it installed? Run `make setup` first"
        );
        let written = std::fs::read_to_string(folder.join("DevToolsActivePort")).unwrap_or_default();
        let address = written.split_once('\n');
        Ok(address.map(|(port, path)| format!("ws://127.0.0.1:{port}{path}")))
    })
    .await
}

/// For each request to it: the thirty seconds of the library's default may pass on a busy machine.
const PATIENT: Duration = Duration::from_secs(120);
