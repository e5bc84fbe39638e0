#!/bin/sh
# After removal. The certificates in /etc/neverlapse stay: servers may still read them.
set -e
if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
fi
