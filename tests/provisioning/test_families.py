"""Each family of distributions gets the commands that it understands."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from tests.provisioning.conftest import Layers, StartMachine
from tests.provisioning.machine import HERE, Machine, Outcome

pytestmark = [pytest.mark.timeout(900)]

WHEEL = "/source/penstock-0-py3-none-any.whl"
SOCKET_DIRECTORY = "install -d -o postgres -g postgres -m 755 /run/postgresql"
USER = "--system --no-create-home"
PACKAGE = r"penstock\[cli\,fastapi\,prometheus\]"
KEY = "/usr/share/keyrings/postgresql.asc"
YUM = "https://download.postgresql.org/pub/repos/yum/reporpms"


@dataclass(frozen=True)
class Family:
    """A distribution, and how its PostgreSQL is installed and controlled.

    Args:
        release: Its /etc/os-release.
        packages: The commands that install, in their order.
        programs: Where the server's programs are.
        data: Where the data are.
        unit: The name of its unit of systemd.
        python: Which interpreter makes the virtual environment.
        no_package: What ``dnf list`` of the distribution's own package exits with.
    """

    release: str
    packages: Sequence[str]
    programs: str
    data: str
    unit: str
    python: str = "/usr/bin/python3"
    no_package: str = "1"

    @property
    def is_debian(self) -> bool:
        """Whether it has Debian's tools for clusters."""
        return "@" in self.unit

    @property
    def configuration(self) -> str:
        """Where the server's configuration is."""
        return "/etc/postgresql/17/main" if self.is_debian else self.data

    def control(self, action: str, *, systemd: bool) -> str:
        """Return the command that starts, restarts or reloads the server."""
        if systemd:
            return f"systemctl {'enable --now' if action == 'start' else action} {self.unit}"
        if self.is_debian:
            return f"pg_ctlcluster 17 main {action}"
        log = f"{self.data}/pg_ctl.log"
        return (
            f"runuser -u postgres -- {self.programs}/pg_ctl -s -w -D {self.data} -l {log} {action}"
        )

    def commands(self, *, systemd: bool) -> list[str]:
        """Return all commands of an installation on a system without PostgreSQL."""
        initdb = f"{self.programs}/initdb -D {self.data} --locale=C.UTF-8 --encoding=UTF8"
        made = (
            ["pg_createcluster --locale C.UTF-8 17 main"]
            if self.is_debian
            else [f"runuser -u postgres -- {initdb} --auth-local=peer --auth-host=scram-sha-256"]
        )
        conf = self.configuration
        included = [
            f"install -d -o postgres -g postgres -m 700 {conf}/conf.d",
            rf"sed -i \$a\ include_dir\ =\ \'conf.d\'\ #\ penstock {conf}/postgresql.conf",
        ]
        return [
            *self.packages,
            *made,
            *([] if self.is_debian or systemd else [SOCKET_DIRECTORY]),
            self.control("start", systemd=systemd),
            *([] if self.is_debian else included),
            f"install -D -m 0644 /dev/stdin {conf}/conf.d/penstock.conf",
            self.control("restart", systemd=systemd),
            rf"sed -i 1e\ cat {conf}/pg_hba.conf",
            self.control("reload", systemd=systemd),
            *[f"{self.programs}/psql"] * 3,
            f"useradd {USER} --home-dir /nonexistent --shell /usr/sbin/nologin users_service",
            "install -D -m 0600 /dev/stdin /etc/penstock/users.env",
            f"{self.python} -m venv /opt/penstock/users",
            f"/opt/penstock/users/bin/python -m pip install --quiet {PACKAGE}",
            "install -m 0600 /dev/stdin /opt/penstock/users/package",
        ]


