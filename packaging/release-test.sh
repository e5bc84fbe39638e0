#!/usr/bin/env bash
# From a release's folder to the first alert, on a local AWS, with neither Rust nor a compiler.
#
#   release-test.sh RELEASE
#
# TOOLS is a folder with the virtual environments ministack, sam and aws; default: .local, where `make setup` puts them.
set -euo pipefail

fail() {
  printf 'release-test: %s\n' "$*" >&2
  exit 1
}

[ $# -eq 1 ] || fail "usage: release-test.sh RELEASE"
release=$(realpath "$1")
tools=$(realpath "${TOOLS:-$(dirname "${BASH_SOURCE[0]}")/../.local}")
case $(uname -m) in
  x86_64) machine=x86_64 architecture=x86_64 ;;
  aarch64) machine=aarch64 architecture=arm64 ;;
  *) fail "\"$(uname -m)\" is not a machine of a release (expected x86_64 or aarch64)" ;;
esac
(cd "$release" && sha256sum --check --quiet SHA256SUMS) || fail "$release is not what its SHA256SUMS says"

folder=$(mktemp -d)
started=()
finish() {
  for one in "${started[@]}"; do kill "$one" 2>/dev/null || true; done
  wait
  rm -rf "$folder"
}
trap finish EXIT

# Nothing here compiles: what could, fails.
mkdir "$folder/bin"
for compiler in cargo rustc rustup cc gcc clang zig go; do
  printf '#!/bin/sh\necho "%s was called" >&2\nexit 1\n' "$compiler" >"$folder/bin/$compiler"
  chmod +x "$folder/bin/$compiler"
done
install -m 0755 "$release/client/neverlapse-$machine" "$folder/bin/neverlapse"
export PATH="$folder/bin:$tools/sam/bin:$tools/aws/bin:/usr/bin:/bin" HOME="$folder" TMPDIR="$folder" SAM_CLI_TELEMETRY=0

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
# Version 1 of the AWS CLI has an endpoint of its own for SQS.
sqs() { aws sqs --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }
eventually() {
  for _ in $(seq 600); do
    "$@" >"$folder/answer" 2>&1 && return
    sleep 0.1
  done
  cat "$folder/answer" >&2
  fail "nothing came of: $*"
}

# A local AWS, and a server whose certificate no client accepts.
port=$(free_port)
export AWS_ENDPOINT_URL=http://127.0.0.1:$port AWS_REGION=eu-central-1 AWS_DEFAULT_REGION=eu-central-1 AWS_EC2_METADATA_DISABLED=true
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null
mkdir "$folder/aws"
(cd "$folder/aws" && GATEWAY_PORT=$port MINISTACK_HOST=127.0.0.1 exec "$tools/ministack/bin/ministack") >"$folder/aws.log" 2>&1 &
started+=($!)
server=$(free_port)
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=shop.test -addext subjectAltName=IP:127.0.0.1 \
  -keyout "$folder/key.pem" -out "$folder/certificate.pem" 2>/dev/null
openssl s_server -quiet -accept "127.0.0.1:$server" -key "$folder/key.pem" -cert "$folder/certificate.pem" >/dev/null 2>&1 &
started+=($!)
eventually aws sts get-caller-identity

SECONDS=0
(cd "$release/stack-$architecture" && sam deploy --stack-name neverlapse --resolve-s3 --capabilities CAPABILITY_IAM \
  --no-confirm-changeset --no-progressbar --parameter-overrides "Domains=127.0.0.1:$server") >"$folder/deploy.log" 2>&1 ||
  { cat "$folder/deploy.log" >&2; fail "the stack cannot be deployed"; }
echo "deployed after $SECONDS s"

topic=$(aws cloudformation describe-stacks --stack-name neverlapse --output text \
  --query "Stacks[0].Outputs[?OutputKey=='AlertTopicArn'].OutputValue")
inbox=$(sqs create-queue --queue-name inbox --query QueueUrl --output text)
arn=$(sqs get-queue-attributes --queue-url "$inbox" --attribute-names QueueArn --query Attributes.QueueArn --output text)
aws sns subscribe --topic-arn "$topic" --protocol sqs --notification-endpoint "$arn" >/dev/null

# Its exit code is the worst status, and something is wrong here.
neverlapse run >"$folder/run" 2>&1 || true
arrived() { sqs receive-message --queue-url "$inbox" --query 'Messages[0].Body' --output text | grep -F "CRITICAL: 127.0.0.1:$server"; }
eventually arrived
took=$SECONDS
cat "$folder/run"
echo "the first alert arrived $took s after the deployment began"
[ "$took" -lt 180 ] || fail "it took longer than three minutes"
