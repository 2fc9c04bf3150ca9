"""Through how many files of the library a reader follows one session, read, connection and metric.

``python -m tests.trips`` makes each of these trips on a PostgreSQL of its own, or that of
``--url``, and prints the files whose functions are entered, and the moves: how often the function
entered next is in another file. It also prints the circles of imports, and the sizes of the files.
"""

import argparse
import ast
import asyncio
import contextlib
import dis
import importlib.util
import json
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, Self

import httpx
from fastapi import FastAPI
from sqlalchemy import bindparam, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tests.servers.postgres import postgres_server

from penstock import Database, query
from penstock.fastapi import WriteSession, install

PACKAGE = "penstock"
LONG, SHORT = 500, 50
WARM = 20
# What runs in the background once a second may fall into one.
ATTEMPTS = 5
RESUME = dis.opmap["RESUME"]

Step = Callable[[], Awaitable[Any]]


class Base(DeclarativeBase):
    """What the table belongs to."""


class Note(Base):
    """Something to be written and read."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    line: Mapped[str]


note_of = query(select(Note.id, Note.line).where(Note.id == bindparam("note_id")))


@dataclass(frozen=True)
class Trip:
    """One way through the library.

    Args:
        name: What it is.
        files: The files whose functions are entered, in the order of the first entry.
        moves: How often the function entered next is in another file.
        calls: Functions entered.
    """

    name: str
    files: tuple[str, ...]
    moves: int
    calls: int


class Recorder:
    """Takes down the file of each function of the library that is entered.

    It sees this thread, and those that are started while it is in force.
    """

    def __init__(self) -> None:
        self._entered: list[str] = []
        self._root = f"{_root()}/"

    def __enter__(self) -> Self:
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _note(self, frame: FrameType, event: str, _argument: object) -> None:
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(self._root) and _begins(frame):
            self._entered.append(path.removeprefix(self._root))

    async def trip(self, name: str, step: Step) -> Trip:
        """Make a trip, and return what was entered on it."""
        self._entered = []
        await step()
        entered, self._entered = self._entered, []
        moves = sum(before != after for before, after in pairwise(entered))
        return Trip(name, tuple(dict.fromkeys(entered)), moves, len(entered))


def _begins(frame: FrameType) -> bool:
    """Return whether a frame is entered and not resumed, as a coroutine is after each await."""
    code, at = frame.f_code.co_code, max(frame.f_lasti, 0)
    return code[at] != RESUME or code[at + 1] & 3 == 0


def _root() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    assert found
    assert found.origin
    return Path(found.origin).parent


async def trips(url: str) -> list[Trip]:
    """Make the four trips, each warm.

    Args:
        url: Of an empty PostgreSQL database, with the driver asyncpg.
    """
    with Recorder() as recorder:
        return await _trips(url, recorder)


async def _trips(url: str, recorder: Recorder) -> list[Trip]:
    async with _service(url) as (database, client):

        async def session() -> None:
            assert (await client.post("/notes")).status_code == 200

        async def read() -> None:
            await database.reader.one(note_of, note_id=1)

        async def metric() -> None:
            assert (await client.get("/metrics")).status_code == 200

        return [
            await _made("session: POST to COMMIT", session, recorder),
            await _made("read: reader.one", read, recorder),
            await _connection(url, recorder),
            await _made("metric: GET /metrics", metric, recorder),
        ]


@contextlib.asynccontextmanager
async def _service(url: str) -> AsyncIterator[tuple[Database, httpx.AsyncClient]]:
    app = FastAPI()
    database = Database.from_url(url, environment="testing")
    install(app, database)

    @app.post("/notes")
    async def add(session: WriteSession) -> None:
        session.add(Note(line="one"))

    async with database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield database, client


async def _made(name: str, step: Step, recorder: Recorder) -> Trip:
    for _ in range(WARM):
        await step()
    made = [await recorder.trip(name, step) for _ in range(ATTEMPTS)]
    return min(made, key=lambda trip: trip.calls)


async def _connection(url: str, recorder: Recorder) -> Trip:
    """Open a pool's second connection and check it out.

    With the first, an engine looks at its server, once and for all.
    """
    made = []
    for _ in range(ATTEMPTS):
        database = Database.from_url(url, environment="testing", min_idle=0)
        connection = database.engine.connect()
        try:
            async with database.engine.connect():
                made.append(await recorder.trip("connection: birth and checkout", connection.start))
                await connection.close()
        finally:
            await database.close()
    return min(made, key=lambda trip: trip.calls)


@dataclass(frozen=True)
class Modules:
    """The library's modules.

    Args:
        files: How many there are.
        lines: Of all together.
        long: Those of more than 500 lines, with how many they have.
        short: Those of fewer than 50 lines, ``__init__`` and ``__main__`` apart.
        circles: Groups of modules of which each is reached from each by imports, those for types
            and those within functions counted.
    """

    files: int
    lines: int
    long: dict[str, int]
    short: dict[str, int]
    circles: list[list[str]]


def modules() -> Modules:
    """Read the library's source."""
    root = _root()
    texts = {_name(root, path): path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
    sizes = {name: len(source.splitlines()) for name, source in sorted(texts.items())}
    packages = {_name(root, path) for path in root.rglob("__init__.py")}
    imports = {name: set(_imports(source, texts)) - {name} for name, source in texts.items()}
    return Modules(
        files=len(sizes),
        lines=sum(sizes.values()),
        long={name: size for name, size in sizes.items() if size > LONG},
        short={
            name: size
            for name, size in sizes.items()
            if size < SHORT and name not in packages and not name.endswith("__main__")
        },
        circles=_circles(imports),
    )


def _name(root: Path, path: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(source: str, known: dict[str, str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield module if module in known else node.module


def _circles(imports: dict[str, set[str]]) -> list[list[str]]:
    reached = {name: _reached(name, imports) for name in imports}
    circles = {
        tuple(sorted(other for other in reached[name] if name in reached[other]))
        for name in imports
        if name in reached[name]
    }
    return sorted(map(list, circles))


def _reached(name: str, imports: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    ahead = [name]
    while ahead:
        fresh = imports[ahead.pop()] - seen
        seen |= fresh
        ahead.extend(fresh)
    return seen


def _table(made: Sequence[Trip], found: Modules) -> str:
    lines = [f"{'trip':32} {'files':>5} {'moves':>5} {'calls':>5}"]
    lines += [f"{trip.name:32} {len(trip.files):5} {trip.moves:5} {trip.calls:5}" for trip in made]
    for trip in made:
        lines += ["", trip.name, *(f"    {file}" for file in trip.files)]
    lines += ["", f"{found.files} files, {found.lines} lines"]
    lines += [f"over {LONG}: {_sizes(found.long)}", f"under {SHORT}: {_sizes(found.short)}"]
    lines += [f"circle: {' '.join(circle)}" for circle in found.circles] or ["no circles"]
    return "\n".join(lines)


def _sizes(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items()) or "none"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", help="an empty database: postgresql+asyncpg://...")
    parser.add_argument("--json", type=Path, help="a file for all of it as JSON")
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        url = options.url
        if url is None:
            url = stack.enter_context(stack.enter_context(postgres_server()).database())
        made = asyncio.run(trips(url))
    found = modules()
    print(_table(made, found))
    if options.json:
        everything = {"trips": [asdict(trip) for trip in made], "modules": asdict(found)}
        options.json.write_text(json.dumps(everything, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
