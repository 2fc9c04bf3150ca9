"""The files that workers keep, and what may become of them."""

import fcntl
import gc
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.eventually import eventually

from penstock import Database, query
from penstock.telemetry.layout import LAYOUT
from penstock.telemetry.worker_file import WorkerFile, WorkerReader
from penstock.telemetry.workers import Workers, locked

ONE = query(text("SELECT 1 AS one"))


def database_of(url: str, directory: Path) -> Database:
    return Database.from_url(url, environment="testing", telemetry_dir=directory)


def files(directory: Path) -> set[Path]:
    return set(directory.glob("*.worker"))


def readers() -> int:
    gc.collect()
    return sum(isinstance(each, WorkerReader) for each in gc.get_objects())


def test_the_disk_has_room_for_all_that_a_worker_will_write(tmp_path: Path) -> None:
    file = WorkerFile.create(tmp_path, "name")

    assert file.path.stat().st_blocks * 512 >= LAYOUT.size

    file.close()


def test_the_last_worker_to_leave_spares_the_file_of_one_that_comes(tmp_path: Path) -> None:
    came = []

    class Leaving(Workers):
        def first(self) -> Path | None:
            found = super().first()
            came.append(WorkerFile.create(tmp_path, "name"))
            return found

    left = WorkerFile.create(tmp_path, "name")
    left.close()
    Leaving(tmp_path, "name").forget()

    assert files(tmp_path) == {came[0].path}


async def test_what_cannot_be_read_or_written_does_not_hide_the_rest(
    database_url: str, tmp_path: Path
) -> None:
    async with database_of(database_url, tmp_path) as database:
        (own,) = files(tmp_path)
        key = own.name.partition("-")[0]
        (tmp_path / "lock").unlink(missing_ok=True)
        (tmp_path / "lock").mkdir()
        (tmp_path / f"{key}.ended.new").mkdir()
        endless = tmp_path / f"{key}-1-1.worker"
        endless.symlink_to(endless)
        async with database_of(database_url, tmp_path) as ended:
            await ended.reader.one(ONE)

        reading = database.telemetry.read()

        assert len(reading.workers) == 1
        assert reading.counters.checkins == 1 + 2

        (tmp_path / "lock").rmdir()
        assert database.telemetry.read().counters == reading.counters
        (tmp_path / f"{key}.ended.new").rmdir()
        assert database.telemetry.read().counters == reading.counters
        assert files(tmp_path) == {own, endless}


async def test_nothing_is_kept_of_workers_whose_files_another_one_has_removed(
    database_url: str, tmp_path: Path
) -> None:
    async with (
        database_of(database_url, tmp_path) as database,
        database_of(database_url, tmp_path) as other,
    ):
        database.telemetry.read(), other.telemetry.read()
        before = readers()
        for _ in range(5):
            async with database_of(database_url, tmp_path):
                assert len(database.telemetry.read().workers) == 3
            other.telemetry.read()
        database.telemetry.read()

        assert readers() == before


async def test_no_sum_falls_while_another_worker_adds_up_one_that_has_ended(
    database_url: str, tmp_path: Path
) -> None:
    async with database_of(database_url, tmp_path) as database:
        own = next(iter(files(tmp_path)))
        async with database_of(database_url, tmp_path) as ended:
            await ended.reader.one(ONE)
        key = own.name.partition("-")[0]

        class Late(Workers):
            def _files(self) -> list[Path]:
                held.close()  # who has added up lets go of the lock
                Workers(tmp_path, key).read("default")
                return super()._files()

        with (tmp_path / "lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            late = Late(tmp_path, key).read("default")

        assert late.counters == database.telemetry.read().counters
        assert late.counters.checkins == 1 + 2


def test_a_process_forked_while_the_ended_are_added_up_does_not_keep_others_from_it(
    tmp_path: Path,
) -> None:
    with locked(tmp_path) as is_alone:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    with locked(tmp_path) as is_alone_again:
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    assert (is_alone, is_alone_again) == (True, True)


async def test_telemetry_that_was_deleted_begins_anew(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.telemetry.telemetry.FIRST_QUERY_DELAY", 0.01)
    monkeypatch.setattr("penstock.telemetry.telemetry.QUERY_INTERVAL", 0.01)
    directory = tmp_path / "telemetry"
    async with database_of(database_url, directory) as database:
        shutil.rmtree(directory)
        assert database.telemetry.read().counters.checkins == 0

        await eventually(lambda: len(database.telemetry.read().workers) == 1)
        await database.reader.one(ONE)

        assert database.telemetry.read().counters.checkins == 1


async def test_the_directory_of_workers_that_live_stays_though_their_supervisor_is_gone(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    gone = subprocess.Popen(["true"])  # noqa: ASYNC220 - over at once
    gone.wait()
    with monkeypatch.context() as orphaned:
        orphaned.setattr(os, "getppid", lambda: gone.pid)
        orphan = Database.from_url(database_url, environment="testing")
        await orphan.open()
    async with Database.from_url(database_url, environment="testing"):
        assert len(orphan.telemetry.read().workers) == 1

    await orphan.close()
    assert list(os.scandir(tmp_path)) == []


async def test_a_runtime_directory_that_is_gone_is_passed_over(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with Database.from_url(database_url, environment="testing") as database:
        assert len(database.telemetry.read().workers) == 1
        assert [each.name for each in os.scandir(tmp_path)] == [f"penstock-{os.getuid()}"]
