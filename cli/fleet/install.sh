#!/bin/sh
# Installs a release of the neverlapse client on this machine, or brings it to that release. To be run again at any time.
#
#   install.sh BUCKET RELEASE [CONFIGURATION]
#
# RELEASE is the SHA-256 of client/RELEASE/SHA256SUMS in the bucket, and that file has those of all others there: who can write to the
# bucket, but not say which release is wanted, cannot change what is installed. CONFIGURATION is the file of the release that becomes
# /etc/neverlapse/pull.toml; without it the machine keeps its own. DESTDIR is put before every path, for tests and images.
set -eu
umask 022

main() {
  bucket=$1 release=$2 configuration=${3:-} root=${DESTDIR:-}
  case $(uname -m) in
    x86_64) machine=x86_64 ;;
    aarch64 | arm64) machine=aarch64 ;;
    *) fail "there is no client for \"$(uname -m)\" (expected x86_64 or aarch64)" ;;
  esac
  for program in aws sha256sum systemctl; do
    command -v "$program" >/dev/null || fail "\"$program\" is missing on this machine"
  done
  systemd=$(systemctl --version | awk 'NR == 1 { print int($2) }')
  [ "$systemd" -ge 235 ] || fail "systemd $systemd is too old for the units (expected 235 or later)"
  work=$(mktemp -d)
  staged=$work/staged
  : >"$staged"
  trap 'remove_staged; rm -rf "$work"' EXIT

  fetch SHA256SUMS "$work/SHA256SUMS"
  [ "$(sha256 "$work/SHA256SUMS")" = "$release" ] || fail "SHA256SUMS is not that of release $release; nothing was changed"
  units=$(awk '$2 ~ /\.(service|timer)$/ { print $2 }' "$work/SHA256SUMS")

  # All of it lies beside its place, verified, before any of it is put there.
  stage "neverlapse-$machine" /usr/local/bin/neverlapse 755
  for unit in $units; do
    stage "$unit" "/etc/systemd/system/$unit" 644
  done
  [ -z "$configuration" ] || stage "$configuration" /etc/neverlapse/pull.toml 644
  binary=$root/usr/local/bin/.neverlapse.new
  if [ -e "$binary" ]; then
    "$binary" --version >/dev/null || fail "the new client does not run on this machine; nothing was changed"
  fi

  if [ -s "$staged" ]; then
    put_in_place
    systemctl daemon-reload
    say "$("$root/usr/local/bin/neverlapse" --version), release $release, is installed"
  else
    say "$("$root/usr/local/bin/neverlapse" --version), release $release, was installed before; nothing was changed"
  fi
  for unit in $units; do
    activate "$unit"
  done
  run
}

# stage FILE PATH MODE: fetches a file of the release, if it is not the one at PATH.
stage() {
  path=$root$2
  wanted=$(awk -v file="$1" '$2 == file { print $1 }' "$work/SHA256SUMS")
  [ -n "$wanted" ] || fail "release $release has no \"$1\"; nothing was changed"
  [ "$(sha256 "$path")" != "$wanted" ] || return 0
  mkdir -p "${path%/*}"
  new=${path%/*}/.${path##*/}.new
  printf '%s\n' "$new" >>"$staged"
  fetch "$1" "$new"
  [ "$(sha256 "$new")" = "$wanted" ] || fail "\"$1\" is not the one that was published (expected SHA-256 $wanted); nothing was changed"
  chmod "$3" "$new"
}

put_in_place() {
  while read -r new; do
    name=${new##*/.}
    path=${new%/*}/${name%.new}
    if [ -e "$path" ]; then verb=replaced; else verb=added; fi
    mv -f "$new" "$path"
    say "$verb ${path#"$root"}"
  done <"$staged"
}

remove_staged() {
  while read -r new; do
    rm -f "$new"
  done <"$staged"
}

# activate UNIT: those that nothing but a timer starts have no [Install].
activate() {
  grep -q '^\[Install\]' "$root/etc/systemd/system/$1" || return 0
  systemctl enable --quiet "$1"
  if [ -s "$staged" ] && [ "${1##*.}" = timer ]; then
    systemctl restart "$1"
  else
    systemctl start "$1"
  fi
}

run() {
  if [ ! -e "$root/etc/neverlapse/pull.toml" ]; then
    say "there is no /etc/neverlapse/pull.toml: the timer waits for it"
  elif systemctl start neverlapse-pull.service; then
    say "neverlapse pull ran, and all is well"
  else
    journalctl --unit neverlapse-pull.service --lines 20 --no-pager --output cat || true
    fail "neverlapse pull failed; later runs try again, \"neverlapse pull --now\" at once (journalctl -u neverlapse-pull)"
  fi
}

# fetch FILE PATH
fetch() {
  aws s3 cp --only-show-errors "s3://$bucket/client/$release/$1" "$2" ||
    fail "cannot fetch s3://$bucket/client/$release/$1; nothing was changed (may this machine read client/ in the bucket?)"
}

sha256() {
  [ ! -e "$1" ] || sha256sum <"$1" | cut -d ' ' -f 1
}

say() {
  printf 'neverlapse: %s\n' "$*"
}

fail() {
  say "$*" >&2
  exit 1
}

[ $# -ge 2 ] && [ $# -le 3 ] || fail "usage: install.sh BUCKET RELEASE [CONFIGURATION]"
main "$@"
