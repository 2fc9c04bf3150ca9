# To be sourced, by a script that has a `die`: packages of Debian's releases without root, by apt with
# a state of its own. They come from the mirror that this system's own packages come from, with
# signatures and checksums checked as always.

mirror() {
    . /etc/os-release
    apt-get indextargets --no-release-info --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' \
        'Created-By: Packages' |
        awk -v release="${VERSION_CODENAME:-}" '$1 == release && $2 == "main" && !n++ { print $3 }'
}

make_apt() { # RELEASE DIRECTORY: apt.conf there, of a system with no package installed
    local keys=/usr/share/keyrings/debian-archive-keyring.gpg uri
    uri=$(mirror)
    [ -n "$uri" ] || die 'no source of apt names this release of Debian, to take the mirror from'
    mkdir -p "$2/lists/partial" "$2/archives/partial"
    : >"$2/status"
    echo "deb [signed-by=$keys] $uri $1 main" >"$2/sources.list"
    cat >"$2/apt.conf" <<EOF
Dir::Etc { SourceList "$2/sources.list"; SourceParts "/dev/null"; };
Dir::Etc { Preferences "/dev/null"; PreferencesParts "/dev/null"; };
Dir::State "$2";
Dir::State::status "$2/status";
Dir::Cache "$2";
Acquire::Languages "none";
APT::Sandbox::User "$(id --user --name)";
EOF
    apt-get --config-file="$2/apt.conf" update --quiet=2 --error-on=any
}
