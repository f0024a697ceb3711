#!/usr/bin/env bash
# Runs a Debian mail server that is not installed, as the first process of its own mount and PID namespace.
#
#   unshare --mount --pid --fork --kill-child peers/enter.sh WORK PACKAGES SPOOL
#
# WORK/config is what rig/peers.py made of a folder beside this file; its start.sh is run. PACKAGES holds the
# unpacked packages, which lie over this machine's own files in a root that is thrown away. SPOOL is where
# the server keeps its queue: WORK/spool, on the same disk as the spools of the others. Ports are the host's.
set -euo pipefail
work=$1 packages=$2 spool=$3

mkdir -p "$work"/{root,spool}
mount --make-rprivate /
mount -t tmpfs tmpfs "$work/root"
mkdir "$work"/root/{upper,work,merged}
cp -a "$packages" "$work/root/packages" # a layer may not lie within another one
root=$work/root/merged
mount -t overlay overlay -o "lowerdir=$work/root/packages:/,upperdir=$work/root/upper,workdir=$work/root/work" "$root"
mkdir -p "$root/$spool" "$root/config"
mount --bind "$work/spool" "$root/$spool"
mount --bind "$work/config" "$root/config"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"

# Not `exec`: this shell stays the first process, and waits for every child that another one left behind.
chroot "$root" /bin/sh /config/start.sh &
wait $!
