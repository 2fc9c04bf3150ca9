#!/usr/bin/env bash
# A Debian 13 to install into, for tests/provisioning, into .cache/debian: the smallest system, with
# the lists of its packages, and the wheels of what Penstock depends on there. Needs root and debootstrap.
set -euo pipefail
cd "$(dirname "$0")/../.."

release=trixie
cache="$PWD/.cache/debian"
. tests/servers/apt.sh

die() { echo "fetch_debian: $*" >&2; exit 1; }

fetch_system() {
    [ ! -d "$cache/system" ] || return 0
    rm -rf "$cache/system.new"
    debootstrap --variant=minbase "$release" "$cache/system.new" "$(mirror)" >"$cache/debootstrap.log" ||
        die "see $cache/debootstrap.log"
    echo '127.0.0.1 localhost' >"$cache/system.new/etc/hosts" # netbase makes it and does not remove it
    # What is installed there lives as long as a test does.
    echo force-unsafe-io >"$cache/system.new/etc/dpkg/dpkg.cfg.d/unsafe-io"
    mv "$cache/system.new" "$cache/system"
}

fetch_wheels() {
    [ ! -d "$cache/wheels" ] || return 0
    rm -rf "$cache/wheels.new"
    .venv/bin/uv build --quiet --wheel --out-dir "$cache/wheels.new"
    .venv/bin/python -m pip download --quiet --quiet --dest "$cache/wheels.new" --only-binary :all: \
        --python-version 3.13 "$(echo "$cache"/wheels.new/penstock-*.whl)[cli,demo,fastapi,prometheus]"
    rm "$cache"/wheels.new/penstock-*.whl
    mv "$cache/wheels.new" "$cache/wheels"
}

[ "$(id -u)" -eq 0 ] || die 'needs root'
mkdir -p "$cache"
fetch_system
fetch_wheels
