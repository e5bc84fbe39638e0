#!/bin/sh
# After installation and upgrade. No timer is enabled: without a pull.toml there is nothing to install. Into another root (DPKG_ROOT, a
# container image) there is no systemd to tell.
set -e
if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
  # After an upgrade, a timer that runs is to use the unit of this version.
  systemctl try-restart neverlapse-pull.timer neverlapse-boot.timer || true
fi
