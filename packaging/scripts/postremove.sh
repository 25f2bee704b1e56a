#!/bin/sh
# After a removal or upgrade. The user stays, as files may belong to it.
set -e

if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
