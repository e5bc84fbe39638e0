#!/bin/sh
# Before removal, not before an upgrade: dpkg calls it with "remove" or "upgrade", rpm with the number of versions that stay.
set -e
case "${1:-}" in
  remove | 0) ;;
  *) exit 0 ;;
esac
if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
  # Stopping the last of them removes this instance's receipts, so that the probe does not wait for it.
  systemctl disable --now neverlapse-pull.timer neverlapse-boot.timer neverlapse-leave.service || true
fi
