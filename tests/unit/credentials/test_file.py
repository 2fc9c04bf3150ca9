"""What a file of credentials may hold, and when it is read again."""

import os
from pathlib import Path

import pytest

from penstock.credentials.cache import CredentialCache
from penstock.credentials.file import FileCredentials


@pytest.mark.parametrize(
    ("content", "user", "password"),
    [
        ("secret", None, "secret"),
        ("secret\n", None, "secret"),
        ("secret\r\n", None, "secret"),
        (" with spaces \n", None, " with spaces "),
        ("pässwört €\n", None, "pässwört €"),
        ('{"password": "secret"}', None, "secret"),
        ('{"username": "app", "password": "secret"}\n', "app", "secret"),
        ('\n{"username": "app", "password": "s\\n", "lease": 1}', "app", "s\n"),
    ],
)
async def test_a_file_holds_a_password_or_json(
    tmp_path: Path, content: str, user: str | None, password: str
) -> None:
    path = tmp_path / "login"
    path.write_bytes(content.encode())

    read = await FileCredentials(path)()

    assert (read.user, read.password.get_secret_value()) == (user, password)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff", "is no UTF-8"),
        (b'{"password": "4711', "is accepted"),
        (b'{"password": ""}', "is accepted"),
        (b'{"password": 4711}', "is accepted"),
        (b'{"username": 4711, "password": "x"}', "is accepted"),
        (b'{"user": "4711"}', "is accepted"),
    ],
)
async def test_what_is_neither_is_named_and_not_shown(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "login"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=message) as raised:
        await FileCredentials(path)()

    assert str(path) in str(raised.value)
    assert "4711" not in str(raised.value)


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        await FileCredentials(tmp_path / "missing")()


async def test_a_file_has_changed_when_it_is_another_one(tmp_path: Path) -> None:
    path, provider = tmp_path / "login", FileCredentials(tmp_path / "login")
    path.write_text("first")
    await provider()
    assert not provider.has_changed()

    (tmp_path / "next").write_text("other")  # of the same length
    os.utime(tmp_path / "next", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    (tmp_path / "next").rename(path)
    assert provider.has_changed()
    await provider()
    assert not provider.has_changed()

    os.utime(path, (1, 1))
    assert provider.has_changed()
    path.unlink()
    assert not provider.has_changed()


async def test_a_change_that_cannot_be_read_is_told_once_and_not_for_each_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "login"
    cache = CredentialCache(FileCredentials(path), 5.0)
    counts: list[int] = []
    for content in ("first", "", "{", "second", ""):
        path.write_text(content)
        os.utime(path, (len(counts), len(counts)))
        for _ in range(20):
            await cache.get(5.0)
        counts.append(len(caplog.records))

    assert counts == [0, 1, 2, 2, 3]
    assert (await cache.get(5.0)).password.get_secret_value() == "second"
