#!/usr/bin/env bash
# PostgreSQL 17 and the Python side of one service, on one machine. docs/install.md describes it.
#
# A run goes through STEPS. Each do_STEP looks at what is there and makes what is missing. Before it
# makes something it notes that, in memory and in a record below $state; undo_STEP is given the note
# and removes exactly this. A failed run undoes its own notes, --uninstall those of the record.
set -euo pipefail
shopt -s inherit_errexit
umask 077

STEPS=(
    # of the machine: all services share it
    repository     # PostgreSQL's own repository, where the distribution has no 17
    packages       # the server, and a Python that can make environments
    cluster        # the data directory, and a server that runs
    tuning         # conf.d/penstock.conf
    # of the service
    authentication # the role's lines in pg_hba.conf
    role           # may log in and nothing else
    database       # the role's, and closed to others
    account        # the user that the service runs as
    environment    # /etc/penstock/NAME.env, with DATABASE_URL
    python         # /opt/penstock/NAME, a virtual environment
)
OF_THE_MACHINE=' repository packages cluster tuning '
OF_THE_CLUSTER=' tuning authentication role database '
PURGED=' repository packages cluster role database ' # stay without --purge

version=17
state=/var/lib/penstock
notes=()        # what this run has to undo if it fails: "STEP ARGUMENT..."
changes=0       # commands that changed something
work=''         # a private directory, for earlier states of files
step=''         # the one that runs

say() { printf '%s\n' "$*"; }
die() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }
refuse() { printf 'install.sh: %s\n' "$*" >&2; exit 2; }

usage() {
    cat <<'END'
Usage: install.sh [OPTION...] [DB_NAME] [DB_USER] [DB_PASSWORD] [APP_USER]

Installs and tunes PostgreSQL 17, makes a database and its role, and a virtual environment with
Penstock, and verifies all of it. A failure undoes what the run did; a second run changes nothing.

  DB_NAME      users            the database; names the virtual environment and its file, too
  DB_USER      DB_NAME_service  the role that owns it
  DB_PASSWORD  at random        as an argument it is in the list of processes while this runs; better:
                                PENSTOCK_DB_PASSWORD in the environment, or --password-file
  APP_USER     DB_USER          the system user that the service runs as

  --password-file FILE  read the password from a file; - is standard input
  --package SPEC        what pip installs: a requirement, or a path to a wheel or a checkout;
                        penstock[cli,fastapi,prometheus] by default
  --memory MB           tune for so much memory instead of the machine's
  --createdb            the role may create databases
  --dry-run             print every command and change nothing
  --uninstall           remove what was made for DB_NAME; its data, role and server stay
  --purge               with --uninstall: remove these, too
  --yes                 with --uninstall: do not ask
  --help                show this
  --                    what follows are arguments, such as a password that begins with -

Examples:
  sudo ./install.sh
  sudo ./install.sh --dry-run shop
  sudo ./install.sh --password-file secret --package 'penstock[fastapi]==0.1.*' shop shop '' shop
  sudo ./install.sh --uninstall --purge shop
END
}

# == What is asked for

