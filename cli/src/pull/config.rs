//! `pull.toml`: what a person wrote about this instance, and what the client needs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, slice};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use neverlapse::bucket::version::FULLCHAIN;
use neverlapse::endpoint::Host;
use neverlapse::name;
use nix::unistd::{Group, User};
use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use super::keystore::Keystore;
use super::layout::{COMBINED, KEYSTORE, Layout};
use super::program::Program;
use super::relay::Place;
use super::window::Window;

/// What the client needs.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Needed unless versions come from a folder.
    pub(crate) bucket: Option<String>,
    /// Where the bucket is, if it is not in this instance's own region.
    pub(crate) region: Option<String>,
    /// The name of this instance, where it is not to be the one that AWS knows.
    pub(crate) instance: Option<String>,
    /// `live/` and `versions/` are here.
    pub(crate) folder: PathBuf,
    /// What is done and not done, and the lock.
    pub(crate) state: PathBuf,
    /// How often the timer starts a run.
    pub(crate) runs_every: time::Duration,
    /// For node_exporter.
    pub(crate) metrics_file: Option<PathBuf>,
    pub(crate) certificates: Vec<Wanted>,
}

/// A certificate that this instance installs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Its name in the inventory.
    pub(crate) name: String,
    /// What it must be valid for, whatever else.
    pub(crate) identifiers: Vec<String>,
    pub(crate) layout: Layout,
    /// The owner or group that this host does not have: the certificate's files cannot be laid out.
    /// This is no error in the configuration, which may be for another host.
    pub(crate) no_account: Option<String>,
    /// Made as well, if one is wanted.
    pub(crate) keystore: Option<Keystore>,
    /// Tests the server's configuration.
    pub(crate) test: Option<Program>,
    /// Has the server load the new files.
    pub(crate) reload: Option<Program>,
    /// Whether the commands are run for this certificate alone, as certbot runs its hooks.
    pub(crate) reload_each: bool,
    /// For each run of a program.
    pub(crate) timeout: Duration,
    /// The file that the server's configuration is to name.
    pub(crate) live: PathBuf,
    /// Where this host serves it, to be probed after a reload.
    pub(crate) verify: Vec<Place>,
    /// The name to ask for there, where it is not to be one that the certificate is for.
    pub(crate) server_name: Option<Host>,
    /// For all of `verify` together.
    pub(crate) verify_timeout: Duration,
    /// The hours in which changes are wanted; `None` is always.
    pub(crate) window: Option<Window>,
    pub(crate) allow_staging: bool,
}

/// The JSON Schema of `pull.toml`.
pub(crate) fn schema() -> Schema {
    schemars::schema_for!(Written)
}

impl Wanted {
    /// Whether one test and one reload are for both.
    pub(crate) fn shares_reload(&self, other: &Self) -> bool {
        let is_shared = !self.reload_each && !other.reload_each;
        self.name == other.name || (is_shared && self.test == other.test && self.reload == other.reload)
    }
}

impl Config {
    /// Reads and understands a file. An error names key, value and accepted form.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read --config {}", path.display()))?;
        Self::parse(&text).map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(|error| format!("{error:#}")).collect();
            anyhow!("{}: {}", path.display(), errors.join("; "))
        })
    }

    /// Understands a file, or answers with every error in it.
    pub(crate) fn parse(text: &str) -> Result<Self, Vec<Error>> {
        let mut written: Written = toml::from_str(text).map_err(|error| vec![unreadable(text, &error)])?;
        let mut errors = written.errors();

        let mut names = BTreeSet::new();
        let mut certificates = Vec::new();
        for certificate in written.certificate.take().unwrap_or_default() {
            let entry = format!("[[certificate]] name = {:?}", certificate.name);
            if !names.insert(certificate.name.clone()) {
                errors.push(anyhow!("{entry}: there are two of them"));
            }
            match certificate.wanted(&written) {
                Ok(wanted) => certificates.push(wanted),
                Err(error) => errors.push(error.context(entry)),
            }
        }

        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            bucket: written.bucket.filter(|bucket| !bucket.is_empty()),
            region: written.region,
            instance: written.instance,
            folder: written.folder,
            state: written.state,
            runs_every: time::Duration::hours(written.runs_every_hours.into()),
            metrics_file: written.metrics_file,
            certificates,
        })
    }
}

