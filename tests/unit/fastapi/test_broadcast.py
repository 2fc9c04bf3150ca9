"""A document is made for all viewers at once, and only while there are any."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Message
from tests.eventually import eventually

from penstock.fastapi.broadcast import Broadcast, EventStream


class Documents:
    """Counts how often it was asked for one."""

    def __init__(self) -> None:
        self.made = 0
        self.fails = False

    def __call__(self) -> bytes:
        self.made += 1
        if self.fails:
            raise RuntimeError("no document")
        return b"%d" % self.made


@pytest.fixture
def documents() -> Documents:
    return Documents()


@pytest.fixture
def broadcast(documents: Documents) -> Broadcast:
    return Broadcast(documents, period=0.01, most=2)


@asynccontextmanager
async def looking(broadcast: Broadcast) -> AsyncIterator[AsyncIterator[bytes]]:
    """A viewer that has read how long to wait before it comes back."""
    with broadcast.viewer():
        events = broadcast.events()
        assert await anext(events) == b"retry: 1000\n\n"
        yield events


async def test_all_viewers_are_sent_the_same_document(
    broadcast: Broadcast, documents: Documents
) -> None:
    async with looking(broadcast) as one, looking(broadcast) as other:
        together = [{*await asyncio.gather(anext(one), anext(other))} for _ in range(3)]

    assert together == [{b"data: %d\n\n" % n} for n in (1, 2, 3)]


async def test_a_slow_viewer_misses_documents_and_then_gets_the_newest(
    broadcast: Broadcast, documents: Documents
) -> None:
    async with looking(broadcast) as events:
        assert await anext(events) == b"data: 1\n\n"
        await eventually(lambda: documents.made >= 6)
        event = await anext(events)

    assert int(event.removeprefix(b"data: ")) >= 6


async def test_nothing_is_made_without_viewers(broadcast: Broadcast, documents: Documents) -> None:
    before = asyncio.all_tasks()
    async with looking(broadcast) as events:
        await anext(events)
        assert len(asyncio.all_tasks() - before) == 1

    await eventually(lambda: not asyncio.all_tasks() - before)
    assert broadcast.viewers == 0


async def test_who_comes_after_everybody_left_is_served_too(broadcast: Broadcast) -> None:
    for expected in (b"data: 1\n\n", b"data: 2\n\n"):
        async with looking(broadcast) as events:
            assert await anext(events) == expected


async def test_a_document_that_cannot_be_made_is_logged_once_and_tried_again(
    broadcast: Broadcast, documents: Documents, caplog: pytest.LogCaptureFixture
) -> None:
    documents.fails = True
    async with looking(broadcast) as events:
        await eventually(lambda: documents.made >= 3)
        documents.fails = False
        assert (await anext(events)).startswith(b"data: ")

    assert [record.message for record in caplog.records] == [
        "the live document cannot be made; trying on"
    ]


async def test_one_viewer_too_many_is_asked_to_come_back(broadcast: Broadcast) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    with broadcast.viewer(), broadcast.viewer():
        await EventStream(broadcast, {})({"type": "http"}, receive, send)

    assert sent[0]["status"] == 503
    assert (b"retry-after", b"10") in sent[0]["headers"]
    assert broadcast.viewers == 0


async def test_a_viewer_that_leaves_gives_its_place_back(broadcast: Broadcast) -> None:
    sent: list[Message] = []
    gone = asyncio.Event()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) == 4:
            gone.set()

    await EventStream(broadcast, {"X-One": "1"})({"type": "http"}, receive, send)

    assert sent[0]["status"] == 200
    assert (b"x-one", b"1") in sent[0]["headers"]
    assert sent[2]["body"] == b"data: 1\n\n"
    assert broadcast.viewers == 0
