#!/usr/bin/env bash
# The first process of a machine, in namespaces of its own. It reaps what its processes leave behind,
# and ends, with all of them, when its input does.
set -euo pipefail
system=$1 layers=$2 upper=$3 source=$4 wheels=$5 archives=$6

mkdir -p "$upper"/{files,work,root}
mount -t overlay overlay "$upper/root" \
    -o "lowerdir=$layers$system,upperdir=$upper/files,workdir=$upper/work"
cd "$upper/root"
mkdir -p source wheels
mount --bind "$source" source
mount --bind "$wheels" wheels
mount --bind "$archives" var/cache/apt/archives
mount --rbind /dev dev
mount -t tmpfs tmpfs dev/shm
mount -t proc proc proc
mount -t tmpfs tmpfs tmp
mount -t tmpfs tmpfs run
cp /etc/resolv.conf etc/resolv.conf
ip link set lo up
echo ready
while read -r _; do :; done
