"""Everything is installed on a Debian 13, once, and undone wherever it fails."""

import re
from signal import SIGTERM
from typing import NamedTuple

import pytest
from tests.provisioning.conftest import Layers, StartMachine
from tests.provisioning.machine import HERE, Machine, Outcome

pytestmark = [pytest.mark.timeout(900)]

WHEEL = "/source/penstock-0-py3-none-any.whl"
PACKAGE = ["--package", f"{WHEEL}[demo]"]
BASE_VALUES = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "maintenance_work_mem": "64MB",
    "checkpoint_completion_target": "0.9",
    "wal_buffers": "16MB",
    "default_statistics_target": "100",
    "random_page_cost": "1.1",
    "effective_io_concurrency": "200",
    "work_mem": "4MB",
    "min_wal_size": "1GB",
    "max_wal_size": "4GB",
}
NASTY = """ p'a"s\\s;$(id)`id`%41:@/?#é 数\t!*"""

SHIMMED = "apt-get curl install pg_createcluster pg_ctlcluster runuser sed useradd"
SHIM = (HERE / "shim.sh").read_text()
# Besides files: roles with their passwords, and when the server was started.
SERVED = """SELECT rolname, rolpassword, rolcreatedb FROM pg_authid ORDER BY 1;
SELECT pg_postmaster_start_time()"""
ROLES = SERVED.partition(";")[0]
CREATES = "SELECT has_schema_privilege('public', 'public', 'CREATE')"
DATABASES = "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1"


def psql(machine: Machine, statement: str, database: str = "postgres") -> str:
    """What the superuser is answered."""
    command = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-d", database]
    done = machine.run(*command, entering=statement)
    assert not done.status, done.output
    return done.output.strip()


def log_in(machine: Machine, password: str, database: str = "users") -> Outcome:
    """Connect over TCP as the service's role."""
    return machine.run(
        *["psql", "-XAtq", "-h", "127.0.0.1", "-U", "users_service", "-d", database],
        *["-c", "SELECT system_user"],
        environment={"PGPASSWORD": password},
    )


def fail_at(machine: Machine, pattern: str, *arguments: str, signal: str = "") -> Outcome:
    """Run the script so that the first command that matches fails after it has done its work.

    With ``signal``, the script is sent that instead.
    """
    machine.write("/tmp/shims/shim", SHIM, mode=0o755)
    link = f"cd /tmp/shims && for each in {SHIMMED}; do ln -f shim $each; done"
    machine.run("bash", "-c", f"rm -f /tmp/failed; {link}")
    path = "/tmp/shims:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return machine.run(
        "/source/install.sh",
        *arguments,
        environment={"PATH": path, "FAIL_AT": pattern, "SIGNAL": signal},
    )


def test_the_service_runs_on_what_is_installed(running: Machine) -> None:
    served = running.run("bash", "-c", (HERE / "users_service.sh").read_text())

    assert "201 1\n['anna']\n" in served.output


def test_a_second_run_changes_nothing_and_says_so(running: Machine) -> None:
    before = [
        *running.state(),
        psql(running, SERVED),
    ]

    again = running.install(*PACKAGE)

    assert not again.status, again.output
    assert "Nothing was changed" in again.output
    assert "done" not in again.output
    assert [
        *running.state(),
        psql(running, SERVED),
    ] == before
    assert running.install("--dry-run", *PACKAGE).output.startswith("Nothing was changed")
    assert not running.install("--dry-run", "shop").status


def test_the_summary_has_no_password_and_the_file_is_of_root_alone(
    running: Machine, installed: Layers
) -> None:
    variables = running.run("cat", "/etc/penstock/users.env").output
    password = re.search(r"users_service:(\S+)@", variables)

    assert password
    assert len(password[1]) == 32
    assert password[1] not in installed.output
    assert running.run("stat", "-c", "%a %U", "/etc/penstock/users.env").output == "600 root\n"
    assert log_in(running, password[1]).output == "scram-sha-256:users_service\n"
    assert log_in(running, "wrong").status


def test_privileges_are_the_least(running: Machine) -> None:
    rights = "rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolcanlogin"
    psql(running, "CREATE ROLE other LOGIN; CREATE DATABASE others")

    assert (
        psql(running, f"SELECT {rights} FROM pg_roles WHERE rolname = 'users_service'")
        == "f|f|f|f|f|t"
    )
    assert (
        psql(running, "SELECT datdba::regrole FROM pg_database WHERE datname = 'users'")
        == "users_service"
    )
    assert psql(running, "SELECT has_database_privilege('other', 'users', 'CONNECT')") == "f"
    assert psql(running, CREATES, "users") == "f"
    assert (
        psql(running, "SELECT has_schema_privilege('users_service', 'public', 'CREATE')", "users")
        == "t"
    )
    assert running.run("getent", "passwd", "users_service").output.endswith(
        ":/nonexistent:/usr/sbin/nologin\n"
    )
    assert running.run(
        "runuser", "-u", "users_service", "--", "cat", "/etc/penstock/users.env"
    ).status


