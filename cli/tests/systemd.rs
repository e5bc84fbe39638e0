//! The units under a real systemd, with real servers: every server of docs/delivery.md,
//! by hand and under the unit.
//!
//! systemd runs in private namespaces on an overlay of this machine
//! ([`scratch.sh`](systemd/scratch.sh)), as root on a Debian. Elsewhere the test says that it is
//! skipped.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;

use neverlapse::bucket::receipt::Stage;
use neverlapse::bucket::version::Current;
use neverlapse::timestamp::Timestamp;
use neverlapse_tests::depot::Depot;
use neverlapse_tests::pki::Authority;
use tempfile::TempDir;
use time::Duration;

const NEVERLAPSE: &str = env!("CARGO_BIN_EXE_neverlapse");
const NAME: &str = "shop.test";
/// Of the keystore.
const PASSWORD: &str = "word by word";
/// Where that machine sees it.
const DEPOT: &str = "/srv/depot";

/// A machine with systemd as its first process, and a depot that it sees.
struct Machine {
    systemd: String,
    depot: Depot,
    authority: Authority,
    // It ends when its input is closed, before its folder is removed.
    holder: Child,
    _scratch: TempDir,
}

impl Machine {
    fn boot() -> Result<Self, String> {
        let scratch = tempfile::tempdir().unwrap();
        let depot = Depot::new().unwrap();
        let binaries = Path::new(NEVERLAPSE).parent().unwrap();
        let shared = [
            format!("{}:{DEPOT}", depot.path().display()),
            format!("{}:/srv/bin", fs::canonicalize(binaries).unwrap().display()),
            format!("{}:/srv/cli", root().join("cli").display()),
        ];
        let mut holder = Command::new("bash")
            .arg(root().join("cli/tests/systemd/scratch.sh"))
            .arg(scratch.path())
            .arg(root().join(".local/packages"))
            .args(shared)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();

        let mut said = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap())
            .read_line(&mut said)
            .unwrap();
        let said = said.trim();
        let Some(systemd) = said.strip_prefix("systemd ") else {
            let ended = holder.wait().unwrap();
            let reason = said.strip_prefix("skip ");
            return Err(reason.unwrap_or_else(|| panic!("{ended}: {said}")).to_owned());
        };
        let machine = Self {
            systemd: systemd.to_owned(),
            depot,
            authority: Authority::new().unwrap(),
            holder,
            _scratch: scratch,
        };
        machine.until("systemd is ready", || {
            let state = machine.sh("systemctl is-system-running").0;
            state.contains("running") || state.contains("degraded")
        });

