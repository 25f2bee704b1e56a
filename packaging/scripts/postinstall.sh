#!/bin/sh
# After an installation or upgrade, of deb and of rpm: the user of relay.service, and its files.
# Nothing is started or restarted: in a cluster, one node is restarted after the other.
set -e

if ! getent group distmsg >/dev/null; then
  groupadd --system distmsg
fi
if ! getent passwd distmsg >/dev/null; then
  useradd --system --gid distmsg --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin distmsg
fi

# What the administrator gave to another group stays so.
for file in /etc/distmsg /etc/distmsg/relay.yaml; do
  if [ "$(stat -c %G "$file")" = root ]; then
    chgrp distmsg "$file"
  fi
done

if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