def test_what_was_opened_is_closed_again(running: Machine) -> None:
    psql(running, "GRANT CONNECT ON DATABASE users TO PUBLIC")
    psql(running, "GRANT CREATE ON SCHEMA public TO PUBLIC", "users")
    running.run("chown", "users_service", "/etc/penstock/users.env")

    done = running.install(*PACKAGE)

    assert not done.status, done.output
    steps = [line for line in done.output.splitlines() if line.endswith("done")]
    assert steps == ["database: done", "environment: done"]
    assert psql(running, "SELECT has_database_privilege('public', 'users', 'CONNECT')") == "f"
    assert psql(running, CREATES, "users") == "f"
    assert running.run("stat", "-c", "%a %U", "/etc/penstock/users.env").output == "600 root\n"
    assert running.run("stat", "-c", "%a", "/opt/penstock/users/package").output == "600\n"


def test_the_callers_environment_does_not_matter(running: Machine) -> None:
    again = running.run(
        *["env", "PATH=/usr/bin:/bin", "PYTHONHOME=/nowhere", "PGHOST=elsewhere"],
        *["/source/install.sh", *PACKAGE],
    )

    assert "Nothing was changed" in again.output


def test_a_new_password_is_applied_in_each_way_whatever_it_consists_of(running: Machine) -> None:
    running.write("/tmp/secret", f"{NASTY}\n", mode=0o600)
    ways: dict[str, tuple[list[str], dict[str, str]]] = {
        "of the environment": ([], {"PENSTOCK_DB_PASSWORD": "of the environment"}),
        "'": (["users", "users_service", "'"], {}),
        NASTY: (["--password-file", "/tmp/secret"], {}),
    }

    for password, (arguments, variables) in ways.items():
        done = running.install(*PACKAGE, *arguments, environment=variables)

        assert not done.status, done.output
        steps = [line for line in done.output.splitlines() if line.endswith("done")]
        assert steps == ["role: done", "environment: done"]
        assert log_in(running, password).output == "scram-sha-256:users_service\n"
    assert "Nothing was changed" in running.install(*PACKAGE).output


def test_a_password_is_in_no_command_and_in_no_log(running: Machine) -> None:
    psql(running, "ALTER SYSTEM SET log_statement = 'all'; SELECT pg_reload_conf()")
    variables = {"PENSTOCK_DB_PASSWORD": "Sesame0815"}

    traced = running.run("bash", "-x", "/source/install.sh", *PACKAGE, environment=variables)

    assert not traced.status, traced.output
    commands = [line.lstrip("+ ") for line in traced.output.splitlines() if line.startswith("+")]
    with_password = {line.split()[0] for line in commands if "Sesame0815" in line}
    kinds = running.run("bash", "-c", 'for word; do type -t "$word"; done', "-", *with_password)
    assert "printf" in with_password
    assert "file" not in kinds.output.split()
    assert any(line.startswith("runuser -u postgres -- env") for line in commands)
    assert "Sesame0815" not in running.run("bash", "-c", "cat /var/log/postgresql/*").output
    assert log_in(running, "Sesame0815").output == "scram-sha-256:users_service\n"


def test_a_failed_second_run_leaves_the_earlier_password_and_files(running: Machine) -> None:
    before = [
        *running.state(),
        psql(running, ROLES),
    ]
    arguments = [
        "--createdb",
        "--memory",
        "4096",
        "--package",
        WHEEL,
        "users",
        "users_service",
        "new",
    ]

    failed = fail_at(running, "/bin/python -I -c", *arguments)

    assert failed.status == 1
    assert "not undone" not in failed.output
    assert [
        *running.state(),
        psql(running, ROLES),
    ] == before
    assert psql(running, "SHOW shared_buffers") != "256MB"
    assert "Nothing was changed" in running.install(*PACKAGE).output


