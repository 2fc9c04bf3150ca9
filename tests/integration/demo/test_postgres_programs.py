"""The programs of a server that root starts, wherever the checkout is."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from stat import S_IMODE

import pytest
from tests.servers.parts import require_part
from tests.servers.postgres import own_postgres, postgres_programs
from tests.servers.process import ServerProcess

from penstock.demo.embedded_postgres import embedded_programs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts servers as another")


@pytest.fixture
def process() -> Iterator[ServerProcess]:
    with ServerProcess("programs", stop_signal="TERM") as started:
        yield started


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A directory as root's home is on a fresh machine."""
    directory = tmp_path / "home"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def tree(private: Path) -> Path:
    """The programs of the tests' PostgreSQL in a private directory, with their own libraries."""
    programs = postgres_programs()
    require_part("PostgreSQL", present=programs, remedy="set TEST_POSTGRES_BIN")
    assert programs is not None
    if programs != embedded_programs():
        return Path(shutil.copytree(programs.parent, private / "native", symlinks=True))
    package = programs.parents[1]
    libraries = package.with_name("embedded_postgres.libs")
    shutil.copytree(libraries, private / libraries.name, symlinks=True)
    return Path(shutil.copytree(package, private / package.name, symlinks=True)) / "pginstall"


def test_a_server_starts_from_a_private_directory(tree: Path, private: Path) -> None:
    with own_postgres(tree / "bin") as server:
        assert server.execute("SELECT count(*) FROM pg_language") == [(4,)]
    assert S_IMODE(private.stat().st_mode) == 0o700


def test_a_server_starts_from_files_that_only_root_may_read(tree: Path, private: Path) -> None:
    private.chmod(0o755)
    subprocess.run(["chmod", "-R", "go=", *private.iterdir()], check=True)
    with own_postgres(tree / "bin") as server:
        assert server.answers()


def test_what_every_account_can_read_is_not_copied(process: ServerProcess) -> None:
    assert process.readable(Path("/usr/bin")) == Path("/usr/bin")


def test_a_copy_has_what_the_programs_need_and_belongs_to_the_account(
    process: ServerProcess, private: Path
) -> None:
    package = private / "package"
    (package / "install" / "bin").mkdir(parents=True)
    (package / "install" / "bin" / "server").touch(mode=0o700)
    (private / "package.libs").mkdir()
    (private / "package.libs" / "library.so").touch(mode=0o600)
    (private / "secret").touch()
    copied = process.readable(package / "install")
    found = sorted(str(path.relative_to(process.directory)) for path in copied.rglob("*"))
    assert found == ["programs/package/install/bin", "programs/package/install/bin/server"]
    beside = copied.parents[1]
    assert sorted(path.name for path in beside.iterdir()) == ["package", "package.libs"]
    process.run(["/bin/cat", beside / "package.libs" / "library.so", copied / "bin" / "server"])
    process.run(["/usr/bin/test", "-x", copied / "bin" / "server"])
