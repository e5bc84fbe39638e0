//! Headless Chromium, which tells what a page did: what it asked for, what it complained about.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64;
use neverlapse_tests::emulator;
use neverlapse_tests::process::{Group, command, eventually, free_port};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A running browser that finds no host; ends when dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Driver,
    folder: TempDir,
    _groups: [Group; 2],
}

/// The page that it has open.
#[derive(Debug)]
pub struct Visit {
    driver: Driver,
    url: String,
}

/// A session of chromedriver, which speaks [WebDriver](https://www.w3.org/TR/webdriver2/): JSON
/// over HTTP.
#[derive(Clone, Debug)]
struct Driver {
    client: reqwest::Client,
    session: String,
}

impl Driver {
    async fn open(port: u16, capabilities: &Value) -> Result<Self> {
        let mut driver = Self {
            client: emulator::http()?,
            session: format!("http://127.0.0.1:{port}/session"),
        };
        let wanted = json!({"capabilities": {"alwaysMatch": capabilities}});
        let opened = driver.post("", &wanted).await?;
        let id = opened["sessionId"].as_str().context("a session has an id")?;
        driver.session = format!("{}/{id}", driver.session);
        Ok(driver)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.client.post(format!("{}{path}", self.session));
        let answer = request.body(body.to_string()).send().await?.bytes().await?;
        let mut answer: Value = serde_json::from_slice(&answer)?;
        let value = answer["value"].take();
        ensure!(value["error"].is_null(), "chromedriver answers to {path}: {value}");
        Ok(value)
    }

    /// The part of the path that stands for the first element of this selector.
    async fn element(&self, selector: &str) -> Result<String> {
        let found = json!({"using": "css selector", "value": selector});
        let found = self.post("/element", &found).await?;
        let id = found[ELEMENT].as_str().context("an element has an id")?;
        Ok(format!("/element/{id}"))
    }

    async fn log(&self, kind: &str) -> Result<Vec<Value>> {
        let log = self.post("/se/log", &json!({ "type": kind })).await?;
        Ok(serde_json::from_value(log)?)
    }

    /// A call of Chrome's own protocol.
    async fn devtools(&self, command: &str, parameters: &Value) -> Result<Value> {
        let call = json!({"cmd": command, "params": parameters});
        self.post("/goog/cdp/execute", &call).await
    }
}

impl Browser {
    /// Starts Debian's chromium, and chromedriver.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("neverlapse-browser-").tempdir()?;
        let mut chromium = command("chromium");
        chromium
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
        let mut chromium = Group::start(&mut chromium)?;
        let address = address(folder.path(), &mut chromium).await?;

        let port = free_port()?;
        let mut driver = command("chromedriver");
        driver
            .arg(format!("--port={port}"))
            .current_dir(folder.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let groups = [chromium, Group::start(&mut driver)?];

        let capabilities = json!({
            "goog:chromeOptions": {"debuggerAddress": address},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "timeouts": {"script": PATIENT.as_millis(), "pageLoad": PATIENT.as_millis()},
        });
        let driver = eventually("chromedriver's start", async || {
            Ok(Driver::open(port, &capabilities).await.ok())
        });
        Ok(Self {
            driver: driver.await?,
            folder,
            _groups: groups,
        })
    }

    /// Opens this HTML from a file, in a window of this width and height.
    pub async fn open(&self, html: &str, (width, height): (u32, u32)) -> Result<Visit> {
        let file = tempfile::Builder::new()
            .suffix(".html")
            .tempfile_in(self.folder.path())?;
        let (_, path) = file.keep()?;
        std::fs::write(&path, html)?;

        let visit = Visit {
            driver: self.driver.clone(),
            url: format!("file://{}", path.display()),
        };
        visit.resize(width, height).await?;
        // As in a window that somebody uses. Else nothing that is focused looks so.
        let focused = json!({"enabled": true});
        self.driver
            .devtools("Emulation.setFocusEmulationEnabled", &focused)
            .await?;
        // What there was before.
        visit.trouble().await?;
        self.driver.post("/url", &json!({ "url": visit.url })).await?;
        Ok(visit)
    }
}