parse() {
    local words=() password_file=''
    package='penstock[cli,fastapi,prometheus]' memory='' createdb='' dry_run='' uninstall='' purge='' yes=''
    while [ $# -gt 0 ]; do
        case $1 in
        --help) usage && exit ;;
        --createdb) createdb=yes ;;
        --dry-run) dry_run=yes ;;
        --uninstall) uninstall=yes ;;
        --purge) purge=yes ;;
        --yes) yes=yes ;;
        --package | --memory | --password-file)
            [ $# -gt 1 ] || refuse "$1 needs a value; see --help"
            case $1 in --package) package=$2 ;; --memory) memory=$2 ;; *) password_file=$2 ;; esac
            shift ;;
        --) shift && words+=("$@") && break ;;
        -*) refuse "there is no option $1; see --help, and put -- before arguments that begin with -" ;;
        *) words+=("$1") ;;
        esac
        shift
    done
    [ ${#words[@]} -le 4 ] || refuse "${#words[@]} arguments; there are four: DB_NAME DB_USER DB_PASSWORD APP_USER"
    name=${words[0]:-users}
    role=${words[1]:-${name}_service}
    account=${words[3]:-$role}
    password=${words[2]:-${PENSTOCK_DB_PASSWORD-}}
    [ -z "$password_file" ] || read_password "$password_file"
    # No child needs them; libpq, Python and pip would take the others into account.
    unset PENSTOCK_DB_PASSWORD "${!PG@}" "${!PYTHON@}" PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER PIP_DRY_RUN
    export LC_ALL=C PGCLIENTENCODING=UTF8 DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1
    PATH+=:/usr/local/sbin:/usr/sbin:/sbin # su has the user's
}

read_password() { # FILE; the line's end is not part of it
    local file=$1
    [ "$file" != - ] || file=/dev/stdin
    [ -r "$file" ] || refuse "--password-file $1: there is no such file to read"
    ! IFS= read -r -d '' password <"$file" || refuse "--password-file $1: a password cannot have a NUL"
    password=${password%$'\n'}
    [ -n "$password" ] || refuse "--password-file $1: it is empty"
}

check() {
    local rule='letters (a to z), digits, _ and -, the first a letter or _' path=${package%%\[*}
    [[ $name =~ ^[A-Za-z_][A-Za-z0-9_-]{0,62}$ ]] || refuse "DB_NAME '$name': 1 to 63 $rule"
    [[ $name != postgres && $name != template[01] ]] || refuse "DB_NAME '$name': it is the server's own"
    [[ $role =~ ^[A-Za-z_][A-Za-z0-9_-]{0,62}$ ]] || refuse "DB_USER '$role': 1 to 63 $rule"
    [[ $role != postgres && $role != public && $role != none && $role != pg_* ]] ||
        refuse "DB_USER '$role': it is the server's own"
    [[ $account =~ ^[a-z_][a-z0-9_-]{0,31}$ ]] || refuse "APP_USER '$account': 1 to 32 small $rule"
    [[ $account != root && $account != postgres ]] || refuse "APP_USER '$account': the service needs no such rights"
    [[ $memory =~ ^([1-9][0-9]{2,6})?$ ]] || refuse "--memory '$memory': MB, between 100 and 9999999"
    [[ $package =~ ^[A-Za-z0-9./~_] && $package != *$'\n'* ]] || refuse "--package '$package': a requirement or a path"
    [ -z "$purge" ] || [ -n "$uninstall" ] || refuse '--purge belongs to --uninstall'
    printf %s "$password" | iconv -f UTF-8 -t UTF-8 >/dev/null 2>&1 || refuse 'the password is not valid UTF-8'
    [ ${#password} -le 1024 ] || refuse 'the password is longer than 1024 bytes'
    [ "$(id -u)" -eq 0 ] || refuse 'it needs root: sudo ./install.sh'
    [ ! -e "$path" ] || package=$(realpath "$path")${package#"$path"}
    venv=/opt/penstock/$name env_file=/etc/penstock/$name.env
}

# == The system

detect() {
    # shellcheck disable=SC1091 # the system's own
    read -r id release codename like < <(
        . /etc/os-release
        say "${ID-} ${VERSION_ID:-0} ${DEBIAN_CODENAME:-${UBUNTU_CODENAME:-${VERSION_CODENAME:-none}}} ${ID_LIKE-}"
    )
    python=/usr/bin/python3 packages=() has_own=''
    case " $id $like " in
    ' amzn '*) detect_amazon ;;
    ' fedora '*) detect_fedora ;;
    *' rhel '* | *' centos '* | ' ol '*) detect_rhel ;;
    *' debian '* | *' ubuntu '*) detect_debian ;;
    *) die "'$id' is not supported: Debian, Ubuntu, RHEL and its rebuilds, Fedora, Amazon Linux 2023 are" ;;
    esac
    [ $manager = apt ] || conf=$data
}

detect_debian() {
    manager=apt unit=postgresql@$version-main
    bin=/usr/lib/postgresql/$version/bin data=/var/lib/postgresql/$version/main conf=/etc/postgresql/$version/main
    case $codename in
    none | buster | bullseye | bionic | focal) die "$id $release: Penstock needs Python 3.11 or newer" ;;
    trixie | plucky | questing) has_own=yes ;;
    jammy) python=/usr/bin/python3.11 ;;
    esac
    packages=("postgresql-$version" "${python#/usr/bin/}-venv")
    [ ! -e "$conf/postgresql.conf" ] || [ ! -x /usr/bin/pg_conftool ] || data=$(pg_conftool -s "$version" main show data_directory)
}

detect_rhel() {
    manager=dnf major=${release%%.*}
    [ "$major" -ge 10 ] || python=/usr/bin/python3.12
    of_the_project
}

