"""What runs at once under undone() works one after the other, and within one another."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextvars import Context
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from tests.integration.fastapi.notes import Note, Onlooker

from penstock import Database
from penstock.errors import SessionBusy
from penstock.fastapi import Reader, ReadSession, Writer, WriteSession
from penstock.testing import rollback_after

COUNT = select(func.count()).select_from(Note)


@pytest.fixture
async def client(app: FastAPI, lone: Database) -> AsyncIterator[httpx.AsyncClient]:
    @app.post("/write/{word}", status_code=201)
    async def write(word: str, session: WriteSession) -> None:
        session.add(Note(text=word))
        await session.flush()
        await asyncio.sleep(0.01)

    @app.post("/both/{word}", status_code=201)
    async def both(
        word: str, writing: WriteSession, reading: ReadSession, reader: Reader, writer: Writer
    ) -> list[int]:
        writing.add(Note(text=word))
        await writing.flush()
        await writer.execute(Note.__table__.insert().values(text=f"{word} by the lane"))  # type: ignore[attr-defined]  # a table
        counts = await asyncio.gather(
            reading.scalar(COUNT), reader.scalar(COUNT), reader.scalar(COUNT)
        )
        return [count or 0 for count in counts]

    @app.get("/gathered")
    async def gathered(reader: Reader) -> list[int]:
        counts = await asyncio.gather(*(reader.scalar(COUNT) for _ in range(5)))
        return [count or 0 for count in counts]

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        yield client


async def add(database: Database, word: str) -> None:
    async with database.write() as session:
        session.add(Note(text=word))
        await session.flush()
        await asyncio.sleep(0.01)


async def add_and_fail(database: Database) -> None:
    async with database.write() as session:
        session.add(Note(text="lost"))
        await session.flush()
        await add(database, "lost with it")
        session.add(Note(text="lost"))


async def test_reads_at_once(client: httpx.AsyncClient, database: Database) -> None:
    async with database, rollback_after(database):
        await add(database, "one")
        assert await asyncio.gather(*(database.reader.scalar(COUNT) for _ in range(5))) == [1] * 5
        assert (await client.get("/gathered")).json() == [1] * 5


async def test_writes_at_once_each_keep_and_lose_what_is_theirs(
    client: httpx.AsyncClient, database: Database, onlooker: Onlooker
) -> None:
    async with database, rollback_after(database):
        outcomes = await asyncio.gather(
            *(add(database, word) for word in ("a", "b", "a", "c")), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes].count(IntegrityError) == 1
        assert await database.reader.scalar(COUNT) == 3

    assert await onlooker.texts() == []


async def test_requests_at_once(client: httpx.AsyncClient, database: Database) -> None:
    async with database, rollback_after(database):
        posts = [client.post(f"/write/{word}") for word in ("a", "b", "a")]
        reads = [client.get("/gathered") for _ in range(3)]
        answers = await asyncio.gather(*posts, *reads)

        assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201, 201, 409]
        assert (await client.post("/both/x")).status_code == 201
        assert await database.reader.scalar(COUNT) == 4


async def test_what_a_session_awaits_within_its_block_is_within_it(
    client: httpx.AsyncClient, database: Database, onlooker: Onlooker
) -> None:
    async with database, rollback_after(database):
        async with database.write() as session:
            session.add(Note(text="outer"))
            await session.flush()
            assert await database.reader.scalar(COUNT) == 1
            assert (await client.post("/write/inner")).status_code == 201
            await asyncio.gather(add(database, "a"), add(database, "b"))
            assert await session.scalar(COUNT) == 4
        with pytest.raises(IntegrityError):
            await add_and_fail(database)
        assert await database.reader.scalar(COUNT) == 4

    assert await onlooker.texts() == []


async def test_one_that_waits_for_an_earlier_one_that_never_ends_is_told_so(
    lone: Database,
) -> None:
    release = asyncio.Event()

    async def later() -> None:
        await release.wait()
        await add(lone, "never")

    async with lone, rollback_after(lone):
        task = asyncio.create_task(later())
        await asyncio.sleep(0)
        async with lone.write() as session:
            session.add(Note(text="held"))
            await session.flush()
            release.set()
            with pytest.raises(SessionBusy, match=r"Under rollback_after\(\)"):
                await task
        assert await lone.reader.scalar(COUNT) == 1


@pytest.mark.parametrize("work", [add, lambda database, _: database.reader.scalar(COUNT)])
async def test_one_that_is_cancelled_while_it_waits_takes_no_turn(
    database: Database, work: Callable[[Database, str], Coroutine[Any, Any, object]]
) -> None:
    async with database, rollback_after(database):
        for turns in range(5):
            async with database.write() as session:
                session.add(Note(text=f"first {turns}"))
                await session.flush()
                held = asyncio.get_running_loop().create_future()
                first = asyncio.create_task(held_by(database, held), context=Context())
                second: asyncio.Task[object] = asyncio.create_task(
                    work(database, "second"), context=Context()
                )
                for _ in range(turns):
                    await asyncio.sleep(0)
                second.cancel()
                await asyncio.wait([second])
            held.set_result(None)
            await first
            async with asyncio.timeout(5):
                await add(database, f"third {turns}")
        texts = [row[0] for row in await database.reader.all(select(Note.text))]

    assert "second" not in texts
    assert len(texts) == 10


async def held_by(database: Database, held: asyncio.Future[None]) -> None:
    """Wait for the turn, beside all others, and then for what is held."""
    async with database.read() as session:
        await session.scalar(COUNT)
        await held
