"""What is private to a library is looked for once, before it is relied on."""

import logging
import sys
from collections.abc import Iterable
from types import SimpleNamespace

import pytest

from penstock.drivers.capabilities import ASYNCPG, EXPRESS, PSYCOPG, Part, is_met, missing

HERE = "penstock_library_of_this_test"


class Library:
    known: int

    def __init__(self) -> None:
        self.set = 1

    def run(self, query: str, timeout: float) -> None: ...


@pytest.mark.parametrize(
    "parts", [ASYNCPG, PSYCOPG, EXPRESS], ids=["asyncpg", "psycopg", "express"]
)
def test_the_installed_versions_have_all_of_it(parts: Iterable[Part]) -> None:
    assert missing(parts) == []


@pytest.mark.parametrize(
    ("part", "lacking"),
    [
        (Part(HERE, "Library", "known set run"), []),
        (Part(HERE, "Library", "run", "query timeout"), []),
        (Part(HERE, "Library", "run", "query limit"), ["Library.run(limit)"]),
        (Part(HERE, "Library", "run fetch gone"), ["Library.fetch", "Library.gone"]),
        (Part(HERE, "Other", "run"), [f"{HERE}.Other"]),
        (Part("no_such_library.inside", "Library", "run"), ["no_such_library.inside"]),
    ],
)
def test_what_is_lacking_is_named(
    monkeypatch: pytest.MonkeyPatch, part: Part, lacking: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, HERE, SimpleNamespace(Library=Library))

    assert missing([part]) == lacking


def test_one_warning_says_what_is_lacking_and_what_is_done_instead(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert not is_met("asyncpg", [Part("asyncpg", "Connection", "gone away")], "it is slow")

    (record,) = caplog.records
    assert "lacks Connection.gone, Connection.away" in record.getMessage()
    assert "it is slow" in record.getMessage()


def test_a_driver_that_is_not_installed_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert not is_met("no-such-library", [Part("no_such_library", "Library", "run")], "")
    assert caplog.records == []