        machine.runs("mkdir -p /etc/neverlapse; hostname web-1; echo 127.0.0.1 web-1 >>/etc/hosts");
        machine.runs("cp /srv/bin/neverlapse /usr/local/bin/; cp /srv/cli/systemd/* /etc/systemd/system/");
        let pull = format!("/usr/local/bin/neverlapse pull --from {DEPOT}");
        for unit in ["pull", "leave"] {
            let (line, end) = if unit == "pull" {
                ("ExecStart", "")
            } else {
                ("ExecStop", " --leave")
            };
            machine.writes(
                &format!("/etc/systemd/system/neverlapse-{unit}.service.d/from.conf"),
                // This is quicker than any timer.
                &format!(
                    "[Unit]\nStartLimitIntervalSec=0\n[Service]\n{line}=\n{line}={pull}{end}\nReadWritePaths={DEPOT}\n"
                ),
            );
        }
        machine.runs("systemctl daemon-reload");
        Ok(machine)
    }

    /// Runs a line of shell there. Answers with what it said, and its exit code.
    fn sh(&self, line: &str) -> (String, i32) {
        let Output { status, stdout, stderr } = self.inside(line).output().unwrap();
        let said = String::from_utf8([stdout, stderr].concat()).unwrap();
        (said, status.code().unwrap_or(-1))
    }

    fn inside(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "-t",
                &self.systemd,
                "-m",
                "-p",
                "-u",
                "-i",
                "-n",
                "-C",
                "env",
                "-i",
                "HOME=/root",
            ])
            .args([
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "sh",
                "-c",
                line,
            ]);
        command
    }

    /// One that has to succeed.
    fn runs(&self, line: &str) -> String {
        let (said, code) = self.sh(line);
        assert_eq!(code, 0, "{line}: {said}");
        said
    }

    fn writes(&self, path: &str, text: &str) {
        let folder = Path::new(path).parent().unwrap().display();
        let mut writing = self
            .inside(&format!("mkdir -p {folder} && cat >{path}"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writing.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(writing.wait().unwrap().success());
    }

    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        for _ in 0..600 {
            if is_so() {
                return;
            }
            sleep(std::time::Duration::from_millis(100));
        }
        panic!("never: {what}\n{}", self.sh("journalctl --no-pager -n 40").0);
    }

    fn publishes(&mut self, days: i64) -> Current {
        let leaf = self
            .authority
            .leaf(NAME, Timestamp::now() + Duration::days(days))
            .unwrap();
        self.depot.publish(NAME, &leaf).unwrap()
    }

    /// With time for servers to start on a busy machine.
    fn configures(&self, of_the_certificate: &str) {
        self.writes(
            "/etc/neverlapse/pull.toml",
            &format!(
                "instance = \"web-1\"\nverify_timeout_seconds = 60\n[[certificate]]\nname = \"{NAME}\"\n{of_the_certificate}\n"
            ),
        );
    }

    fn pulls_by_hand(&self) {
        self.runs(&format!("neverlapse pull --from {DEPOT}"));
    }

    fn pulls_by_the_unit(&self) {
        let (_, code) = self.sh("systemctl start neverlapse-pull.service");
        assert_eq!(
            code,
            0,
            "{}",
            self.sh("journalctl --no-pager -o cat -u neverlapse-pull -n 20").0
        );
    }

    fn has_seen_served(&self, current: &Current, what: &str) {
        let receipt = self.depot.receipt(NAME, "web-1").unwrap();
        assert_eq!(
            (receipt.stage, &receipt.version),
            (Stage::Served, &current.facts.version),
            "{what}: {receipt:?}"
        );
    }

    /// As if nothing had ever been installed.
    fn forgets(&self) {
        self.runs("rm -rf /etc/neverlapse/live /etc/neverlapse/versions /var/lib/neverlapse/*");
        self.runs("systemctl reset-failed neverlapse-pull.service 2>/dev/null; true");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// What the page has for a server: what goes into its configuration, and what into `pull.toml`.
struct Recipe {
    server: String,
    configuration: String,
    pull: String,
}

fn recipes() -> Vec<Recipe> {
    let text = fs::read_to_string(root().join("docs/delivery.md")).unwrap();
    let (_, chapter) = text.split_once("\n## By server\n").unwrap();
    let (chapter, _) = chapter.split_once("\n## ").unwrap();

    let filled_in = |text: &str| text.replace("NAME", NAME).replace("PASSWORD", PASSWORD);
    let servers = chapter.split("\n### ").skip(1);
    servers
        .filter_map(|section| {
            let (server, rest) = section.split_once('\n')?;
            let (configuration, rest) = rest.split_once("\n```toml\n")?;
            let (pull, _) = rest.split_once("\n```")?;
            Some(Recipe {
                server: server.to_owned(),
                configuration: filled_in(configuration.trim()),
                pull: filled_in(pull),
            })
        })
        .collect()
}

/// Where a server of Debian reads it, and what has to stand around it.
fn configuration(recipe: &Recipe) -> (&'static str, &'static str, String) {
    let lines = &recipe.configuration;
    match recipe.server.as_str() {
        "nginx" => (
            "nginx",
            "/etc/nginx/sites-enabled/default",
            format!("server {{ listen 443 ssl;\n{lines}\nreturn 204; }}\n"),
        ),
        "haproxy" => (
            "haproxy",
            "/etc/haproxy/haproxy.cfg",
            format!(
                "global\n stats socket /run/haproxy/admin.sock mode 660 level admin\ndefaults\n timeout client 9s\n timeout server 9s\n \
                 timeout connect 9s\nfrontend tls\n mode http\n {lines}\n http-request return status 200\n"
            ),
        ),
        "Apache" => (
            "apache2",
            "/etc/apache2/sites-enabled/000-default.conf",
            format!("ServerName web-1\n<VirtualHost *:443>\nSSLEngine on\n{lines}\n</VirtualHost>\n"),
        ),
        "postfix" => (
            "postfix",
            "/etc/postfix/main.cf",
            format!("compatibility_level = 3.6\nmyhostname = web-1\nsmtpd_tls_security_level = may\n{lines}\n"),
        ),
        "dovecot" => (
            "dovecot",
            "/etc/dovecot/conf.d/99-neverlapse.conf",
            format!("ssl = yes\n{lines}\n"),
        ),
        "Tomcat" => (
            "tomcat10",
            "/etc/tomcat10/server.xml",
            format!(
                "<Server port=\"-1\"><Service name=\"Catalina\"><Connector port=\"8443\" SSLEnabled=\"true\"><SSLHostConfig>{lines}\
                 </SSLHostConfig></Connector><Engine name=\"Catalina\" defaultHost=\"web-1\"><Host name=\"web-1\"/></Engine></Service></Server>\n"
            ),
        ),
        other => panic!("no test is known for {other:?} of docs/delivery.md"),
    }
}

/// Also where there is no systemd to try them under.
#[test]
fn every_server_of_the_page_is_known() {
    let units: Vec<_> = recipes().iter().map(|recipe| configuration(recipe).0).collect();
    assert_eq!(units, ["nginx", "haproxy", "apache2", "postfix", "dovecot", "tomcat10"]);
}

#[test]
fn under_a_real_systemd() {
    let mut machine = match Machine::boot() {
        Ok(machine) => machine,
        Err(reason) => {
            // Macros that print are kept quiet in tests that pass.
            let mut shown = std::io::stderr();
            writeln!(
                shown,
                "WARNING: the units were NOT tested under a real systemd: {reason}"
            )
            .unwrap();
            return;
        }
    };
    machine.runs("a2enmod -q ssl");
    let password = format!("/etc/neverlapse/{NAME}.pass");
    machine.writes(&password, PASSWORD);
    machine.runs(&format!("chmod 600 {password}"));

    for recipe in recipes() {
        let (unit, path, text) = configuration(&recipe);
        machine.forgets();
        machine.writes(path, &text);
        machine.configures(&recipe.pull);

        // A new server: the reload starts it.
        let first = machine.publishes(60);
        machine.pulls_by_hand();
        machine.has_seen_served(&first, &recipe.server);
        let second = machine.publishes(70);
        machine.pulls_by_the_unit();
        machine.has_seen_served(&second, &recipe.server);

        machine.runs(&format!("systemctl stop {unit}"));
    }

    commands_of_all_kinds_pass_in_the_unit(&mut machine);
    places_that_need_more_than_a_connection(&mut machine);
    a_server_that_a_hook_started_outlives_the_unit(&mut machine);
    the_boot_timer_runs_it_at_once(&mut machine);
    what_was_masked_stays_so(&machine);
    it_says_goodbye(&machine);
}

/// What people write besides what the page has.
fn commands_of_all_kinds_pass_in_the_unit(machine: &mut Machine) {
    machine.forgets();
    machine.writes(
        "/root/reload.sh",
        "#!/bin/sh\nexec systemctl try-reload-or-restart nginx\n",
    );
    machine.runs("chmod 755 /root/reload.sh; cp /root/reload.sh /home/");
    for command in [
        "/root/reload.sh",
        "/home/reload.sh",
        "runuser -u www-data -- id",
        // It compiles in memory, as Node and Lua do.
        "java -version",
        "chroot / true",
        "postfix check",
        "hostname -I",
        "systemd-run --quiet --wait true",
        "test $HOME = /root",
        // A server that is started here has this umask, and its socket there.
        "test $(umask) = 0022",
        "test -e /tmp/server.sock",
        "kill -HUP $(cat /run/systemd-test.pid)",
    ] {
        machine.runs("touch /tmp/server.sock");
        machine.runs("sleep 600 >/dev/null 2>&1 & echo $! >/run/systemd-test.pid");
        machine.configures(&format!("reload_command = \"{command}\""));
        let current = machine.publishes(60);
        machine.pulls_by_the_unit();
        let receipt = machine.depot.receipt(NAME, "web-1").unwrap();
        assert_eq!(
            (receipt.stage, &receipt.version, &receipt.reason),
            (Stage::Installed, &current.facts.version, &None),
            "{command}"
        );
    }
}

fn places_that_need_more_than_a_connection(machine: &mut Machine) {
    machine
        .runs("openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -out /etc/ca.pem -subj /CN=ca 2>/dev/null");
    let live = format!("/etc/neverlapse/live/{NAME}");
    for (listens, verify) in [
        ("listen 443 ssl proxy_protocol;", "proxy://127.0.0.1:443"),
        ("listen 443 ssl proxy_protocol;", "proxy2://127.0.0.1:443"),
        ("listen unix:/run/nginx.sock ssl;", "unix:/run/nginx.sock"),
        (
            "listen 443 ssl; ssl_client_certificate /etc/ca.pem; ssl_verify_client on;",
            "127.0.0.1:443",
        ),
    ] {
        machine.forgets();
        machine.writes(
            "/etc/nginx/sites-enabled/default",
            &format!(
                "server {{ {listens} ssl_certificate {live}/fullchain.pem; ssl_certificate_key {live}/privkey.pem; return 204; }}"
            ),
        );
        machine.configures(&format!(
            "test_command = [\"nginx\", \"-t\"]\nreload_command = \"systemctl reload-or-restart nginx\"\nverify = \"{verify}\""
        ));
        let current = machine.publishes(75);
        machine.pulls_by_the_unit();
        machine.has_seen_served(&current, verify);
        machine.runs("systemctl stop nginx");
    }
}

fn a_server_that_a_hook_started_outlives_the_unit(machine: &mut Machine) {
    machine.forgets();
    machine.configures("reload_command = \"nginx -s reload 2>/dev/null || nginx\"\nverify = \"127.0.0.1:443\"");
    let current = machine.publishes(80);
    machine.pulls_by_the_unit();
    machine.has_seen_served(&current, "a hook");
    assert_eq!(
        machine.runs("systemctl is-active neverlapse-pull.service; true").trim(),
        "inactive"
    );
    machine.runs("nginx -s reload");
    machine.runs("nginx -s quit; while pgrep -x nginx; do sleep 0.1; done >/dev/null");
}

fn the_boot_timer_runs_it_at_once(machine: &mut Machine) {
    machine.configures("");
    let current = machine.publishes(81);
    // This machine has been up for longer than the timer waits, so that it is due.
    machine.runs("systemctl enable --quiet --now neverlapse-pull.timer neverlapse-boot.timer");
    machine.until("a run after the boot", || {
        machine
            .depot
            .receipt(NAME, "web-1")
            .is_ok_and(|receipt| receipt.version == current.facts.version)
    });
    let next = machine.runs("systemctl show neverlapse-pull.timer -p NextElapseUSecRealtime");
    assert!(next.trim().len() > "NextElapseUSecRealtime=".len(), "{next}");
    machine.runs("systemctl disable --quiet --now neverlapse-pull.timer");
    assert_eq!(
        machine.sh("systemctl is-enabled neverlapse-boot.timer").0.trim(),
        "disabled",
        "it goes with the other"
    );
}

fn what_was_masked_stays_so(machine: &Machine) {
    machine.runs("rm /etc/systemd/system/neverlapse-pull.timer && systemctl mask neverlapse-pull.timer");
    machine
        .runs("mkdir -p /root/release /root/bin && cp /usr/local/bin/neverlapse /root/release/neverlapse-$(uname -m)");
    machine.runs("cp /srv/cli/systemd/*.* /srv/cli/fleet/install.sh /root/release/");
    machine.runs("cd /root/release && sha256sum * >../SHA256SUMS && mv ../SHA256SUMS .");
    machine.writes("/root/bin/aws", "#!/bin/sh\ncp /root/release/${4##*/} $5\n");
    let said = machine.runs(
        "chmod +x /root/bin/aws; cd /root/release; PATH=/root/bin:$PATH sh install.sh bucket $(sha256sum <SHA256SUMS | cut -d' ' -f1)",
    );
    assert!(
        said.contains("neverlapse-pull.timer is masked on this machine, and stays so"),
        "{said}"
    );
    assert_eq!(
        machine.sh("systemctl is-enabled neverlapse-pull.timer").0.trim(),
        "masked"
    );
    let boot = machine.sh("systemctl is-enabled neverlapse-boot.timer").0;
    assert_eq!(boot.trim(), "disabled");
}

fn it_says_goodbye(machine: &Machine) {
    machine.pulls_by_the_unit();
    assert!(machine.depot.receipt(NAME, "web-1").is_ok());
    machine.runs("systemctl start neverlapse-leave.service && systemctl stop neverlapse-leave.service");
    assert!(machine.depot.receipt(NAME, "web-1").is_err());
}

fn root() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap()
}
