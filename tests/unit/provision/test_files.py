"""How generated files get into a directory."""

from pathlib import Path
from stat import S_IMODE

import pytest

from penstock.errors import PenstockError
from penstock.provision import GeneratedFile, write_files

FILES = [GeneratedFile("a.ini", "one\n"), GeneratedFile("b/secret", "s3cret\n", 0o600, True)]


def test_files_are_written_once(tmp_path: Path) -> None:
    assert write_files(FILES, tmp_path) == [tmp_path / "a.ini", tmp_path / "b/secret"]
    assert write_files(FILES, tmp_path) == []
    assert S_IMODE((tmp_path / "b/secret").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.ini", "b", "secret"]


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