/// What `neverlapse pull` installs on this host. Commands, timeouts and the window are for all
/// certificates, unless one has its own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    bucket: Option<String>,
    region: Option<String>,
    instance: Option<String>,
    #[serde(default = "default_folder")]
    folder: PathBuf,
    #[serde(default = "default_state")]
    state: PathBuf,
    #[serde(default = "default_hours")]
    runs_every_hours: u16,
    test_command: Option<Command>,
    reload_command: Option<Command>,
    #[serde(default)]
    reload_each: bool,
    #[serde(default = "default_command_timeout")]
    #[schemars(range(min = 1))]
    command_timeout_seconds: u16,
    #[serde(default = "default_verify_timeout")]
    #[schemars(range(min = 1))]
    verify_timeout_seconds: u16,
    metrics_file: Option<PathBuf>,
    window: Option<String>,
    certificate: Option<Vec<WrittenCertificate>>,
}

impl Written {
    /// What is wrong with what is written for all certificates.
    fn errors(&self) -> Vec<Error> {
        let mut errors = Vec::new();

        // An empty list has to be written: an empty file may be an accident.
        if self.certificate.is_none() {
            errors.push(anyhow!(
                "nothing to install (expected [[certificate]] with a name, or certificate = [] to remove this \
                 instance's receipts)"
            ));
        }
        for (key, path) in [("folder", &self.folder), ("state", &self.state)] {
            if !path.is_absolute() {
                let path = path.display();
                errors.push(anyhow!(
                    "{key} = \"{path}\" is not absolute (expected such as {DEFAULT_FOLDER:?})"
                ));
            }
        }

        if let Some(path) = &self.metrics_file
            && !(path.is_absolute() && path.extension().is_some_and(|extension| extension == "prom"))
        {
            let path = path.display();
            errors.push(anyhow!(
                "metrics_file = \"{path}\" is not read by node_exporter (expected such as \
                 \"/var/lib/prometheus/node-exporter/neverlapse.prom\")"
            ));
        }

        let hours = self.runs_every_hours;
        if !(1..=24 * 30).contains(&hours) {
            errors.push(anyhow!("runs_every_hours = {hours} cannot be (expected 1 to 720)"));
        }
        for (key, seconds) in [
            ("command_timeout_seconds", self.command_timeout_seconds),
            ("verify_timeout_seconds", self.verify_timeout_seconds),
        ] {
            if seconds == 0 {
                errors.push(anyhow!("{key} = 0 leaves no time (expected 1 to 65535)"));
            }
        }
        if let Some(bucket) = self.bucket.as_ref().filter(|bucket| !may_be_bucket(bucket)) {
            errors.push(anyhow!(
                "bucket = {bucket:?} is not the name of a bucket (expected such as \"my-bucket\", or an access point's \
                 ARN; a folder is read by --from DIR)"
            ));
        }
        if let Some(region) = self.region.as_ref().filter(|region| !is_region(region)) {
            errors.push(anyhow!(
                "region = {region:?} is not a region (expected such as \"eu-west-1\")"
            ));
        }
        if let Some(instance) = self.instance.as_ref().filter(|instance| !is_name(instance)) {
            errors.push(anyhow!(
                "instance = {instance:?} cannot be a file name (expected letters, digits, - _ .)"
            ));
        }
        errors
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenCertificate {
    name: String,
    #[serde(default)]
    identifiers: Vec<String>,
    owner: Option<String>,
    group: Option<String>,
    key_mode: Option<String>,
    #[serde(default)]
    combined: bool,
    pkcs12_password_file: Option<PathBuf>,
    test_command: Option<Command>,
    reload_command: Option<Command>,
    reload_each: Option<bool>,
    #[serde(default)]
    verify: OneOrMore,
    server_name: Option<String>,
    window: Option<String>,
    #[serde(default)]
    allow_staging: bool,
}

impl WrittenCertificate {
    /// What the client needs to know of it, with what is written for all certificates.
    fn wanted(self, general: &Written) -> Result<Wanted> {
        ensure!(
            is_name(&self.name),
            "it cannot be a folder (expected letters, digits, - _ . and no leading dot)"
        );

        for identifier in &self.identifiers {
            let name = identifier.strip_prefix("*.").unwrap_or(identifier);
            ensure!(
                name.parse::<Host>().is_ok(),
                "identifiers: {identifier:?} is not a name (expected example.com or *.example.com)"
            );
        }

        let owner = self.owner.as_deref().map(user).transpose();
        let group = self.group.as_deref().map(group).transpose();
        let no_account = owner.as_ref().err().or(group.as_ref().err()).cloned();
        let layout = Layout {
            owner: owner.unwrap_or_default(),
            group: group.unwrap_or_default(),
            key_mode: self.key_mode()?,
            combined: self.combined,
            keystore: self.pkcs12_password_file.is_some(),
        };
        let keystore = self.pkcs12_password_file.as_deref().map(keystore).transpose()?;

        let test = self.test_command.as_ref().or(general.test_command.as_ref());
        let test = test.map(Command::program).transpose().context("test_command")?;
        let reload = self.reload_command.as_ref().or(general.reload_command.as_ref());
        let reload = reload.map(Command::program).transpose().context("reload_command")?;

        let verify = self.verify()?;
        let server_name = self.server_name()?;

        let window = self.window.as_ref().or(general.window.as_ref());
        let window = window
            .map(|text| window_that_runs_meet(text, general.runs_every_hours))
            .transpose()
            .map_err(Error::msg)
            .context("window")?;

        let file = match (&layout, &keystore) {
            (_, Some(_)) => KEYSTORE,
            (Layout { combined: true, .. }, None) => COMBINED,
            (Layout { combined: false, .. }, None) => FULLCHAIN,
        };
        Ok(Wanted {
            live: general.folder.join("live").join(&self.name).join(file),
            name: self.name,
            identifiers: self.identifiers,
            layout,
            no_account,
            keystore,
            test,
            reload,
            reload_each: self.reload_each.unwrap_or(general.reload_each),
            timeout: Duration::from_secs(general.command_timeout_seconds.into()),
            verify,
            server_name,
            verify_timeout: Duration::from_secs(general.verify_timeout_seconds.into()),
            window,
            allow_staging: self.allow_staging,
        })
    }

    /// The group may read a key, and nobody may read more.
    fn key_mode(&self) -> Result<u32> {
        let Some(text) = &self.key_mode else {
            return Ok(if self.group.is_some() { 0o640 } else { 0o600 });
        };
        match u32::from_str_radix(text, 8) {
            Ok(mode @ (0o400 | 0o440 | 0o600 | 0o640)) => Ok(mode),
            _ => bail!("key_mode = {text:?} is not for a key (expected \"0400\", \"0440\", \"0600\" or \"0640\")"),
        }
    }

    fn verify(&self) -> Result<Vec<Place>> {
        let places = self.verify.as_slice().iter();
        places.map(|place| place.parse().context("verify")).collect()
    }

    fn server_name(&self) -> Result<Option<Host>> {
        let name = self.server_name.as_deref().map(str::parse);
        name.transpose().map_err(Error::msg).context("server_name")
    }
}

fn window_that_runs_meet(text: &str, runs_every_hours: u16) -> Result<Window, String> {
    let window: Window = text.parse()?;
    window
        .is_met(time::Duration::hours(runs_every_hours.into()))
        .map_err(|error| format!("{text:?}: {error}"))?;
    Ok(window)
}

fn keystore(password_file: &Path) -> Result<Keystore> {
    ensure!(
        password_file.is_absolute() && password_file.file_name().is_some(),
        "pkcs12_password_file = {:?} is not absolute (expected such as \"/etc/neverlapse/NAME.pass\")",
        password_file.display()
    );
    Ok(Keystore {
        password_file: password_file.to_owned(),
    })
}

fn user(name: &str) -> Result<u32, String> {
    match (name.parse(), User::from_name(name)) {
        (Ok(id), _) => Ok(id),
        (_, Ok(Some(user))) => Ok(user.uid.as_raw()),
        (_, Ok(None)) => Err(format!(
            "owner = {name:?}: there is no such user (expected a name or a number)"
        )),
        (_, Err(error)) => Err(format!("cannot look up owner = {name:?}: {error}")),
    }
}

fn group(name: &str) -> Result<u32, String> {
    match (name.parse(), Group::from_name(name)) {
        (Ok(id), _) => Ok(id),
        (_, Ok(Some(group))) => Ok(group.gid.as_raw()),
        (_, Ok(None)) => Err(format!(
            "group = {name:?}: there is no such group (expected a name or a number)"
        )),
        (_, Err(error)) => Err(format!("cannot look up group = {name:?}: {error}")),
    }
}

/// A bucket's name, or the ARN or alias of an access point. Which of them exist is for S3 to say.
fn may_be_bucket(bucket: &str) -> bool {
    let mut bytes = bucket.bytes();
    bucket.starts_with("arn:") || bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

fn is_region(region: &str) -> bool {
    !region.is_empty()
        && region
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// What the parser of TOML refuses, in a line: where that is, why, and what is written there.
fn unreadable(text: &str, error: &toml::de::Error) -> Error {
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return anyhow!("{}", error.message());
    };
    let number = before.matches('\n').count();
    let line = text.lines().nth(number).unwrap_or_default().trim();

    let mut message = error.message().lines().collect::<Vec<_>>().join(", ");
    for (type_name, form) in [
        ("unknown field", "unknown key"),
        (
            "invalid type: map, expected a sequence",
            "expected [[certificate]] before each",
        ),
        ("expected a sequence", "expected a list"),
        ("expected a boolean", "expected true or false"),
        ("expected u16", "expected a whole number"),
    ] {
        message = message.replace(type_name, form);
    }
    anyhow!("line {}: {message}: {line}", number + 1)
}

/// Whether it can be the name of files of ours, in any case: it names what already has a name.
fn is_name(name: &str) -> bool {
    name::is_folder(name) && name.len() <= LONGEST_NAME
}

/// A list is run as it is, a string by `/bin/sh -c`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a string for the shell, or a list of program and arguments"
)]
enum Command {
    Shell(String),
    Plain(Vec<String>),
}

impl Command {
    fn program(&self) -> Result<Program> {
        match self {
            Self::Shell(line) if !line.trim().is_empty() => Ok(Program {
                words: vec!["/bin/sh".into(), "-c".into(), line.clone()],
            }),
            Self::Plain(words) if words.len() == 1 && is_a_line(&words[0]) => {
                let line = &words[0];
                let separate: Vec<_> = line.split_whitespace().collect();
                bail!("[{line:?}] is one word (expected {separate:?}, or the string {line:?} for the shell)")
            }
            Self::Plain(words) if words.first().is_some_and(|program| !program.is_empty()) => {
                Ok(Program { words: words.clone() })
            }
            _ => bail!("it is empty (expected a string for the shell, or a list of program and arguments)"),
        }
    }
}

/// Whether it is program and arguments in one, which no program is called.
fn is_a_line(word: &str) -> bool {
    !word.starts_with('/') && word.trim().contains(char::is_whitespace)
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected an endpoint such as \"127.0.0.1:443\", or a list of them"
)]
enum OneOrMore {
    #[default]
    None,
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::One(one) => slice::from_ref(one),
            Self::More(more) => more,
        }
    }
}

