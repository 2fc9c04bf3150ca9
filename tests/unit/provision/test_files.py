"""How generated files get into a directory."""

import os
import resource
from pathlib import Path
from stat import S_IMODE

import pytest

from penstock.errors import PenstockError
from penstock.provision import GeneratedFile, write_files

FILES = [GeneratedFile("a.ini", "one\n"), GeneratedFile("b/secret", "s3cret\n", 0o600, True)]
SHARED = GeneratedFile("c/shared", "s3cret\n", 0o644, True)
"""A secret that containers read, in a directory for nobody else."""


def test_files_are_written_once(tmp_path: Path) -> None:
    assert write_files(FILES, tmp_path) == [tmp_path / "a.ini", tmp_path / "b/secret"]
    assert write_files(FILES, tmp_path) == []
    assert S_IMODE((tmp_path / "b/secret").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.ini", "b", "secret"]


@pytest.mark.parametrize("umask", [0, 0o22, 0o77])
def test_rights_are_the_same_with_every_umask_and_put_right(tmp_path: Path, umask: int) -> None:
    rights = {"a.ini": 0o644, "b/secret": 0o600, "c": 0o700, "c/shared": 0o644}
    earlier = os.umask(umask)
    try:
        write_files([*FILES, SHARED], tmp_path)
    finally:
        os.umask(earlier)
    found = {name: S_IMODE((tmp_path / name).stat().st_mode) for name in rights}
    (tmp_path / "b/secret").chmod(0o666)
    (tmp_path / "c").chmod(0o755)

    assert write_files([*FILES, SHARED], tmp_path) == []
    assert found == rights
    assert {name: S_IMODE((tmp_path / name).stat().st_mode) for name in rights} == rights


def test_a_disk_that_is_full_is_an_error_with_the_path_and_leaves_no_part(tmp_path: Path) -> None:
    earlier = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, earlier[1]))
    try:
        with pytest.raises(PenstockError, match=str(tmp_path / "a.ini")):
            write_files(FILES, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, earlier)

    assert list(tmp_path.iterdir()) == []


def test_what_differs_is_shown_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.ini").write_text("mine\n")

    with pytest.raises(PenstockError) as refused:
        write_files(FILES, tmp_path)

    assert "-mine\n+one\n" in str(refused.value)
    assert not (tmp_path / "b").exists()
    assert write_files(FILES, tmp_path, force=True) == [tmp_path / "a.ini", tmp_path / "b/secret"]
    assert (tmp_path / "a.ini").read_text() == "one\n"


def test_a_difference_in_a_secret_is_not_shown(tmp_path: Path) -> None:
    write_files(FILES, tmp_path)
    (tmp_path / "b/secret").write_text("old\n")

    with pytest.raises(PenstockError) as refused:
        write_files(FILES, tmp_path)

    assert str(tmp_path / "b/secret") in str(refused.value)
    assert "s3cret" not in str(refused.value)
    assert "old" not in str(refused.value)


@pytest.mark.parametrize("name", ["a.ini", "b"])
def test_what_cannot_be_written_is_an_error_with_its_path(tmp_path: Path, name: str) -> None:
    there = tmp_path / name
    if name == "b":
        there.write_text("a file where a directory belongs")
    else:
        there.mkdir()

    with pytest.raises(PenstockError, match=str(there)):
        write_files(FILES, tmp_path)
