"""What else may be found where workers keep their files: left out, and nothing comes of it."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from math import inf, nan
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from tests.eventually import eventually

from penstock import Database
from penstock.fastapi import install
from penstock.telemetry.layout import LAYOUT
from penstock.telemetry.schema import COUNTERS, OPTIONAL, SAMPLE
from penstock.telemetry.worker_file import WorkerFile
from penstock.telemetry.workers import Workers, group_directory

KEY = "key"
NOBODY = 65534
PRECIOUS = "another program's data"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[WorkerFile]:
    """The file of a worker that lives and has counted seven checkouts."""
    file = counted(tmp_path, 7)
    yield file
    file.close()


def counted(directory: Path, checkouts: int, key: str = KEY) -> WorkerFile:
    file = WorkerFile.create(directory, key)
    file.numbers[LAYOUT.counters] = float(checkouts)
    return file


def worker_files(directory: Path) -> list[Path]:
    return list(directory.glob("*.worker"))


def ended(directory: Path, checkouts: int) -> Path:
    file = counted(directory, checkouts)
    file.close()
    return file.path


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_precious_data(path: Path) -> None:
    path.symlink_to(path.with_name("precious"))


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def a_link_to_an_endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_directory(path: Path) -> None:
    path.mkdir()


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(path.parent):
        listening.bind(path.name)


def a_device(path: Path) -> None:
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # as /dev/zero


def an_empty_file(path: Path) -> None:
    path.touch()


def another_users_file(path: Path) -> None:
    path.write_bytes(bytes(LAYOUT.size))
    os.chown(path, NOBODY, NOBODY)


def a_sparse_file_of_a_terabyte(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


def zeros(path: Path) -> None:
    path.touch()
    os.truncate(path, LAYOUT.size)


def noise(path: Path) -> None:
    path.write_bytes(b"\xff" * LAYOUT.size)


def the_beginning_of_a_workers_file(path: Path) -> None:
    ended(path.parent, 1000).replace(path)
    os.truncate(path, LAYOUT.size - 1)


def the_file_of_a_later_release(path: Path) -> None:
    file = counted(path.parent, 1000)
    file.numbers[LAYOUT.signature] += 1.0
    file.close()
    file.path.replace(path)


THINGS: list[Callable[[Path], None]] = [
    a_fifo, a_link_to_precious_data, a_link_to_nothing, a_link_to_itself,
    a_link_to_an_endless_device, a_directory, a_socket, an_empty_file,
    a_sparse_file_of_a_terabyte, zeros, noise, the_beginning_of_a_workers_file,
    the_file_of_a_later_release,
]  # fmt: skip
OF_ROOT = [
    pytest.param(each, marks=pytest.mark.skipif(os.getuid() != 0, reason="only root can make it"))
    for each in (a_device, another_users_file)
]
NAMES = [f"{KEY}-1-1.worker", f"{KEY}.ended", f"{KEY}.ended.new", "lock"]


@pytest.mark.parametrize("thing", [*THINGS, *OF_ROOT])
@pytest.mark.parametrize("name", NAMES)
def test_no_reader_follows_it_waits_for_it_or_believes_it(
    name: str,
    thing: Callable[[Path], None],
    own: WorkerFile,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    precious = tmp_path / "precious"
    precious.write_text(PRECIOUS)
    thing(tmp_path / name)
    workers = Workers(tmp_path, KEY)
    ended(tmp_path, 10)

    readings = [workers.read("default") for _ in range(3)]
    workers.add_up()

    assert [reading.counters.checkouts for reading in readings] == [17, 17, 17]
    assert [len(reading.workers) for reading in readings] == [1, 1, 1]
    assert workers.first() == own.path
    assert precious.read_text() == PRECIOUS
    is_read = name.endswith((".worker", ".ended"))
    assert len(caplog.records) == is_read, caplog.text
    assert all(name in message for message in caplog.messages)


@pytest.mark.parametrize("thing", [*THINGS, *OF_ROOT])
@pytest.mark.parametrize("name", NAMES)
def test_the_last_worker_leaves_whatever_is_there(
    name: str, thing: Callable[[Path], None], tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text(PRECIOUS)
    thing(tmp_path / name)
    left = ended(tmp_path, 10)
    workers = Workers(tmp_path, KEY)

    workers.add_up(only=left)
    workers.forget()

    assert precious.read_text() == PRECIOUS
    assert left.exists() == (name == "lock" and thing not in PLAIN)


PLAIN = {
    an_empty_file, a_sparse_file_of_a_terabyte, zeros, noise, the_beginning_of_a_workers_file,
    the_file_of_a_later_release,
}  # fmt: skip
"""What may be locked as well as any other file."""

COLUMNS = {
    "pid": LAYOUT.pid,
    "started": LAYOUT.started,
    "written": LAYOUT.written,
    **{f"counter {name}": LAYOUT.counters + place for place, name in enumerate(COUNTERS)},
    "first bucket": LAYOUT.histogram("wait"),
    "last bucket": LAYOUT.histogram("commit") + LAYOUT.of_histogram - 2,
    "sum": LAYOUT.histogram("hold") + LAYOUT.of_histogram - 1,
    **{f"sample {name}": LAYOUT.history + place for place, name in enumerate(SAMPLE)},
    **{f"route {place}": LAYOUT.routes + place for place in range(3)},
    **{f"statement {place}": LAYOUT.statements + place for place in range(6)},
}
SERVERS = {f"sample {name}" for name in OPTIONAL}
DAMAGES = [nan, inf, -inf, -1.0, 2.0**53, 1e300]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("column", COLUMNS)
def test_a_number_that_no_worker_writes_leaves_out_its_file_until_it_is_mended(
    column: str,
    damage: float,
    own: WorkerFile,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if column in SERVERS and damage in {-1.0, nan}:
        pytest.skip("a number of the server's may be so")
    other = counted(tmp_path, 30)
    other.numbers[LAYOUT.written] = 1.0
    workers = Workers(tmp_path, KEY)
    before = other.numbers[COLUMNS[column]]

    other.numbers[COLUMNS[column]] = damage
    readings = [workers.read("default") for _ in range(2)]

    assert [reading.counters.checkouts for reading in readings] == [7, 7]
    assert [each.pid for each in readings[0].workers] == [os.getpid()]
    assert [message for message in caplog.messages if "damaged" in message] == caplog.messages
    assert len(caplog.messages) == 1

    other.numbers[COLUMNS[column]] = before
    recovered = workers.read("default")
    other.close()

    assert recovered.counters.checkouts == 37
    assert [len(each.history) for each in recovered.workers] == [0, 1]


@pytest.mark.parametrize("damage", DAMAGES)
def test_sums_that_an_ended_worker_did_not_write_are_not_added(
    damage: float, own: WorkerFile, tmp_path: Path
) -> None:
    other = counted(tmp_path, 30)
    other.numbers[LAYOUT.counters + 1] = damage
    other.close()

    assert Workers(tmp_path, KEY).read("default").counters.checkouts == 7
    assert other.path.exists()


def test_what_is_damaged_elsewhere_takes_nothing_from_an_ended_workers_sums(
    own: WorkerFile, tmp_path: Path
) -> None:
    other = counted(tmp_path, 30)
    other.numbers[LAYOUT.history] = other.numbers[LAYOUT.pid] = nan
    other.close()

    assert Workers(tmp_path, KEY).read("default").counters.checkouts == 37
    assert not other.path.exists()


def _sums(checkouts: object = 1, **changed: object) -> str:
    return json.dumps(
        {"counters": {"checkouts": checkouts}, "histograms": {}, "files": []} | changed
    )


NO_COUNTS: list[object] = ["x", None, [], nan, inf, -1, 1.5, True, 10**400]
SUMS = [
    *map(_sums, NO_COUNTS),
    _sums(counters=[]), _sums(counters={"unheard_of": 1}), _sums(histograms=[]),
    _sums(histograms={"wait": {"counts": [1], "seconds": 1}}),
    _sums(histograms={"wait": {"counts": [1] * 110, "seconds": nan}}),
    _sums(histograms={"wait": {"counts": [1] * 110, "seconds": "1"}}),
    _sums(files=1), "[]", "1", "null", "", "{", "[" * 100_000, '{"a":' * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("said", SUMS, ids=range(len(SUMS)))
def test_sums_that_no_worker_wrote_are_left_out_with_one_warning(
    said: str, own: WorkerFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / f"{KEY}.ended").write_text(said)
    workers = Workers(tmp_path, KEY)

    readings = [workers.read("default") for _ in range(3)]

    assert [reading.counters.checkouts for reading in readings] == [7, 7, 7]
    assert len(caplog.messages) == 1


async def test_metrics_and_the_live_page_go_on(database_url: str, tmp_path: Path) -> None:
    app = FastAPI()
    install(app, Database.from_url(database_url, environment="testing", telemetry_dir=tmp_path))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        (own,) = worker_files(tmp_path)
        key = own.name.partition("-")[0]
        for number, thing in enumerate(THINGS):
            thing(tmp_path / f"{key}-0-{number}.worker")
        for number, damage in enumerate(DAMAGES):
            file = counted(tmp_path, 1, key)
            file.numbers[LAYOUT.counters + number] = damage
            file.close()
        (tmp_path / f"{key}.ended").write_text("[" * 100_000)

        metrics, state = await client.get("/metrics"), await client.get("/pool/state")

        assert (metrics.status_code, state.status_code) == (200, 200)
        assert "db_client_connection_count{" in metrics.text
        (database,) = state.json()["databases"]
        assert [worker["pid"] for worker in database["workers"]] == [os.getpid()]


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777, 0o722])
async def test_a_chosen_directory_that_others_may_write_to_is_refused(
    mode: int, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = tmp_path / "shared"
    chosen.mkdir()
    chosen.chmod(mode)

    async with Database.from_url(
        database_url, environment="testing", telemetry_dir=chosen
    ) as database:
        await database.ping()
        assert database.telemetry.read().workers == ()

    assert list(chosen.iterdir()) == []
    assert f"has mode {mode:04o}" in caplog.text
    assert "telemetry=false" in caplog.text

    inside = chosen / "own"
    async with Database.from_url(
        database_url, environment="testing", telemetry_dir=inside
    ) as database:
        assert len(database.telemetry.read().workers) == 1
    assert inside.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("is_linked", [False, True])
def test_a_chosen_directory_of_another_user_is_refused(tmp_path: Path, is_linked: bool) -> None:
    chosen = theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    if is_linked:
        chosen = tmp_path / "link"
        (tmp_path / "own").mkdir(mode=0o700)
        chosen.symlink_to(tmp_path / "own")
    os.chown(chosen, NOBODY, NOBODY, follow_symlinks=False)

    with pytest.raises(PermissionError, match=f"belongs to uid {NOBODY}"):
        group_directory(chosen)


def test_a_link_of_ones_own_to_a_directory_of_ones_own_may_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir(mode=0o700)
    chosen = tmp_path / "link"
    chosen.symlink_to(tmp_path / "own")

    assert group_directory(chosen) == chosen


async def test_thousands_of_files_are_added_up_while_the_event_loop_goes_on(
    database_url: str, tmp_path: Path
) -> None:
    async with Database.from_url(
        database_url, environment="testing", telemetry_dir=tmp_path
    ) as database:
        (own,) = worker_files(tmp_path)
        first = ended(tmp_path, 1)
        key = own.name.partition("-")[0]
        for number in range(2_000):
            shutil.copyfile(first, tmp_path / f"{key}-1-{number}.worker")
        first.unlink()
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count_turns())
        before = database.telemetry.read
        async with Database.from_url(
            database_url, environment="testing", telemetry_dir=tmp_path
        ) as other:
            await eventually(lambda: len(worker_files(tmp_path)) == 2)
            assert other.telemetry.read().counters.checkouts >= 2_000
        counting.cancel()

        assert turns > 100
        assert before().counters.checkouts >= 2_000