fn default_folder() -> PathBuf {
    DEFAULT_FOLDER.into()
}

fn default_state() -> PathBuf {
    "/var/lib/neverlapse".into()
}

fn default_hours() -> u16 {
    1
}

fn default_command_timeout() -> u16 {
    60
}

fn default_verify_timeout() -> u16 {
    15
}

const DEFAULT_FOLDER: &str = "/etc/neverlapse";
/// A file name has at most 255 bytes, and we put something around this one, as in `.NAME.next`.
const LONGEST_NAME: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_in_the_documentation() {
        let config = Config::parse(include_str!("../../../docs/pull.example.toml")).unwrap();
        assert_eq!(config.certificates[0].verify[0].to_string(), "127.0.0.1:443");
        assert_eq!(config.certificates[0].test.as_ref().unwrap().words, ["nginx", "-t"]);
    }

    /// They were several lines of the parser's own, which `validate` printed in one.
    #[test]
    fn errors_of_form_are_one_line_with_its_number() {
        for (text, expected) in [
            (
                "bucket = \"b\"\n[certificate]\nname = \"a\"",
                "line 2: expected [[certificate]] before each: [certificate]",
            ),
            (
                "[[certificate]]\nname = \"a\"\nverify = 443",
                "line 3: expected an endpoint such as \"127.0.0.1:443\", or a list of them: verify = 443",
            ),
            (
                "[[certificate]]\nname = \"a\"\ntest_command = 3",
                "line 3: expected a string for the shell, or a list of program and arguments: test_command = 3",
            ),
            (
                "runs_every_hours = \"1\"",
                "line 1: invalid type: string \"1\", expected a whole number: runs_every_hours = \"1\"",
            ),
            ("\nbukcket = \"b\"", "line 2: unknown key `bukcket`, expected one of "),
            ("bucket = “b”", "line 1: "),
        ] {
            let errors = Config::parse(text).unwrap_err();
            let [error] = errors.as_slice() else {
                panic!("{errors:?}");
            };
            let error = error.to_string();
            assert!(error.starts_with(expected) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_shortest_file() {
        let config = Config::parse("bucket = \"b\"\n[[certificate]]\nname = \"example.com\"").unwrap();
        assert_eq!((config.folder, config.state), (default_folder(), default_state()));
        let wanted = &config.certificates[0];
        assert_eq!(
            (wanted.layout.key_mode, wanted.verify.len(), &wanted.reload),
            (0o600, 0, &None)
        );
    }

    #[test]
    fn a_certificate_overrides_what_is_general() {
        let text = r#"
            reload_command = "systemctl reload nginx"
            [[certificate]]
            name = "a"
            group = "0"
            identifiers = ["*.a.example"]
            verify = "127.0.0.1"
            [[certificate]]
            name = "b"
            reload_command = ["true"]
            verify = ["[::1]:8443", "smtp://127.0.0.1"]
            server_name = "mail.b.example""#;
        let config = Config::parse(text).unwrap();
        let [a, b] = &config.certificates[..] else {
            panic!("two")
        };
        assert_eq!(
            a.reload.as_ref().unwrap().words,
            ["/bin/sh", "-c", "systemctl reload nginx"]
        );
        assert_eq!(b.reload.as_ref().unwrap().words, ["true"]);
        assert_eq!((a.layout.group, a.layout.key_mode), (Some(0), 0o640));
        assert_eq!(a.server_name, None);
        assert_eq!(a.verify[0].to_string(), "127.0.0.1:443");
        assert_eq!(b.verify[1].to_string(), "smtp://127.0.0.1:25");
        assert_eq!(b.server_name.as_ref().unwrap().to_string(), "mail.b.example");
    }

    #[test]
    fn errors_name_key_value_and_accepted_form() {
        for (text, expected) in [
            (
                "",
                "nothing to install (expected [[certificate]] with a name, or certificate = []",
            ),
            ("bukket = 1", "unknown key `bukket`"),
            (
                "bucket = \"s3://x\"\ncertificate = []",
                "bucket = \"s3://x\" is not the name of a bucket (expected such as \"my-bucket\"",
            ),
            (
                "region = \"Frankfurt\"\ncertificate = []",
                "region = \"Frankfurt\" is not a region (expected such as \"eu-west-1\")",
            ),
            (
                "reload_command = [\"systemctl reload nginx\"]\n[[certificate]]\nname = \"a\"",
                "[\"systemctl reload nginx\"] is one word (expected [\"systemctl\", \"reload\", \"nginx\"], or the string",
            ),
            (
                "[[certificate]]\nname = \"../x\"",
                "name = \"../x\": it cannot be a folder (expected letters, digits, - _ . and no leading dot)",
            ),
            (
                "[[certificate]]\nname = \"a\"\n[[certificate]]\nname = \"a\"",
                "name = \"a\": there are two of them",
            ),
            (
                "[[certificate]]\nname = \"a\"\nkey_mode = \"0644\"",
                "key_mode = \"0644\" is not for a key (expected \"0400\", \"0440\", \"0600\" or \"0640\")",
            ),
            (
                "[[certificate]]\nname = \"a\"\npkcs12_password_file = \"a.pass\"",
                "pkcs12_password_file = \"a.pass\" is not absolute (expected such as \"/etc/neverlapse/NAME.pass\")",
            ),
            (
                "[[certificate]]\nname = \"a\"\nverify = \"x:y\"",
                "verify: invalid endpoint \"x:y\"",
            ),
            (
                "[[certificate]]\nname = \"a\"\nreload_command = []",
                "reload_command: it is empty",
            ),
            (
                "[[certificate]]\nname = \"a\"\nwindow = \"2-4\"",
                "window: \"2-4\" is not a window (expected such as \"02:00-04:30\", in UTC)",
            ),
            (
                "window = \"02:00-02:30\"\n[[certificate]]\nname = \"a\"",
                "[[certificate]] name = \"a\": window: \"02:00-02:30\": it is open for 30 minutes",
            ),
            (
                "folder = \"x\"\n[[certificate]]\nname = \"a\"",
                "folder = \"x\" is not absolute",
            ),
            (
                "runs_every_hours = 0\n[[certificate]]\nname = \"a\"",
                "runs_every_hours = 0 cannot be (expected 1 to 720)",
            ),
            (
                "command_timeout_seconds = 0\n[[certificate]]\nname = \"a\"",
                "command_timeout_seconds = 0 leaves no time (expected 1 to 65535)",
            ),
            (
                "verify_timeout_seconds = 0\n[[certificate]]\nname = \"a\"",
                "verify_timeout_seconds = 0 leaves no time (expected 1 to 65535)",
            ),
            (
                "[[certificate]]\nname = \"a\"\nidentifiers = [\"*.a.example\", \"https://a.example\"]",
                "identifiers: \"https://a.example\" is not a name (expected example.com or *.example.com)",
            ),
        ] {
            let errors = Config::parse(text).unwrap_err();
            let error = format!("{:#}", errors[0]);
            assert!(error.contains(expected), "{error}\nexpected: {expected}");
        }
    }

    #[test]
    fn a_group_that_is_missing_kept_every_certificate_from_being_installed() {
        let text = "[[certificate]]\nname = \"a\"\ngroup = \"no-such-group\"\n[[certificate]]\nname = \"b\"";
        let config = Config::parse(text).unwrap();
        let reasons: Vec<_> = config
            .certificates
            .iter()
            .map(|one| one.no_account.as_deref())
            .collect();
        let expected = "group = \"no-such-group\": there is no such group (expected a name or a number)";
        assert_eq!(reasons, [Some(expected), None]);
    }

    #[test]
    fn every_error_is_found() {
        let text = "bucket = \"s3://x\"\nstate = \"x\"\n[[certificate]]\nname = \"a\"\nwindow = \"x\"\n\
                    [[certificate]]\nname = \"b\"\nverify = \"x:y\"";
        assert_eq!(Config::parse(text).unwrap_err().len(), 4);
    }

    #[test]
    fn nothing_is_wanted_any_more() {
        let config = Config::parse("bucket = \"b\"\ncertificate = []").unwrap();
        assert!(config.certificates.is_empty());
    }
}
