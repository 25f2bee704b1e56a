#!/bin/sh
# Before a removal, which deb calls "remove" and rpm 0, the node drains and stops. An upgrade leaves
# it alone.
set -e

case "$1" in
  remove | 0)
    if [ -d /run/systemd/system ]; then
      systemctl disable --now relay.service || true
    fi
    ;;
esac
