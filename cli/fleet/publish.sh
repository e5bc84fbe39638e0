#!/usr/bin/env bash
# Publishes the client in a stack's bucket, where cli/fleet/install.sh finds it on instances, and says how to have it installed.
#
#   publish.sh STACK BINARIES [CONFIGURATION…]
#
# BINARIES holds neverlapse-x86_64 and neverlapse-aarch64; a CONFIGURATION is a pull.toml, under any name. A release is named by the
# SHA-256 of its SHA256SUMS: it never replaces another, and what instances are to install is said elsewhere, by that name.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

[ $# -ge 2 ] || fail "usage: publish.sh STACK BINARIES [CONFIGURATION…]"
stack=$1 binaries=$2
shift 2
commit=$(git rev-parse HEAD)
# Where a guided deployment keeps its answers.
if [ -n "$(git status --porcelain --untracked-files=no -- . ':!samconfig.toml')" ]; then
  [ -n "${DIRTY:-}" ] || fail "there are changes that no commit has (git status): commit them, or say DIRTY=1"
  commit="$commit with changes"
fi

release=$(mktemp -d)
trap 'rm -rf "$release"' EXIT
cp "$binaries"/neverlapse-{x86_64,aarch64} cli/fleet/install.sh cli/systemd/*.{service,timer} "$release"
printf '%s\n' "$commit" >"$release/COMMIT"
for configuration in "$@"; do
  name=$(basename "$configuration")
  [[ $name =~ ^[A-Za-z0-9_-][A-Za-z0-9._-]*\.toml$ ]] || fail "\"$name\" is no name for a configuration (expected such as web.toml)"
  [ ! -e "$release/$name" ] || fail "there are two configurations named \"$name\""
  # An error in it would fail on every instance that gets it.
  if [ "$(uname -s)" = Linux ]; then
    "$binaries/neverlapse-$(uname -m)" validate --pull "$configuration" >&2 ||
      fail "\"$configuration\" is not published, for the reason above"
  else
    printf 'note: "%s" was not checked on this machine (neverlapse validate --pull)\n' "$configuration" >&2
  fi
  cp "$configuration" "$release/$name"
done
(cd "$release" && sha256sum -- * >SHA256SUMS.new && mv SHA256SUMS.new SHA256SUMS)
id=$(sha256sum <"$release/SHA256SUMS" | cut -d ' ' -f 1)

# The first version of the AWS CLI does not know AWS_REGION.
[ -z "${AWS_REGION:-}" ] || export AWS_DEFAULT_REGION="${AWS_DEFAULT_REGION:-$AWS_REGION}"
bucket=$(aws cloudformation describe-stacks --stack-name "$stack" \
  --query "Stacks[0].Outputs[?OutputKey=='BucketName'].OutputValue" --output text)
# SHA256SUMS comes last: where it is, everything is.
aws s3 cp --only-show-errors --recursive --exclude SHA256SUMS "$release" "s3://$bucket/client/$id"
aws s3 cp --only-show-errors "$release/SHA256SUMS" "s3://$bucket/client/$id/SHA256SUMS"

configuration=
[ $# -ne 1 ] || configuration=" FleetConfiguration=$(basename "$1")"
cat <<END
Published in s3://$bucket/client/$id/
$(sed 's/^/  /' "$release/SHA256SUMS")

Instances install it once the stack says so (make deploy asks for it), with
  FleetRelease=$id$configuration
END