APT = "apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120"
OF_DEBIAN = ("/usr/lib/postgresql/17/bin", "/var/lib/postgresql/17/main", "postgresql@17-main")
OF_THE_PROJECT = ("/usr/pgsql-17/bin", "/var/lib/pgsql/17/data", "postgresql-17")
OF_THE_DISTRIBUTION = ("/usr/bin", "/var/lib/pgsql/data", "postgresql")
FROM_THE_PROJECT = [
    "apt-get update -qq",
    f"{APT} ca-certificates curl",
    f"curl -fsSL --proto =https -o {KEY} https://www.postgresql.org/media/keys/ACCC4CF8.asc",
    "install -D -m 0644 /dev/stdin /etc/apt/sources.list.d/postgresql.sources",
    "apt-get update -qq",
]


def of_rhel(release: str, major: int, python: str) -> Family:
    """Return a Red Hat Enterprise Linux or a rebuild of it."""
    repository = f"{YUM}/EL-{major}-x86_64/pgdg-redhat-repo-latest.noarch.rpm"
    module = ["dnf -qy module disable postgresql"] if major < 10 else []
    packages = f"dnf install -y -q postgresql17-server {python} util-linux shadow-utils findutils"
    return Family(
        release,
        [f"dnf install -y -q {repository}", *module, packages],
        *OF_THE_PROJECT,
        python=f"/usr/bin/{python}",
    )


FAMILIES = {
    "Debian 13": Family(
        "ID=debian\nVERSION_ID=13\nVERSION_CODENAME=trixie",
        ["apt-get update -qq", f"{APT} postgresql-17 python3-venv"],
        *OF_DEBIAN,
    ),
    "Debian 12": Family(
        "ID=debian\nVERSION_ID=12\nVERSION_CODENAME=bookworm",
        [*FROM_THE_PROJECT, f"{APT} postgresql-17 python3-venv"],
        *OF_DEBIAN,
    ),
    "Ubuntu 22.04": Family(
        "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=22.04\nVERSION_CODENAME=jammy",
        [*FROM_THE_PROJECT, f"{APT} postgresql-17 python3.11-venv"],
        *OF_DEBIAN,
        python="/usr/bin/python3.11",
    ),
    "Linux Mint 22": Family(
        "ID=linuxmint\nID_LIKE='ubuntu debian'\nVERSION_ID=22\nVERSION_CODENAME=wilma\n"
        "UBUNTU_CODENAME=noble",
        [*FROM_THE_PROJECT, f"{APT} postgresql-17 python3-venv"],
        *OF_DEBIAN,
    ),
    "RHEL 9": of_rhel("ID=rhel\nID_LIKE=fedora\nVERSION_ID=9.6", 9, "python3.12"),
    "Rocky Linux 8": of_rhel(
        "ID=rocky\nID_LIKE='rhel centos fedora'\nVERSION_ID=8.10", 8, "python3.12"
    ),
    "AlmaLinux 10": of_rhel(
        "ID=almalinux\nID_LIKE='rhel centos fedora'\nVERSION_ID=10.0", 10, "python3"
    ),
    "Oracle Linux 9": of_rhel("ID=ol\nID_LIKE=fedora\nVERSION_ID=9.5", 9, "python3.12"),
    "Fedora with 17": Family(
        "ID=fedora\nVERSION_ID=42",
        ["dnf install -y -q postgresql17-server python3 util-linux shadow-utils findutils"],
        *OF_THE_DISTRIBUTION,
        no_package="0",
    ),
    "Fedora without": Family(
        "ID=fedora\nVERSION_ID=44",
        [
            f"dnf install -y -q {YUM}/F-44-x86_64/pgdg-fedora-repo-latest.noarch.rpm",
            "dnf install -y -q postgresql17-server python3 util-linux shadow-utils findutils",
        ],
        *OF_THE_PROJECT,
    ),
    "Amazon Linux 2023": Family(
        "ID=amzn\nID_LIKE=fedora\nVERSION_ID=2023",
        ["dnf install -y -q postgresql17-server python3.11 util-linux shadow-utils findutils"],
        *OF_THE_DISTRIBUTION,
        python="/usr/bin/python3.11",
    ),
}


