"""The servers that the tests run on, and that nothing of them is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.eventually import eventually
from tests.servers.mariadb import MariadbServer
from tests.servers.parts import require_part
from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerProcess, ServerStartError

STARTS_A_SERVER = """
import sys, time
from tests.servers.process import ServerProcess
process = ServerProcess("brief", stop_signal="TERM")
process.start(["/bin/sleep", "600"])
print(process.directory, flush=True)
time.sleep(600)
"""


def test_each_test_has_a_database_and_a_role_of_its_own(postgres: PostgresServer) -> None:
    with postgres.database() as one, postgres.database() as other:
        assert one != other
        names = {url.rpartition("/")[2] for url in (one, other)}
        listed = {row[0] for row in postgres.execute("SELECT datname FROM pg_database")}
        assert names <= listed
    listed = {row[0] for row in postgres.execute("SELECT datname FROM pg_database")}
    roles = {row[0] for row in postgres.execute("SELECT rolname FROM pg_roles")}
    assert not names & (listed | roles)


def test_mariadb_drops_a_tests_database(mariadb: MariadbServer) -> None:
    with mariadb.database() as url:
        name = url.rpartition("/")[2]
        assert (name,) in mariadb.execute("SHOW DATABASES")
    assert (name,) not in mariadb.execute("SHOW DATABASES")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_server_and_its_directory_end_with_the_process_that_started_it(end: int) -> None:
    command = [sys.executable, "-c", STARTS_A_SERVER]
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        directory = Path(starter.stdout.readline().strip())
        assert directory.is_dir()
        os.kill(starter.pid, end)
        starter.communicate(timeout=30)
    asyncio.run(eventually(lambda: not directory.exists(), seconds=30))


def test_a_server_that_does_not_start_says_why() -> None:
    with ServerProcess("broken", stop_signal="TERM") as process:
        process.start(["/bin/sh", "-c", "echo no room for me; exit 3"])
        with pytest.raises(ServerStartError, match="no room for me"):
            process.wait_until(lambda: False)
    assert not process.directory.exists()


def test_a_missing_part_skips_on_a_users_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="Abacus is not on this machine: buy one"):
        require_part("Abacus", present=None, remedy="buy one")


def test_a_missing_part_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="Abacus is not on this machine"):
        require_part("Abacus", present=None, remedy="buy one")


def test_a_part_that_is_there_is_just_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    require_part("Abacus", present="/usr/bin/abacus", remedy="buy one")
