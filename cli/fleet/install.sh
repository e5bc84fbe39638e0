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
  for program in aws flock sha256sum systemctl; do
    command -v "$program" >/dev/null || fail "\"$program\" is missing on this machine"
  done
  systemd=$(systemctl --version | awk 'NR == 1 { print int($2) }')
  [ "$systemd" -ge 235 ] || fail "systemd $systemd is too old for the units (expected 235 or later)"

  # On a new instance, user data and Systems Manager may both run this, and they stage to the same places.
  mkdir -p "$root/run"
  exec 9>"$root/run/neverlapse-install.lock"
  flock 9

  work=$(mktemp -d)
  staged=$work/staged added=$work/added fetching='' changed=''
  : >"$staged"
  : >"$added"
  # Not every shell runs the trap for EXIT when a signal ends it.
  trap 'remove_staged; rm -rf "$work"' EXIT
  trap 'ended 129' HUP
  trap 'ended 130' INT
  trap 'ended 143' TERM

  fetch SHA256SUMS
  [ "$(sha256 "$work/SHA256SUMS")" = "$release" ] || fail "SHA256SUMS is not that of release $release; nothing was changed"
  units=$(awk '$2 ~ /\.(service|timer)$/ { print $2 }' "$work/SHA256SUMS")

  # All of it lies beside its place, verified, before any of it is put there.
  stage "neverlapse-$machine" /usr/local/bin/neverlapse 755
  for unit in $units; do
    if is_masked "$unit"; then
      say "$unit is masked on this machine, and stays so"
    else
      stage "$unit" "/etc/systemd/system/$unit" 644
    fi
  done
  [ -z "$configuration" ] || stage "$configuration" /etc/neverlapse/pull.toml 644
  binary=$root/usr/local/bin/.neverlapse.new
  if [ -e "$binary" ]; then
    "$binary" --version >/dev/null || fail "the new client does not run on this machine; nothing was changed"
  fi

  put_in_place
  version=$("$root/usr/local/bin/neverlapse" --version) || fail "/usr/local/bin/neverlapse does not run on this machine"
  if [ -n "$changed" ]; then
    systemctl daemon-reload
    say "$version, release $release, is installed"
  else
    say "$version, release $release, was installed before; nothing was changed"
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
  [ ! -d "$path" ] || [ -L "$path" ] || fail "$2 is a folder; move it away (nothing was changed)"
  if [ -f "$path" ] && [ ! -L "$path" ] && [ "$(sha256 "$path")" = "$wanted" ]; then
    check_mode "$path" "$2" "$3"
    return 0
  fi
  fetch "$1"
  [ "$(sha256 "$work/$1")" = "$wanted" ] || fail "\"$1\" is not the one that was published (expected SHA-256 $wanted); nothing was changed"
  new=${path%/*}/.${path##*/}.new
  printf '%s\n' "$new" >>"$staged"
  mkdir -p "${path%/*}" || fail "cannot create ${2%/*}; nothing was changed"
  { rm -f "$new" && cp "$work/$1" "$new" && chmod "$3" "$new"; } || fail "cannot write to ${2%/*}; nothing was changed"
}

# check_mode FILE PATH MODE: a mode that allows less to others is a person's decision; one that lets them write, or that keeps the file
# from being used, is put right.
check_mode() {
  mode=$(stat -c %a "$1")
  # What its owner has to be able to do: read (and execute).
  needed=$((0$3 & 0500))
  if [ $((0$mode & 0022)) -ne 0 ] || [ $((0$mode & needed)) -ne "$needed" ]; then
    chmod "$3" "$1" || fail "cannot change the mode of $2"
    changed=yes
    say "$2 had mode $mode, and has $3 again"
  fi
  if [ "$(id -u)" = 0 ] && [ "$(stat -c %u "$1")" != 0 ]; then
    chown 0:0 "$1" || fail "cannot change the owner of $2"
    changed=yes
    say "$2 belonged to another user, and is root's again"
  fi
}

put_in_place() {
  while read -r new; do
    name=${new##*/.}
    path=${new%/*}/${name%.new}
    if [ -e "$path" ] || [ -L "$path" ]; then
      verb=replaced
    else
      verb=added
      printf '%s\n' "${path##*/}" >>"$added"
    fi
    mv -f "$new" "$path" || fail "cannot write ${path#"$root"}"
    changed=yes
    say "$verb ${path#"$root"}"
  done <"$staged"
}

remove_staged() {
  while read -r new; do
    rm -f "$new"
  done <"$staged"
}

# ended CODE: by a signal. What was being fetched is of no use to anybody.
ended() {
  [ -z "$fetching" ] || kill "$fetching" 2>/dev/null || true
  exit "$1"
}

# is_masked UNIT: as systemctl mask does it, by a link in the place of the unit.
is_masked() {
  [ "$(readlink "$root/etc/systemd/system/$1" 2>/dev/null)" = /dev/null ]
}

# is_off UNIT: a person has masked it, or disabled it after it was installed.
is_off() {
  is_masked "$1" && return 0
  ! grep -qxF "$1" "$added" || return 1
  case $(systemctl is-enabled "$1" 2>/dev/null || true) in
    masked | masked-runtime | disabled) return 0 ;;
    *) return 1 ;;
  esac
}

# activate UNIT: those that nothing but a timer starts have no [Install].
activate() {
  grep -q '^\[Install\]' "$root/etc/systemd/system/$1" 2>/dev/null || return 0
  # The two timers go together.
  if is_off "$1" || { [ "$1" = neverlapse-boot.timer ] && is_off neverlapse-pull.timer; }; then
    say "$1 is not enabled on this machine, and stays so (systemctl enable --now $1)"
    return 0
  fi
  systemctl enable --quiet "$1"
  if [ -n "$changed" ] && [ "${1##*.}" = timer ]; then
    systemctl restart "$1"
  else
    systemctl start "$1"
  fi
}

run() {
  if [ ! -e "$root/etc/neverlapse/pull.toml" ]; then
    say "there is no /etc/neverlapse/pull.toml: the timer waits for it"
    return 0
  fi
  if is_masked neverlapse-pull.service || is_off neverlapse-pull.timer; then
    say "neverlapse pull was not run, because this machine has it switched off"
    return 0
  fi
  began=$(date +%s)
  if systemctl start neverlapse-pull.service; then
    say "neverlapse pull ran, and all is well"
  else
    log
    fail "neverlapse pull failed; later runs try again, \"neverlapse pull --now\" at once (journalctl -u neverlapse-pull)"
  fi
}

# log: what the run that has just failed wrote, and what systemd wrote about it.
log() {
  id=$(systemctl show neverlapse-pull.service --property InvocationID 2>/dev/null | sed -n 's/^InvocationID=//p')
  if printf '%s' "$id" | grep -qxE '[0-9a-f]{32}'; then
    journalctl "_SYSTEMD_INVOCATION_ID=$id" + "INVOCATION_ID=$id" --no-pager --output cat || true
  else
    journalctl --unit neverlapse-pull.service --since "@$began" --no-pager --output cat || true
  fi
}

# fetch FILE: into $work.
fetch() {
  aws s3 cp --only-show-errors "s3://$bucket/client/$release/$1" "$work/$1" &
  fetching=$!
  wait "$fetching" ||
    fail "cannot fetch s3://$bucket/client/$release/$1, for the reason above; nothing was changed (may this machine read client/ in the bucket?)"
  fetching=''
}

sha256() {
  [ ! -f "$1" ] || sha256sum <"$1" | cut -d ' ' -f 1
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
