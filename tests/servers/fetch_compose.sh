#!/usr/bin/env bash
# Docker's compose command, which checks a file without a daemon, as .cache/compose/docker-compose.
#
# Nothing is installed and no root is needed: it comes from Debian's trixie, as bookworm's is another.
set -euo pipefail
cd "$(dirname "$0")/../.."

cache="$PWD/.cache/compose"
. tests/servers/apt.sh

die() { echo "fetch_compose: $*" >&2; exit 1; }

[ -x "$cache/docker-compose" ] && exit
rm -rf "$cache"
make_apt trixie "$cache/apt"
(cd "$cache" && apt-get --config-file="$cache/apt/apt.conf" download --quiet=2 docker-compose)
dpkg-deb --extract "$cache"/*.deb "$cache/tree"
mv "$cache/tree/usr/libexec/docker/cli-plugins/docker-compose" "$cache/docker-compose"
rm -rf "$cache/apt" "$cache/tree" "$cache"/*.deb
"$cache/docker-compose" version