def test_what_belongs_to_others_is_refused_and_stays(running: Machine) -> None:
    psql(running, "CREATE ROLE mighty SUPERUSER LOGIN")
    psql(running, "CREATE ROLE taken LOGIN")
    psql(running, "CREATE DATABASE taken")
    before = running.state()

    refusals = {
        "SUPERUSER": ["new", "mighty", "x"],
        "give its password": ["new", "taken"],
        "belongs to postgres": ["taken", "owner", "x"],
    }
    for reason, arguments in refusals.items():
        refused = running.install("--package", WHEEL, *arguments)
        assert refused.status == 1
        assert reason in refused.output
    assert running.state() == before
    psql(running, "DROP DATABASE taken")


def test_a_value_in_a_later_file_wins_and_stays(running: Machine) -> None:
    running.write("/etc/postgresql/17/main/conf.d/zz-mine.conf", "max_connections = 300\n")
    running.run("pg_ctlcluster", "17", "main", "restart")

    again = running.install(*PACKAGE)

    assert "Nothing was changed" in again.output
    assert psql(running, "SHOW max_connections") == "300"
    running.run("rm", "/etc/postgresql/17/main/conf.d/zz-mine.conf")


def test_the_tuning_is_that_of_4_gb_and_in_force(running: Machine) -> None:
    started = psql(running, "SELECT pg_postmaster_start_time()")

    done = running.install("--memory", "4096", *PACKAGE)

    assert not done.status, done.output
    assert {name: psql(running, f"SHOW {name}") for name in BASE_VALUES} == BASE_VALUES
    assert psql(running, "SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"
    assert psql(running, "SELECT pg_postmaster_start_time()") != started
    assert not running.install(*PACKAGE).status


@pytest.mark.parametrize(
    ("step", "pattern"),
    [("repository", "^curl"), ("packages", "^apt-get install .*postgresql-17")],
)
def test_a_failure_before_the_server_is_there_leaves_a_bare_system(
    start: StartMachine, installed: Layers, step: str, pattern: str
) -> None:
    with start(online=True) as machine:
        if step == "repository":
            release = "ID=debian\nVERSION_ID=12\nVERSION_CODENAME=bookworm\n"
            machine.write("/usr/lib/os-release", release)

        failed = fail_at(machine, pattern)

        assert failed.status == 1
        assert f"the step {step} failed" in failed.output
        assert machine.run("test", "-e", "/tmp/failed").status == 0, failed.output
        assert machine.state() == installed.before


class Failure(NamedTuple):
    """Where a run fails.

    Args:
        step: The step.
        pattern: The command that fails, or what it reads.
        package: What is to be installed.
        signal: What the script is sent instead.
    """

    step: str
    pattern: str
    package: str = WHEEL
    signal: str = ""


OF_THE_FIRST_SERVICE = [
    Failure("cluster", "^pg_ctlcluster 17 main start"),
    Failure("tuning", "^pg_ctlcluster 17 main restart"),
    Failure("verification", "/bin/python -I -c"),
]
OF_ANOTHER_SERVICE = [
    Failure("authentication", "^sed -i 1e cat"),
    Failure("role", "CREATE ROLE", signal="TERM"),
    Failure("database", "REVOKE ALL"),
    Failure("account", "^useradd"),
    Failure("environment", "^install .*/shop.env"),
    Failure("python", "never", package="there-is-no-such-package"),
]


@pytest.mark.parametrize("failure", OF_THE_FIRST_SERVICE, ids=lambda failure: failure.step)
def test_a_failure_on_a_machine_without_a_server_undoes_exactly_this_run(
    start: StartMachine, packages_alone: Layers, failure: Failure
) -> None:
    with start(*packages_alone.directories) as machine:
        failed = fail_at(machine, failure.pattern, "--package", failure.package)

        assert failed.status == 1
        assert f"the step {failure.step} failed" in failed.output
        assert "not undone" not in failed.output
        assert machine.state() == packages_alone.state


@pytest.mark.parametrize("failure", OF_ANOTHER_SERVICE, ids=lambda failure: failure.step)
def test_a_failure_beside_another_service_undoes_exactly_this_run(
    running: Machine, failure: Failure
) -> None:
    before = [*running.state(), psql(running, SERVED), psql(running, DATABASES)]
    arguments = ["--package", failure.package, "shop"]

    failed = fail_at(running, failure.pattern, *arguments, signal=failure.signal)

    assert failed.status == (128 + SIGTERM if failure.signal else 1)
    assert f"the step {failure.step} failed" in failed.output
    assert "not undone" not in failed.output
    assert [*running.state(), psql(running, SERVED), psql(running, DATABASES)] == before


def test_a_failure_stops_a_server_that_was_stopped(own: Machine) -> None:
    own.run("pg_ctlcluster", "17", "main", "stop")
    before = own.state()

    failed = fail_at(own, "^sed -i 1e cat", "--package", WHEEL, "shop")

    assert failed.status == 1
    assert "not undone" not in failed.output
    assert own.state() == before


def test_what_is_uninstalled_keeps_the_data_until_it_is_purged(
    own: Machine, installed: Layers
) -> None:
    psql(own, "CREATE TABLE kept AS SELECT 42 AS answer", "users")
    before = own.state()

    shown = own.install("--uninstall", "--purge", "--dry-run")
    assert not shown.status, shown.output
    assert '| DROP ROLE IF EXISTS "users_service";' in shown.output
    assert own.state() == before
    assert own.install("--uninstall").status == 2
    removed = own.install("--uninstall", "--yes")

    assert not removed.status, removed.output
    assert psql(own, "SELECT answer FROM kept", "users") == "42"
    assert psql(own, "SHOW max_connections") == "100"
    for gone in ["/etc/penstock", "/opt/penstock", "/etc/postgresql/17/main/conf.d/penstock.conf"]:
        assert own.run("test", "-e", gone).status, gone
    assert own.install("--package", WHEEL).status == 0, "over the data that stayed"
    assert psql(own, "SELECT answer FROM kept", "users") == "42"

    purged = own.install("--uninstall", "--purge", "--yes")

    assert not purged.status, purged.output
    assert own.state() == installed.before


REMOVED_BY_HAND = {
    "the cluster": "pg_dropcluster --stop 17 main",
    "the server's programs": "pg_ctlcluster 17 main stop; mv /usr/lib/postgresql/17/bin /elsewhere;"
    "rm -r /etc/postgresql/17 /var/lib/postgresql/17",
    "all of the service": "rm -r /etc/penstock /opt/penstock; userdel users_service;"
    "runuser -u postgres -- psql -c 'DROP DATABASE users' -c 'DROP ROLE users_service'",
}


@pytest.mark.parametrize("command", REMOVED_BY_HAND.values(), ids=REMOVED_BY_HAND)
def test_what_was_removed_by_hand_does_not_stop_a_removal(own: Machine, command: str) -> None:
    own.run("sed", "-i", "/^packages/d", "/var/lib/penstock/machine")
    own.run("bash", "-c", command)

    purged = own.install("--uninstall", "--purge", "--yes")

    assert not purged.status, purged.output
    for gone in ["etc/penstock", "opt/penstock", "var/lib/penstock", "var/lib/postgresql/17/main"]:
        assert own.run("test", "-e", f"/{gone}").status, gone


def test_a_full_disk_does_not_lose_the_records(own: Machine) -> None:
    state, mount = "/var/lib/penstock", "mount -t tmpfs -o size=8k,mode=700 tmpfs"
    own.run("bash", "-c", f"cp -a {state} /copy; {mount} {state}; cp /copy/* {state}")
    records = own.run("bash", "-c", f"cat {state}/*").output

    removed = own.install("--uninstall", "--yes")

    assert removed.status == 1, removed.output
    assert own.run("bash", "-c", f"cat {state}/*").output == records
    own.run("mount", "-o", "remount,size=1m", state)
    assert not own.install("--uninstall", "--yes").status


def test_a_server_is_purged_once_there_are_no_databases_of_others(own: Machine) -> None:
    own.run("sed", "-i", "/^packages/d", "/var/lib/penstock/machine")
    psql(own, "CREATE DATABASE others")

    purged = own.install("--uninstall", "--purge", "--yes")

    assert purged.status == 1
    assert "others" in purged.output
    assert psql(own, DATABASES) == "others\npostgres"
    psql(own, "DROP DATABASE others")
    assert not own.install("--uninstall", "--purge", "--yes").status
    assert own.run("test", "-e", "/var/lib/penstock").status


def test_two_services_share_the_server(own: Machine) -> None:
    second = own.install("--package", WHEEL, "shop", environment={"PIP_TARGET": "/elsewhere"})
    databases = psql(own, DATABASES)
    removed = own.install("--uninstall", "--purge", "--yes", "shop")

    assert not second.status, second.output
    assert databases == "postgres\nshop\nusers"
    assert not removed.status, removed.output
    assert psql(own, DATABASES) == "postgres\nusers"
    roles = "SELECT rolname FROM pg_roles WHERE rolcanlogin AND NOT rolsuper"
    assert psql(own, roles) == "users_service"
    assert own.run("getent", "passwd", "shop_service").status
    assert "Nothing was changed" in own.install(*PACKAGE).output