impl Visit {
    /// What an expression of JavaScript is worth.
    pub async fn value<T: DeserializeOwned>(&self, expression: &str) -> Result<T> {
        let script = json!({"script": format!("return ({expression})"), "args": []});
        let value = self.driver.post("/execute/sync", &script).await?;
        Ok(serde_json::from_value(value)?)
    }

    /// Clicks, as a mouse does.
    pub async fn click(&self, selector: &str) -> Result<()> {
        let element = self.driver.element(selector).await?;
        self.driver.post(&format!("{element}/click"), &json!({})).await?;
        Ok(())
    }

    /// Clicks and types.
    pub async fn type_into(&self, selector: &str, text: &str) -> Result<()> {
        self.click(selector).await?;
        let element = self.driver.element(selector).await?;
        self.driver
            .post(&format!("{element}/value"), &json!({ "text": text }))
            .await?;
        Ok(())
    }

    /// Focuses an element and presses a key.
    pub async fn press(&self, selector: &str, key: char) -> Result<()> {
        self.value::<()>(&format!("document.querySelector('{selector}').focus()"))
            .await?;
        let actions = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let keyboard = json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]});
        self.driver.post("/actions", &keyboard).await?;
        Ok(())
    }

    /// `light` or `dark`.
    pub async fn prefer(&self, scheme: &str) -> Result<()> {
        self.emulate("screen", scheme).await
    }

    /// As it would be printed by somebody who prefers dark screens.
    pub async fn print_on_dark(&self) -> Result<()> {
        self.emulate("print", "dark").await
    }

    async fn emulate(&self, media: &str, scheme: &str) -> Result<()> {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        let media = json!({"media": media, "features": features});
        self.driver
            .devtools("Emulation.setEmulatedMedia", &media)
            .await
            .map(drop)
    }

    /// A picture of the window, as PNG.
    pub async fn picture(&self) -> Result<Vec<u8>> {
        let picture = self.driver.devtools("Page.captureScreenshot", &json!({})).await?;
        let picture = picture["data"].as_str().unwrap_or_default();
        Ok(BASE64.decode(picture.as_bytes())?)
    }

    /// A picture of all of the page, as PNG.
    pub async fn whole_picture(&self) -> Result<Vec<u8>> {
        let (width, height) = self
            .value("[innerWidth, document.documentElement.scrollHeight]")
            .await?;
        self.resize(width, height).await?;
        self.picture().await
    }

    async fn resize(&self, width: u32, height: u32) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.driver
            .devtools("Emulation.setDeviceMetricsOverride", &size)
            .await
            .map(drop)
    }

    /// Everything that it asked for beside itself, and everything that it complained about, since
    /// the last time.
    pub async fn trouble(&self) -> Result<Vec<String>> {
        let mut trouble = Vec::new();
        for entry in self.driver.log("performance").await? {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap_or_default())?;
            let event = &event["message"];
            let url = event["params"]["request"]["url"].as_str().unwrap_or_default();
            if event["method"] == "Network.requestWillBeSent" && url != self.url && !url.starts_with("data:") {
                trouble.push(format!("request: {url}"));
            }
        }
        let complaints = self.driver.log("browser").await?;
        trouble.extend(complaints.iter().map(|entry| format!("log: {}", entry["message"])));
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
        Ok(address.map(|(port, _)| format!("127.0.0.1:{port}")))
    })
    .await
}

/// The key Enter (WebDriver, 17.4.2).
pub const ENTER: char = '\u{e007}';
/// By which WebDriver marks elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// For a page to load, and for each script: a machine may be busy.
const PATIENT: Duration = Duration::from_secs(120);
