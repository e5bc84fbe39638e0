#!/usr/bin/env bash
# Makes the client's .deb and .rpm of a binary, the same bytes each time.
#
#   package.sh BINARY MACHINE OUTPUT
#
# MACHINE is x86_64 or aarch64. NEVERLAPSE is a neverlapse that runs here, and writes manual pages and completions; default: BINARY.
# SOURCE_DATE_EPOCH is the time of every file; default: that of the last commit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

[ $# -eq 3 ] || fail "usage: package.sh BINARY MACHINE OUTPUT"
BINARY=$(realpath "$1") output=$3
case $2 in
  x86_64) ARCH=amd64 ;;
  aarch64) ARCH=arm64 ;;
  *) fail "\"$2\" is not a machine (expected x86_64 or aarch64)" ;;
esac
NEVERLAPSE=${NEVERLAPSE:-$BINARY}
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
STAGED=$(mktemp -d)
trap 'rm -rf "$STAGED"' EXIT
export ARCH BINARY SOURCE_DATE_EPOCH STAGED VERSION

mkdir -p "$output" "$STAGED"/{systemd,completions}
# A package owns /usr/bin; install.sh, which is run by hand, owns /usr/local/bin.
for unit in cli/systemd/*.{service,timer}; do
  sed 's#/usr/local/bin/neverlapse#/usr/bin/neverlapse#' "$unit" >"$STAGED/systemd/${unit##*/}"
done
{
  echo '# What this host installs. Uncomment and correct what you need, then: neverlapse pull --dry-run'
  echo '# and: systemctl enable --now neverlapse-pull.timer neverlapse-leave.service'
  echo
  sed -e '1,/^$/d' -e 's/^\([^#]\)/# \1/' docs/pull.example.toml
} >"$STAGED/pull.toml"
"$NEVERLAPSE" man "$STAGED/man"
gzip -9n "$STAGED"/man/*
"$NEVERLAPSE" completions bash >"$STAGED/completions/neverlapse.bash"
"$NEVERLAPSE" completions zsh >"$STAGED/completions/_neverlapse"
"$NEVERLAPSE" completions fish >"$STAGED/completions/neverlapse.fish"
find "$STAGED" -exec touch --date="@$SOURCE_DATE_EPOCH" {} +

for packager in deb rpm; do
  nfpm package --config packaging/nfpm.yaml --packager "$packager" --target "$output"
done