detect_fedora() {
    manager=dnf
    if [ ! -e "/usr/pgsql-$version" ] &&
        { is_installed "postgresql$version-server" || dnf -q list "postgresql$version-server" >/dev/null 2>&1; }; then
        of_the_distribution
    else
        of_the_project
    fi
}

detect_amazon() {
    [[ $release == 2023* ]] || die "Amazon Linux $release: Amazon Linux 2023 is supported"
    manager=dnf python=/usr/bin/python3.11
    of_the_distribution
}

of_the_project() { # as PostgreSQL's RPMs lay things out
    bin=/usr/pgsql-$version/bin data=/var/lib/pgsql/$version/data unit=postgresql-$version
    # A container's image may be without the last three, which have runuser, useradd and find.
    packages=("postgresql$version-server" "${python#/usr/bin/}" util-linux shadow-utils findutils)
}

of_the_distribution() { # as the RPMs of Fedora and Amazon lay things out
    of_the_project
    bin=/usr/bin data=/var/lib/pgsql/data unit=postgresql has_own=yes
}

has_systemd() { [ -d /run/systemd/system ]; }

control() { # start, stop, reload or restart
    if has_systemd && [ "$1" = start ]; then
        run systemctl enable --now "$unit"
    elif has_systemd; then
        run systemctl "$1" "$unit"
    elif [ $manager = apt ]; then
        run pg_ctlcluster "$version" main "$1"
    else
        # For the socket; systemd makes it anew at each boot.
        [ "$1" != start ] || [ -d /run/postgresql ] || run install -d -o postgres -g postgres -m 755 /run/postgresql
        run runuser -u postgres -- "$bin/pg_ctl" -s -w -D "$data" -l "$data/pg_ctl.log" "$1" ||
            { tail -n 5 "$data/pg_ctl.log" >&2 && return 1; }
    fi
}

# == Commands and notes

shown() { printf '+ '; printf '%q ' "$@" | sed 's/ $//'; printf '\n'; }

run() { # a command that changes something
    changes=$((changes + 1))
    if [ -n "$dry_run" ]; then shown "$@"; else quietly "$@"; fi
}

quietly() { # its output counts where it fails; the lock on 9 is not for a server to keep
    "$@" >"$work/output" 2>&1 9>&- || { cat "$work/output" >&2 && return 1; }
}

