#!/usr/bin/env bash
# Patroni and the etcd that it keeps the leader in, for tests/clusters, into .cache/patroni.
#
# Nothing is installed and no root is needed: Patroni comes from PyPI into an environment of its own,
# etcd from Debian, whose program needs nothing but the C library.
set -euo pipefail
cd "$(dirname "$0")/../.."

patroni=4.1.5
psycopg=3.3.9
release=bookworm # etcd 3.4

cache="$PWD/.cache/patroni"
. tests/servers/apt.sh

die() { echo "fetch_patroni: $*" >&2; exit 1; }

python() { # root's servers run as another user, who reads nothing below root's home
    if [ -x /usr/bin/python3 ]; then echo /usr/bin/python3; else echo .venv/bin/python; fi
}

fetch_patroni() {
    [ -e "$cache/environment/patroni-$patroni" ] && return
    .venv/bin/uv venv --quiet --clear --python "$(python)" "$cache/environment"
    .venv/bin/uv pip install --quiet --python "$cache/environment" \
        "patroni[etcd3]==$patroni" "psycopg[binary]==$psycopg"
    touch "$cache/environment/patroni-$patroni"
}

fetch_etcd() {
    [ -x "$cache/etcd/etcd" ] && return
    rm -rf "$cache/etcd.new"
    mkdir -p "$cache/etcd.new/apt"
    make_apt "$release" "$cache/etcd.new/apt"
    (cd "$cache/etcd.new" && apt-get --config-file=apt/apt.conf download --quiet=2 etcd-server)
    dpkg-deb --extract "$cache"/etcd.new/*.deb "$cache/etcd.new"
    mkdir -p "$cache/etcd"
    mv "$cache/etcd.new/usr/bin/etcd" "$cache/etcd/etcd"
    rm -rf "$cache/etcd.new"
}

[ -x .venv/bin/uv ] || die 'make setup first'
mkdir -p "$cache"
fetch_patroni
fetch_etcd
"$cache/etcd/etcd" --version | sed -n 1p
"$cache/environment/bin/patroni" --version
