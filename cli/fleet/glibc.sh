#!/usr/bin/env bash
# Says of each binary how large it is and which glibc it needs; fails where that is later than the given one.
#
#   glibc.sh VERSION BINARY…
set -euo pipefail

limit=$1
shift
later=0
for binary in "$@"; do
  needed=$(readelf --version-info --wide "$binary" | grep -oE 'GLIBC_[0-9]+(\.[0-9]+)+' | sort -uV | tail -n 1)
  printf '%s: %s, %s bytes, needs %s\n' "$binary" \
    "$(readelf --file-header "$binary" | sed -n 's/^ *Machine: *//p')" "$(stat -c %s "$binary")" "${needed:-no glibc}"
  if [ "$(printf '%s\n' "GLIBC_$limit" "$needed" | sort -V | tail -n 1)" != "GLIBC_$limit" ]; then
    printf '%s needs %s (expected GLIBC_%s or earlier)\n' "$binary" "$needed" "$limit" >&2
    later=1
  fi
done
exit $later