feed() { # INPUT COMMAND...: a command that changes something and reads INPUT
    changes=$((changes + 1))
    if [ -z "$dry_run" ]; then
        printf '%s\n' "$1" | quietly "${@:2}"
    else
        local text=${1//"$(quoted "$password")"/"'***'"}
        shown "${@:2}"
        printf '%s\n' "${text//":$(encoded "$password")@"/:***@}" | sed 's/^/| /'
    fi
}

query() { # SQL [DATABASE]: what it answers; nothing where a dry run finds no server
    [ -z "$dry_run" ] || server_runs || return 0
    printf '%s\n' "$1" | runuser -u postgres -- "$bin/psql" -XAtq -v ON_ERROR_STOP=1 -p "$port" -d "${2:-postgres}"
}

sql() { # STATEMENT [DATABASE]; the options keep a password out of the server's log and statistics
    feed "$1" runuser -u postgres -- env PGOPTIONS="-c log_statement=none -c log_min_duration_statement=-1 \
-c log_min_error_statement=panic -c pg_stat_statements.track_utility=off -c client_min_messages=warning" \
        "$bin/psql" -XAtq -v ON_ERROR_STOP=1 -p "$port" -d "${2:-postgres}"
}

find_port() {
    [ ! -e "$conf/postgresql.conf" ] || [ ! -x "$bin/postgres" ] || port=$(runuser -u postgres -- "$bin/postgres" -D "$conf" -C port)
}

server_runs() { runuser -u postgres -- "$bin/pg_ctl" -D "$data" status >/dev/null 2>&1; }

quoted() { printf "'%s'" "${1//\'/\'\'}"; }

encoded() { # as in a URL
    local i character
    for ((i = 0; i < ${#1}; i++)); do
        character=${1:i:1}
        [[ $character == [A-Za-z0-9_.~-] ]] || printf -v character '%%%02X' $(($(printf '%d' "'$character") & 255))
        printf %s "$character"
    done
}

record_of() { # STEP
    if [[ $OF_THE_MACHINE == *" $1 "* ]]; then say "$state/machine"; else say "$state/$name.service"; fi
}

note() { note_change "$@" && record "$@"; } # STEP ARGUMENT...: what is about to be made

note_change() { notes+=("$*"); } # STEP ARGUMENT...: what is about to change, for a failed run to put back

record() {
    [ -z "$dry_run" ] || return 0
    [ -d $state ] || mkdir -m 700 $state
    grep -qsxF -e "$*" "$(record_of "$1")" || say "$*" >>"$(record_of "$1")"
}

undo() { # NOTE
    local words file
    read -ra words <<<"$1"
    file=$(record_of "${words[0]}")
    # What was in a cluster went with it.
    [[ $OF_THE_CLUSTER == *" ${words[0]} "* && ! -e $data/PG_VERSION ]] || "undo_${words[0]}" "${words[@]:1}" || return
    [ -n "$dry_run" ] || ! grep -qsxF -e "$1" "$file" || forget "$1" "$file"
}

forget() { # NOTE RECORD
    grep -vxF -e "$1" "$2" >"$2.new" || [ $? -eq 1 ] || { rm -f "$2.new" && return 1; } # 1: it is the last
    if [ -s "$2.new" ]; then mv "$2.new" "$2"; else rm "$2" "$2.new"; fi
}

put() { # STEP FILE MODE CONTENT: a file of root's
    [ ! -e "$2" ] || [ "$(stat -c '%a %U' "$2") $(cat "$2")" != "${3#0} root $4" ] || return 0
    if [ -e "$2" ]; then
        local earlier=$work/${#notes[@]}
        cp -a "$2" "$earlier"
        note_change "$1" "$2" "$earlier"
    else
        note "$1" "$2"
    fi
    feed "$4" install -D -m "$3" /dev/stdin "$2"
}

put_back() { # FILE [EARLIER]
    if [ $# -eq 2 ]; then run cp -a "$2" "$1"; else run rm -f "$1"; fi
}

# == The machine: repository, packages, cluster, tuning

do_repository() {
    [ -z "$has_own" ] && ! is_installed "${packages[0]}" || return 0
    case $manager in
    apt) apt_repository ;;
    dnf) dnf_repository ;;
    esac
}

apt_repository() {
    local key=/usr/share/keyrings/postgresql.asc list=/etc/apt/sources.list.d/postgresql.sources
    [ ! -e /etc/apt/sources.list.d/pgdg.list ] && [ ! -e /etc/apt/sources.list.d/pgdg.sources ] || return 0
    [ ! -e $list ] || return 0
    install_packages ca-certificates curl
    [ -e $key ] || note repository $key
    run curl -fsSL --proto =https -o $key https://www.postgresql.org/media/keys/ACCC4CF8.asc
    put repository $list 0644 "Types: deb
URIs: https://apt.postgresql.org/pub/repos/apt
Suites: $codename-pgdg
Components: main
Signed-By: $key"
}

dnf_repository() {
    local repository=pgdg-redhat-repo distribution=EL-${major-}
    [ "$id" != fedora ] || { repository=pgdg-fedora-repo distribution=F-$release; }
    is_installed $repository || {
        note repository $repository
        run dnf install -y -q "https://download.postgresql.org/pub/repos/yum/reporpms/$distribution-$(uname -m)/$repository-latest.noarch.rpm"
    }
    # Until 10 the distribution's module hides what other repositories have of the same name.
    [ "${major:-10}" -ge 10 ] || {
        note repository module
        run dnf -qy module disable postgresql
    }
}

undo_repository() {
    case $1 in
    /*) put_back "$@" ;;
    module) run dnf -qy module reset postgresql ;;
    *) run dnf remove -y -q "$1" ;;
    esac
}

is_installed() {
    case $manager in
    apt) [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ] ;;
    dnf) rpm -q --quiet "$1" ;;
    esac
}

inventory() { # packages, and the accounts that they make
    case $manager in
    apt) dpkg-query -W -f '${db:Status-Status} package:${Package}\n' | sed -nE '/^(config-files|not-installed) /!s/^\S+ //p' ;;
    dnf) rpm -qa --qf 'package:%{NAME}\n' ;;
    esac
    getent passwd | sed 's/:.*//; s/^/user:/'
    getent group | sed 's/:.*//; s/^/group:/'
}

made_since() { inventory | sort -u | comm -13 "$1" -; } # INVENTORY

do_packages() { install_packages "${packages[@]}"; }

install_packages() { # PACKAGE...: those that are missing
    local each missing=() before=$work/${#notes[@]} made
    for each; do is_installed "$each" || missing+=("$each"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    inventory | sort -u >"$before"
    note_change packages "$before"
    case $manager in
    apt)
        [ -z "$(ls /var/lib/dpkg/updates)" ] || run dpkg --configure -a # dpkg was killed
        run apt-get update -qq
        run apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 "${missing[@]}"
        ;;
    dnf) run dnf install -y -q "${missing[@]}" ;;
    esac
    [ -z "$dry_run" ] || return 0
    mapfile -t made < <(made_since "$before")
    notes[-1]="packages ${made[*]}"
    record packages "${made[@]}"
}

undo_packages() { # PACKAGE..., with user:NAME and group:NAME; or the inventory before an installation that failed
    local made=("$@") gone=() each
    [[ $1 != /* ]] || mapfile -t made < <(made_since "$1")
    if [ -z "$dry_run" ] && [ -e "$data/PG_VERSION" ]; then # to purge the server's package would remove it, too
        [ -z "$cluster_was_there" ] || { say "The packages stay: $data is in use." >&2 && return 1; }
        drop_cluster
    fi
    for each in "${made[@]}"; do [[ $each != package:* ]] || gone+=("${each#*:}"); done
    case $manager in
    apt) [ ${#gone[@]} -eq 0 ] || run apt-get purge -y -qq "${gone[@]}" || return ;;
    dnf) [ ${#gone[@]} -eq 0 ] || run dnf remove -y -q --noautoremove "${gone[@]}" || return ;;
    esac
    for each in "${made[@]}"; do
        [[ $each != user:* ]] || ! getent passwd "${each#*:}" >/dev/null || run userdel "${each#*:}"
    done
    for each in "${made[@]}"; do
        [[ $each != group:* ]] || ! getent group "${each#*:}" >/dev/null || run groupdel "${each#*:}"
    done
}

do_cluster() {
    if [ -z "$cluster_was_there" ]; then
        note cluster
        [ -e "$data/PG_VERSION" ] || make_cluster # Debian's package makes it
    fi
    find_port
    server_runs || {
        [ -z "$cluster_was_there" ] || note_change cluster stop
        control start
    }
}

make_cluster() {
    case $manager in
    apt) run pg_createcluster --locale C.UTF-8 "$version" main ;;
    dnf)
        run runuser -u postgres -- "$bin/initdb" -D "$data" --locale=C.UTF-8 --encoding=UTF8 \
            --auth-local=peer --auth-host=scram-sha-256
        ;;
    esac
}

undo_cluster() { # [stop]
    local others=''
    [ "${1-}" != stop ] || { control stop && return 0; } # a bare one has the status before the trap
    [ -z "$cluster_was_there" ] || others=$(query "SELECT string_agg(datname, ', ') FROM pg_database
        WHERE NOT datistemplate AND datname NOT IN ('postgres', '${dry_run:+$name}')") || return
    [ -z "$others" ] || { say "The server stays: it has other databases ($others)." >&2 && return 1; }
    drop_cluster
}

drop_cluster() {
    ! server_runs || control stop || return
    ! has_systemd || run systemctl disable "$unit"
    case $manager in
    apt) [ ! -e "$conf" ] || run pg_dropcluster "$version" main ;;
    dnf) run rm -rf "$data" ;;
    esac
}

settings() {
    local memory=${memory:-$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)} scale
    scale=$(((memory + 2048) / 4096)) # 1 at 4 GB
    [ $scale -ge 1 ] || scale=1
    cat <<END
max_connections = 200
shared_buffers = $(size $((256 * scale)))
effective_cache_size = $(size $((1024 * scale)))
maintenance_work_mem = $(size $((scale < 32 ? 64 * scale : 2048)))
checkpoint_completion_target = 0.9
wal_buffers = 16MB
default_statistics_target = 100
random_page_cost = 1.1
effective_io_concurrency = 200
work_mem = $(size $((4 * scale)))
min_wal_size = 1GB
max_wal_size = 4GB
password_encryption = scram-sha-256
END
}

size() { if (($1 % 1024)); then say "$1MB"; else say "$(($1 / 1024))GB"; fi; } # MB; as SHOW has it

settings_not_in_force() {
    query "SELECT string_agg(format('%s is %s instead of %s, by %s', name, current_setting(name), value,
                                    coalesce(sourcefile, source)), '; ')
           FROM pg_settings JOIN (VALUES $(settings | sed "s/\(.*\) = \(.*\)/('\1', '\2')/" | paste -sd,)) AS _ (name, value)
           USING (name) WHERE current_setting(name) <> value AND NOT EXISTS ( -- unless something later has it otherwise
               SELECT FROM pg_file_settings AS here WHERE here.name = pg_settings.name
               AND here.sourcefile LIKE '%/conf.d/penstock.conf' AND NOT applied AND error IS NULL)"
}

do_tuning() {
    local before=$changes
    grep -Eqs "^\s*include_dir\s*=?\s*'conf.d'" "$conf/postgresql.conf" || include_fragments
    put tuning "$conf/conf.d/penstock.conf" 0644 "# By install.sh, which overwrites it: what comes later in the alphabet wins.
$(settings)"
    if [ "$changes" -gt "$before" ] || [ -n "$(settings_not_in_force)" ]; then apply_settings; fi
}

include_fragments() { # Debian's postgresql.conf does so itself
    [ $manager != apt ] || return 0
    note tuning include
    run install -d -o postgres -g postgres -m 700 "$conf/conf.d"
    run sed -i "\$a include_dir = 'conf.d' # penstock" "$conf/postgresql.conf"
}

apply_settings() { # restarts where something needs it
    if [ -n "$dry_run" ]; then control restart && return; fi
    server_runs || return 0
    reload
    [ "$(query 'SELECT count(*) FROM pg_settings WHERE pending_restart')" = 0 ] || control restart
}

reload() { # and wait until new sessions go by it
    local before i
    if [ -n "$dry_run" ]; then control reload && return; fi
    before=$(query 'SELECT pg_conf_load_time()')
    control reload
    for ((i = 0; i < 100; i++)); do
        [ "$(query 'SELECT pg_conf_load_time()')" = "$before" ] || return 0
        sleep 0.05
    done
    say 'install.sh: the server has not read its configuration again' >&2
    return 1
}

undo_tuning() { # include, or FILE [EARLIER]
    if [ "$1" = include ]; then
        run sed -i '/# penstock$/d' "$conf/postgresql.conf"
        run rmdir --ignore-fail-on-non-empty "$conf/conf.d"
    else
        put_back "$@" || return
        [ -z "$cluster_was_there" ] || apply_settings # else the server goes next
    fi
}

# == The service: authentication, role, database, account, environment, python

do_authentication() {
    local lines="# penstock $name: by install.sh
host \"$name\" \"$role\" 127.0.0.1/32 scram-sha-256
host \"$name\" \"$role\" ::1/128 scram-sha-256
# penstock $name: end"
    ! grep -qsFx "# penstock $name: by install.sh" "$conf/pg_hba.conf" || return 0
    note authentication
    feed "$lines" sed -i '1e cat' "$conf/pg_hba.conf" # before what is there: the first match counts
    reload
}

undo_authentication() {
    run sed -i "/^# penstock $name: by/,/^# penstock $name: end/d" "$conf/pg_hba.conf" || return
    [ -z "$cluster_was_there" ] || ! server_runs || reload
}

url() { printf 'postgresql://%s:%s@127.0.0.1:%s/%s' "$role" "$(encoded "$password")" "$port" "$name"; }

logs_in() { # as the service does: over TCP, by SCRAM
    [ "$(query "\\connect '$(url)'
SELECT system_user" 2>"$work/login")" = "scram-sha-256:$role" ]
}

choose_password() { # the given one, else that of an earlier run, else one at random
    local earlier
    [ -z "$password" ] || return 0
    earlier=$(sed -nE 's,^DATABASE_URL=postgresql://[^:]+:([^@]*)@.*,\1,p' "$env_file" 2>/dev/null) || true
    printf -v password '%b' "${earlier//%/\\x}"
    [ -z "$password" ] || return 0
    grep -qsFx "role made $role" "$(record_of role)" || [ -z "$(query "$role_exists")" ] ||
        die "the role $role is there already: give its password, or another DB_USER"
    password=$(head -c 24 /dev/urandom | base64 | tr '+/' '-_')
}

do_role() {
    local may=NOCREATEDB old
    [ -z "$createdb" ] || may=CREATEDB
    role_exists="SELECT CASE WHEN rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END
        || CASE WHEN rolsuper OR rolcreaterole OR rolreplication OR rolbypassrls THEN ' POWERFUL' ELSE '' END
        FROM pg_roles WHERE rolname = '$role'"
    choose_password
    old=$(query "$role_exists")
    case $old in
    '')
        note role made "$role"
        sql "CREATE ROLE \"$role\" LOGIN NOSUPERUSER $may NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD $(quoted "$password");"
        return
        ;;
    *POWERFUL) die "the role $role may more than a service needs (SUPERUSER, CREATEROLE, REPLICATION or BYPASSRLS): name another" ;;
    "$may") ;;
    *)
        note_change role "$old"
        sql "ALTER ROLE \"$role\" $may;"
        ;;
    esac
    logs_in || {
        note_change role password "$(query "SELECT quote_nullable(rolpassword) FROM pg_authid WHERE rolname = '$role'")"
        sql "ALTER ROLE \"$role\" LOGIN PASSWORD $(quoted "$password");"
    }
}

undo_role() { # made ROLE, password VERIFIER, or CREATEDB and NOCREATEDB
    case $1 in
    made) sql "DROP ROLE IF EXISTS \"$2\";" ;;
    password) sql "ALTER ROLE \"$role\" PASSWORD $2;" ;;
    *) sql "ALTER ROLE \"$role\" $1;" ;;
    esac
}

do_database() {
    local owner
    owner=$(query "SELECT rolname FROM pg_database JOIN pg_roles ON pg_roles.oid = datdba WHERE datname = '$name'")
    [ -z "$owner" ] || [ "$owner" = "$role" ] || die "the database $name belongs to $owner: name another, or make $role its owner"
    if [ -z "$owner" ]; then
        note database made
        # The server's own locale sorts the same with any C library, so that an upgrade of the system breaks no index.
        sql "CREATE DATABASE \"$name\" OWNER \"$role\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'
    LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8';"
    elif [ "$(query "SELECT has_schema_privilege('public', 'public', 'CREATE')" "$name")" = t ]; then
        note_change database public # as before PostgreSQL 15
        sql 'REVOKE CREATE ON SCHEMA public FROM PUBLIC;' "$name"
    fi
    # An interrupted run may have left it open.
    [ "$(query "SELECT has_database_privilege('public', oid, 'CONNECT') FROM pg_database WHERE datname = '$name'")" = f ] || {
        [ -z "$owner" ] || note_change database open
        sql "REVOKE ALL ON DATABASE \"$name\" FROM PUBLIC;"
    }
}

undo_database() { # made, public or open
    case $1 in
    made) sql "DROP DATABASE IF EXISTS \"$name\" WITH (FORCE);" ;;
    public) sql 'GRANT CREATE ON SCHEMA public TO PUBLIC;' "$name" ;;
    open) sql "GRANT CONNECT, TEMPORARY ON DATABASE \"$name\" TO PUBLIC;" ;;
    esac
}

do_account() {
    local uid
    uid=$(id -u "$account" 2>/dev/null) || uid=''
    [ "$uid" != 0 ] || die "the user $account has root's rights: name another"
    [ -z "$uid" ] || return 0
    note account "$account"
    run useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$account"
}

undo_account() { ! getent passwd "$1" >/dev/null || run userdel "$1"; }

do_environment() {
    put environment "$env_file" 0600 "# By install.sh, which overwrites it; for systemd's EnvironmentFile=, of which a unit may have several
DATABASE_URL=$(url)
ENVIRONMENT=production"
}

undo_environment() { put_back "$@"; }

package_digest() { # of the files that a path names, so that a changed one is installed
    local path=${package%%\[*}
    [ ! -e "$path" ] || find "$path" -name '.?*' -prune -o -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-64
}

do_python() {
    local wanted
    wanted="$package $(package_digest)"
    [ "$(cat "$venv/package" 2>/dev/null)" != "$wanted" ] || ! "$venv/bin/python" -c '' 2>/dev/null || return 0
    [ -n "$dry_run" ] || "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die 'Penstock needs Python 3.11 or newer'
    if [ -e "$venv" ]; then
        note_change python "$venv.old"
        run mv "$venv" "$venv.old"
    else
        note python made
    fi
    run "$python" -m venv "$venv"
    run "$venv/bin/python" -m pip install --quiet "$package"
    feed "$wanted" install -m 0600 /dev/stdin "$venv/package" # a URL may have a password
}

undo_python() { # made, or where the earlier one is
    run rm -rf "$venv" || return
    [ ! -e "$1" ] || run mv "$1" "$venv"
}

# == Verification, rollback, removal

verify() {
    local wrong
    wrong=$(settings_not_in_force)
    [ -z "$wrong" ] || die "settings are not in force: $wrong"
    logs_in || die "$role cannot log in over TCP by SCRAM: $(cat "$work/login")"
    quietly runuser -u "$account" -- "$venv/bin/python" -I -c '
import asyncio, os, sys
from sqlalchemy import text
from penstock import Database

os.environ.update(line.rstrip("\n").split("=", 1) for line in sys.stdin if line[0] != "#")

async def ask():
    async with Database.from_environment() as database, database.read() as session:
        await session.execute(text("SELECT 1"))

asyncio.run(ask())' <"$env_file" || die "the service's user $account cannot reach the database through Penstock"
}

roll_back() {
    local i
    say "install.sh: the step $step failed; undoing this run" >&2
    for ((i = ${#notes[@]} - 1; i >= 0; i--)); do
        undo "${notes[i]}" >&2 || say "install.sh: not undone: ${notes[i]%% \'*}" >&2
    done
}

on_exit() {
    local status=$? directory
    trap '' INT TERM HUP
    set +e
    if [ "$status" -ne 0 ] && [ -z "$dry_run" ]; then
        [ ${#notes[@]} -eq 0 ] || roll_back
    elif [ -e "$venv.old" ]; then
        run rm -rf "$venv.old"
    fi
    for directory in $state /etc/penstock /opt/penstock; do
        [ ! -d "$directory" ] || rmdir --ignore-fail-on-non-empty "$directory"
    done
    rm -rf "$work"
    trap - EXIT
    exit "$status"
}

install_all() {
    local before
    for step in "${STEPS[@]}"; do
        before=$changes
        "do_$step"
        if [ "$changes" -gt "$before" ]; then before="done"; else before='nothing to do'; fi
        [ -n "$dry_run" ] || say "$step: $before"
    done
    [ -z "$dry_run" ] || { say "Nothing was changed; a run would be the $changes commands above." && return; }
    step=verification
    verify
    say 'verification: passed'
    summary
}

summary() {
    [ "$changes" -gt 0 ] || say 'Nothing was changed: all of it was there.'
    cat <<END

PostgreSQL   $(query 'SHOW server_version') on 127.0.0.1:$port, data in $data
tuning       $conf/conf.d/penstock.conf
database     $name, owned by the role $role, which logs in by SCRAM
environment  $env_file, for root alone; it has the password
Python       $venv, $("$venv/bin/python" --version)
service      runs as $account; in a systemd unit:
               User=$account
               EnvironmentFile=$env_file
               ExecStart=$venv/bin/...
END
}

uninstall_all() {
    local records=() file kept=0
    [ -e "$(record_of role)" ] || { [ -n "$purge" ] && [ -e $state/machine ] && ! is_shared; } ||
        die "install.sh has made nothing for $name here"
    confirm
    [ -z "$purge" ] || [ -z "$cluster_was_there" ] || server_runs || control start
    for file in "$state/$name.service" "$state/machine"; do
        [ -e "$file" ] || continue
        [ "$file" != $state/machine ] || ! is_shared || { say "The server stays: other services use it." && continue; }
        mapfile -t records < <(tac "$file")
        for record in "${records[@]}"; do
            step=${record%% *}
            if [ -z "$purge" ] && [[ $PURGED == *" $step "* ]]; then kept=$((kept + 1)) && continue; fi
            undo "$record"
            [ -n "$dry_run" ] || say "$step: removed"
        done
    done
    [ $kept -eq 0 ] || say "The database $name, its role and the server stay; --purge removes them."
}

is_shared() { compgen -G "$state/*.service" | grep -vxF -e "$state/$name.service" >/dev/null; } # with another service

confirm() {
    local answer='' what="what install.sh made for $name"
    [ -z "$yes$dry_run" ] || return 0
    [ -t 0 ] || refuse '--uninstall asks on a terminal; give --yes where there is none'
    [ -z "$purge" ] || what+=', AND ITS DATA'
    read -r -p "Remove $what? [y/N] " answer
    [[ $answer == [Yy]* ]] || die 'nothing was removed'
}

main() {
    parse "$@"
    check
    detect
    work=$(mktemp -d) cluster_was_there='' port=5432
    [ ! -e "$data/PG_VERSION" ] || { cluster_was_there=yes && find_port; }
    cd /
    trap on_exit EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    exec 9>/run/penstock-install.lock # for nobody else to lock
    umask 022
    ! command -v flock >/dev/null || flock -n 9 || die 'another install.sh is running' # an image may have none yet
    if [ -n "$uninstall" ]; then uninstall_all; else install_all; fi
}

main "$@"
