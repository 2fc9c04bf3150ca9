"""Several workers of one database: any of them says what all have counted."""

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from tests.eventually import eventually

from penstock import Database, query
from penstock.fastapi import install
from penstock.telemetry import Reading

ONE = query(text("SELECT 1 AS one"))


@contextmanager
def worker(
    url: str, directory: Path, reads: int = 0, kind: str = "worker"
) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", f"tests.integration.telemetry.{kind}", url, str(directory)]
    with subprocess.Popen([*command, str(reads)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def database_of(url: str, directory: Path, **settings: Any) -> Database:
    return Database.from_url(url, environment="testing", telemetry_dir=directory, **settings)


def _names(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir()]


def _files(directory: Path) -> int:
    return len(list(directory.glob("*.worker")))


def pids(reading: Reading) -> set[int]:
    return {each.pid for each in reading.workers}


async def test_every_checkout_is_counted_once_whichever_worker_answers(
    database_url: str, tmp_path: Path
) -> None:
    async with database_of(database_url, tmp_path) as database:
        opening = database.telemetry.read().counters.checkins
        with (
            worker(database_url, tmp_path, 30) as one,
            worker(database_url, tmp_path, 12) as other,
        ):
            assert (said(one), said(other)) == (30, 12)
            for _ in range(5):
                await database.reader.one(ONE)
            reading = database.telemetry.read()

            # Each has opened its database with one lease more.
            assert reading.counters.checkins == 30 + 12 + 5 + 3 * opening
            assert reading.histogram("hold").count == reading.counters.checkins
            assert pids(reading) == {os.getpid(), one.pid, other.pid}


async def test_who_had_not_to_wait_is_counted_within_a_second_and_never_less_than_before(
    database_url: str, tmp_path: Path
) -> None:
    async with database_of(
        database_url, tmp_path, pool_size=1, max_overflow=0, nested_checkout="allow"
    ) as database:
        telemetry = database.telemetry
        seen = []

        def all_are_counted() -> bool:
            reading = telemetry.read()
            seen.append(reading.histogram("wait").counts[0])
            return reading.histogram("wait").count == reading.counters.checkouts == 21

        before = telemetry.read().counters.checkins
        assert before == 1
        for _ in range(5):
            # The first has the connection at once, and the others wait for it.
            await asyncio.gather(*(database.reader.one(ONE) for _ in range(4)))
            seen.append(telemetry.read().histogram("wait").counts[0])
        await eventually(all_are_counted)

        assert seen == sorted(seen)
        # Opening the database has waited for its connection.
        assert telemetry.read().counters.waits == 1 + 15


async def test_a_worker_killed_under_load_is_gone_at_the_next_reading_and_its_checkouts_still_count(
    database_url: str, tmp_path: Path
) -> None:
    async with database_of(database_url, tmp_path) as database:
        with (
            worker(database_url, tmp_path) as eviction,
            worker(database_url, tmp_path, 10) as other,
        ):
            said(other)
            sure = [said(eviction) for _ in range(3)][-1]
            eviction.kill()
            eviction.wait()

            after = database.telemetry.read()
            again = database.telemetry.read()

            assert pids(after) == {os.getpid(), other.pid}
            assert after.counters.checkins >= sure + 10
            assert again.counters == after.counters
            assert again.histogram("hold") == after.histogram("hold")
            assert _files(tmp_path) == 2


async def test_a_worker_that_was_killed_is_gone_though_a_process_that_it_forked_lives(
    database_url: str, tmp_path: Path
) -> None:
    async with database_of(database_url, tmp_path) as database:
        with worker(database_url, tmp_path, kind="forker") as eviction:
            child = said(eviction)
            assert pids(database.telemetry.read()) == {os.getpid(), eviction.pid}
            eviction.kill()
            eviction.wait()

            after = pids(database.telemetry.read())
            os.kill(child, signal.SIGKILL)

            assert after == {os.getpid()}


async def test_sums_never_fall_while_workers_come_and_go(database_url: str, tmp_path: Path) -> None:
    totals = []
    async with database_of(database_url, tmp_path) as database:
        for _ in range(3):
            with worker(database_url, tmp_path, 20) as process:
                said(process)
                totals.append(database.telemetry.read().counters.checkins)
            totals.append(database.telemetry.read().counters.checkins)

        assert totals == sorted(totals)
        assert totals[-1] >= 60
        assert pids(database.telemetry.read()) == {os.getpid()}


async def test_files_of_workers_that_end_or_are_killed_are_removed_without_a_reader(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.telemetry.telemetry.FIRST_QUERY_DELAY", 0.01)
    monkeypatch.setattr("penstock.telemetry.telemetry.QUERY_INTERVAL", 0.01)
    async with database_of(database_url, tmp_path) as database:
        for _ in range(3):
            async with database_of(database_url, tmp_path) as ended:
                await ended.reader.one(ONE)
            assert _files(tmp_path) == 1
        with worker(database_url, tmp_path, 20) as process:
            said(process)
            process.kill()
            process.wait()
            await eventually(lambda: _files(tmp_path) == 1)

        assert database.telemetry.read().counters.checkins == 1 + 3 * 2 + 21


async def test_a_worker_adds_up_at_its_start_those_that_ended_before(
    database_url: str, tmp_path: Path
) -> None:
    async with database_of(database_url, tmp_path):
        with worker(database_url, tmp_path, 20) as process:
            said(process)
            process.kill()
            process.wait()
        assert _files(tmp_path) == 2
        async with database_of(database_url, tmp_path):
            await eventually(lambda: _files(tmp_path) == 2)


async def test_a_reader_that_hangs_blocks_no_other(database_url: str, tmp_path: Path) -> None:
    async with database_of(database_url, tmp_path) as database:
        with (tmp_path / "lock").open("w") as held, worker(database_url, tmp_path, 20) as process:
            fcntl.flock(held, fcntl.LOCK_EX)
            said(process)
            process.kill()
            process.wait()

            reading = database.telemetry.read()

            assert reading.counters.checkins > 20
            assert pids(reading) == {os.getpid()}
            assert _files(tmp_path) == 2  # nobody else may take it away
        assert database.telemetry.read().counters == reading.counters
        assert _files(tmp_path) == 1


async def test_nothing_is_left_when_the_last_worker_has_closed(
    database_url: str, tmp_path: Path
) -> None:
    async with database_of(database_url, tmp_path) as database:
        await database.reader.one(ONE)

    assert _names(tmp_path) == ["lock"]
    assert database.telemetry.read() == Reading("default", ())


async def test_two_databases_in_one_directory_are_distinguished(
    postgres_urls: tuple[str, str], tmp_path: Path
) -> None:
    one_url, other_url = postgres_urls
    async with database_of(one_url, tmp_path) as one, database_of(other_url, tmp_path) as other:
        before = other.telemetry.read().counters
        await one.reader.one(ONE)

        assert other.telemetry.read().counters == before
        assert one.telemetry.read().counters.checkins > before.checkins


async def test_two_pools_of_one_database_are_distinguished_by_their_names(
    database_url: str, tmp_path: Path
) -> None:
    app = FastAPI()
    one = database_of(database_url, tmp_path, pool_size=2, max_overflow=0)
    other = database_of(database_url, tmp_path, pool_size=7, max_overflow=0)
    install(app, one)
    install(app, other, name="reports")
    async with app.router.lifespan_context(app):
        before = other.telemetry.read().counters
        await one.reader.one(ONE)

        assert other.telemetry.read().counters == before
        assert [each.telemetry.read().now.limit for each in (one, other)] == [2, 7]


async def test_a_directory_that_cannot_be_used_is_reported_and_the_database_works(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taken = tmp_path / "later"
    database = database_of(database_url, taken)
    taken.write_text("a file by now")

    async with database:
        assert (await database.reader.one(ONE)).one == 1

    assert "telemetry_dir" in caplog.text
    assert database.telemetry.read().workers == ()


async def test_samples_are_of_the_pool_that_has_replaced_a_disposed_one(
    database_url: str, tmp_path: Path
) -> None:
    async with database_of(database_url, tmp_path) as database:
        await database.engine.dispose()
        async with database.reader.snapshot():
            await eventually(lambda: database.telemetry.read().now.checked_out == 1)


async def test_without_telemetry_nothing_is_written(database_url: str, tmp_path: Path) -> None:
    async with database_of(database_url, tmp_path, telemetry=False) as database:
        await database.reader.one(ONE)

        assert _names(tmp_path) == []
        assert database.telemetry.recorder is None


async def test_commits_pings_and_waits_are_timed(database_url: str, tmp_path: Path) -> None:
    async with database_of(
        database_url, tmp_path, pool_size=1, max_overflow=0, idle_before_ping=0
    ) as database:
        async with database.write() as session:
            await session.execute(text("SELECT 1"))
        async with database.write():
            pass  # nothing was begun, and nothing is committed
        reading = database.telemetry.read()

        assert reading.histogram("commit").count == 1
        assert reading.histogram("ping").count == 2  # before each of two leases
        assert reading.histogram("create").count == 1
        assert reading.counters.opened == 1


async def test_a_database_closes_whose_telemetry_was_taken_away(
    database_url: str, tmp_path: Path
) -> None:
    directory = tmp_path / "telemetry"
    async with database_of(database_url, directory) as database:
        shutil.rmtree(directory)

    assert database.pool.snapshot().checked_in == 0


async def test_nothing_is_left_of_the_default_directory(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    async with Database.from_url(database_url, environment="testing") as database:
        await database.reader.one(ONE)
        (own,) = _names(tmp_path)
        assert own == f"penstock-{os.getuid()}"
        assert _names(tmp_path / own) == [str(os.getppid())]

    assert _names(tmp_path) == []


async def test_a_directory_that_another_user_can_write_to_is_refused(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    open_to_all = tmp_path / f"penstock-{os.getuid()}"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)

    async with Database.from_url(database_url, environment="testing") as database:
        assert (await database.reader.one(ONE)).one == 1

    assert str(open_to_all) in caplog.text
