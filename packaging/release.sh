#!/usr/bin/env bash
# Everything that a release consists of, in target/release-VERSION: what a person needs to deploy and install without a compiler.
#
#   release.sh GLIBC
#
# The same commit and tools give the same bytes: paths of this machine are replaced, times are those of the commit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

glibc=$1
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
commit=$(git rev-parse HEAD)
release=target/release-$version
export SOURCE_DATE_EPOCH
export RUSTFLAGS="--remap-path-prefix=$PWD=. --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
export CARGO_TERM_QUIET=true

if [ -n "$(git status --porcelain --untracked-files=no -- .)" ]; then
  [ -n "${DIRTY:-}" ] || { echo "there are changes that no commit has (git status): commit them, or say DIRTY=1" >&2; exit 1; }
  commit="$commit with changes"
fi
rm -rf "$release"
mkdir -p "$release"

# zip FILE CONTENT…: with one time, in one order, and without the owner.
zip_of() {
  python3 - "$@" <<'PYTHON'
import os, sys, time, zipfile
when = time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))[:6]
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
    for path in sorted(sys.argv[2:]):
        entry = zipfile.ZipInfo(os.path.basename(path), when)
        entry.external_attr = 0o100755 << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        target.writestr(entry, open(path, "rb").read())
PYTHON
}

# The functions: a folder per architecture, from which sam or the AWS CLI deploys as it is.
for machine in aarch64:arm64 x86_64:x86_64; do
  target=${machine%:*}-unknown-linux-gnu architecture=${machine#*:}
  rustup target add "$target"
  # Lambda's provided.al2023 has glibc 2.34.
  cargo auditable zigbuild --release --locked -p probe -p renewer --target "$target.2.34"
  stack=$release/stack-$architecture
  mkdir -p "$stack"
  for function in probe renewer; do
    cp "target/$target/release/$function" "$stack/bootstrap"
    zip_of "$stack/$function.zip" "$stack/bootstrap"
    rm "$stack/bootstrap"
  done
  packaging/template.sh "$architecture" >"$stack/template.yaml"
  cp docs/inventory.example.toml "$stack"
done

# The client, for hosts with an old glibc.
for machine in x86_64 aarch64; do
  cargo auditable zigbuild --release --locked -p neverlapse-cli --target "$machine-unknown-linux-gnu.$glibc"
  install -D "target/$machine-unknown-linux-gnu/release/neverlapse" "$release/client/neverlapse-$machine"
done
cli/fleet/glibc.sh "$glibc" "$release"/client/neverlapse-*
cp cli/fleet/install.sh cli/systemd/*.{service,timer} docs/pull.example.toml "$release/client"
for machine in x86_64 aarch64; do
  NEVERLAPSE=$release/client/neverlapse-$(uname -m) packaging/package.sh "$release/client/neverlapse-$machine" "$machine" "$release/packages"
done

mkdir -p "$release/schemas"
for name in inventory pull report alert receipt renewal-request event plan diagnosis; do
  "$release/client/neverlapse-$(uname -m)" schema "$name" >"$release/schemas/$name.schema.json"
done

# What is in it.
for package in functions/probe functions/renewer cli; do
  (cd "$package" && cargo cyclonedx --format json --override-filename sbom --target all)
  name=$(basename "$package")
  mv "$package/sbom.json" "$release/${name/#cli/neverlapse}.cdx.json"
done
cp -r README.md CHANGELOG.md LICENSE LICENSE-* docs "$release"
printf 'neverlapse %s, commit %s\n' "$version" "$commit" >"$release/VERSION"
find "$release" -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
sums=$(cd "$release" && find . -type f -printf '%P\n' | LC_ALL=C sort | xargs sha256sum)
printf '%s\n' "$sums" >"$release/SHA256SUMS"
echo "$release:"
sed 's/^/  /' "$release/SHA256SUMS"
