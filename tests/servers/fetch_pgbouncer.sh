#!/usr/bin/env bash
# PgBouncer as Debian builds it for its releases, each with the libraries that it was built against:
#
#   TEST_PGBOUNCER_BINS=$(tests/servers/fetch_pgbouncer.sh bookworm trixie)
#
# Bookworm has 1.18, trixie 1.24 and sid the newest; since 1.21 PgBouncer follows prepared statements,
# and since 1.26 it tells at login what it is. Nothing is
# installed and no root is needed: apt works on a state of its own in .cache/pgbouncer, where the
# programs end up, too. It takes them from the mirror that this system's own packages come from and
# checks signatures and checksums as always. Prints the programs' paths, with colons between them.
set -euo pipefail
cd "$(dirname "$0")/../.."

cache="$PWD/.cache/pgbouncer"
. tests/servers/apt.sh

die() { echo "fetch_pgbouncer: $*" >&2; exit 1; }

download() { # RELEASE DIRECTORY: what PgBouncer may load is in packages whose names begin with lib
    local apt="$2/apt" packages
    make_apt "$1" "$apt"
    packages=$(apt-get --config-file="$apt/apt.conf" install --simulate --no-install-recommends \
        pgbouncer | awk '$1 == "Inst" { print $2 }' | grep -E '^(pgbouncer$|lib)' |
        grep -Ev 'perl|modules')
    # shellcheck disable=SC2086 - the names are to be split
    (cd "$2" && apt-get --config-file="$apt/apt.conf" download --quiet=2 $packages)
    rm -rf "$apt"
}

unpack() { # DIRECTORY: its packages into it, and what starts PgBouncer wherever that is copied to
    local package loader triplet
    for package in "$1"/*.deb; do
        dpkg-deb --extract "$package" "$1"
    done
    rm -rf "$1"/*.deb "$1"/usr/share "$1"/usr/lib/*/gconv
    loader=$(cd "$1" && find . -name 'ld-linux*.so.*' -type f -printf '%P')
    triplet=$(basename "$(dirname "$loader")")
    cat >"$1/pgbouncer" <<EOF
#!/bin/sh
tree=\$(dirname "\$(readlink -f "\$0")")
exec "\$tree/$loader" --library-path "\$tree/lib/$triplet:\$tree/usr/lib/$triplet" \\
    "\$tree/usr/sbin/pgbouncer" "\$@"
EOF
    chmod +x "$1/pgbouncer"
}

fetch() { # RELEASE
    [ -x "$cache/$1/pgbouncer" ] && return
    rm -rf "$cache/$1" "$cache/$1.new"
    mkdir -p "$cache/$1.new"
    download "$1" "$cache/$1.new"
    unpack "$cache/$1.new"
    "$cache/$1.new/pgbouncer" --version | sed -n 1p
    mv "$cache/$1.new" "$cache/$1"
}

[ $# -gt 0 ] || die 'which releases of Debian?'
programs=()
for release in "$@"; do
    fetch "$release" >&2
    programs+=("$cache/$release/pgbouncer")
done
(IFS=: && echo "${programs[*]}")
