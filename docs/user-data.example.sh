#!/bin/sh
# User data of instances that install neverlapse at their first boot. The image has the AWS CLI and nginx, and nginx is not enabled:
# reload_command = "systemctl reload-or-restart nginx" in web.toml starts it, once its first certificate is there.
export AWS_DEFAULT_REGION=eu-central-1
bucket=neverlapse-bucket-1a2b3c
release=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
configuration=web.toml

# As in the SSM document of template.yaml: fetch the installer, and believe it only if it belongs to the release.
set -eu
PATH=$PATH:/usr/local/bin:/snap/bin
fail() {
  echo "neverlapse: $*; nothing was changed" >&2
  exit 1
}
command -v aws >/dev/null || fail '"aws", the AWS CLI, is missing on this machine'
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
for file in SHA256SUMS install.sh; do
  aws s3 cp --only-show-errors "s3://$bucket/client/$release/$file" "$file" ||
    fail "cannot fetch $file of release $release (is it published, and may this machine read client/ in the bucket?)"
done
echo "$release  SHA256SUMS" | sha256sum --check --status || fail "SHA256SUMS is not that of release $release"
grep ' install\.sh$' SHA256SUMS | sha256sum --check --status || fail "install.sh is not that of release $release"
sh install.sh "$bucket" "$release" "$configuration"