def be(machine: Machine, release: str, *, systemd: bool = False) -> None:
    """Make a machine look like a distribution, whose package manager writes down its calls."""
    machine.write("/usr/lib/os-release", f"{release}\n")
    for name in ["dnf", "rpm"]:
        machine.write(f"/tmp/recorders/{name}", (HERE / "recorder.sh").read_text(), mode=0o755)
    machine.run("bash", "-c", "rm -rf /run/systemd /tmp/calls; touch /tmp/calls")
    if systemd:
        machine.run("mkdir", "-p", "/run/systemd/system")


def install(machine: Machine, *arguments: str, no_package: str = "1") -> Outcome:
    """Run the script beside the recorders."""
    path = "/tmp/recorders:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {"PATH": path, "NO_PACKAGE": no_package}
    return machine.run("/source/install.sh", *arguments, environment=environment)


@pytest.fixture(scope="module")
def bare(start: StartMachine) -> Iterator[Machine]:
    """A Debian without PostgreSQL."""
    with start() as machine:
        yield machine


@pytest.mark.parametrize("systemd", [True, False], ids=["systemd", "no systemd"])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_dry_run_prints_every_command_and_changes_nothing(
    bare: Machine, family: Family, systemd: bool
) -> None:
    be(bare, family.release, systemd=systemd)
    before = bare.written()

    done = install(bare, "--dry-run", no_package=family.no_package)

    assert not done.status, done.output
    shown = [line[2:] for line in done.output.splitlines() if line.startswith("+ ")]
    commands = [f"{family.programs}/psql" if "/psql " in line else line for line in shown]
    assert commands == family.commands(systemd=systemd)
    assert bare.written() == before
    called = bare.run("cat", "/tmp/calls").output.splitlines()
    assert not [call for call in called if not call.startswith(("rpm -q", "dnf -q list "))]


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        ("ID=arch", "is not supported"),
        ("ID=amzn\nID_LIKE='centos rhel fedora'\nVERSION_ID=2", "Amazon Linux 2023"),
        ("ID=debian\nVERSION_ID=11\nVERSION_CODENAME=bullseye", "Python 3.11"),
        ("ID=ubuntu\nVERSION_ID=20.04\nVERSION_CODENAME=focal", "Python 3.11"),
    ],
)
def test_what_is_not_supported_is_refused(bare: Machine, release: str, reason: str) -> None:
    be(bare, release)

    refused = install(bare)

    assert refused.status == 1
    assert reason in refused.output
    assert not bare.run("cat", "/tmp/calls").output


def test_a_rhel_is_installed_twice_uninstalled_and_as_it_was(
    start: StartMachine, packages_alone: Layers
) -> None:
    with start(*packages_alone.directories) as machine:
        be(machine, FAMILIES["RHEL 9"].release)
        machine.run("ln", "-s", "python3", "/usr/bin/python3.12")
        before = machine.state()

        first = install(machine, "--package", WHEEL)
        second = install(machine, "--package", WHEEL)
        purged = install(machine, "--uninstall", "--purge", "--yes")

        assert not first.status, first.output
        assert "Nothing was changed" in second.output
        assert not purged.status, purged.output
        assert machine.state() == before
        called = machine.run("cat", "/tmp/calls").output.splitlines()
        packages = FAMILIES["RHEL 9"].packages
        changing = [call for call in called if not call.startswith("rpm ")]
        assert changing[: len(packages)] == packages
        assert changing[len(packages)].startswith("dnf remove -y -q --noautoremove ")
        assert changing[len(packages) + 1 :] == [
            "dnf -qy module reset postgresql",
            "dnf remove -y -q pgdg-redhat-repo",
        ]


def test_a_failed_installation_on_a_rhel_leaves_it_as_it_was(
    start: StartMachine, packages_alone: Layers
) -> None:
    with start(*packages_alone.directories) as machine:
        be(machine, FAMILIES["RHEL 9"].release)
        machine.run("ln", "-s", "python3", "/usr/bin/python3.12")
        before = machine.state()

        failed = install(machine, "--package", "there-is-no-such-package")

        assert failed.status == 1
        assert "the step python failed" in failed.output
        assert "not undone" not in failed.output
        assert machine.state() == before
