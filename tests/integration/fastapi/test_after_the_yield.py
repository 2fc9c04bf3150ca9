"""What a generator dependency does with the request's session after the response is an error."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from tests.integration.fastapi.notes import Note, Onlooker
from tests.servers.web import client_of

from penstock.errors import SessionClosed
from penstock.fastapi import ReadSession, WriteSession
from penstock.fastapi.request_sessions import HAS_EXIT_STACK

pytestmark = pytest.mark.skipif(
    not HAS_EXIT_STACK, reason="this FastAPI has no scopes of dependencies"
)

ONE = text("SELECT 1")
USES: dict[str, Callable[[Any, Note], Any]] = {
    "add": lambda session, note: session.add(note),
    "add_all": lambda session, note: session.add_all([note]),
    "begin": lambda session, note: session.begin(),
    "begin_nested": lambda session, note: session.begin_nested(),
    "commit": lambda session, note: session.commit(),
    "connection": lambda session, note: session.connection(),
    "delete": lambda session, note: session.delete(note),
    "delete_all": lambda session, note: session.delete_all([note]),
    "execute": lambda session, note: session.execute(ONE),
    "flush": lambda session, note: session.flush(),
    "get": lambda session, note: session.get(Note, 1),
    "get_one": lambda session, note: session.get_one(Note, 1),
    "invalidate": lambda session, note: session.invalidate(),
    "merge": lambda session, note: session.merge(note),
    "merge_all": lambda session, note: session.merge_all([note]),
    "refresh": lambda session, note: session.refresh(note),
    "rollback": lambda session, note: session.rollback(),
    "run_sync": lambda session, note: session.run_sync(lambda _: None),
    "scalar": lambda session, note: session.scalar(ONE),
    "scalars": lambda session, note: session.scalars(ONE),
    "stream": lambda session, note: session.stream(ONE),
    "stream_scalars": lambda session, note: session.stream_scalars(ONE),
}
READS = [
    name for name in USES if name.startswith(("exec", "get", "refresh", "run", "scalar", "stream"))
]
HARMLESS = {
    "aclose",
    "bind_mapper",
    "bind_table",
    "close",
    "close_all",
    "expire",
    "expire_all",
    "expunge",
    "expunge_all",
    "get_async_bind",
    "get_bind",
    "get_nested_transaction",
    "get_transaction",
    "identity_key",
    "in_nested_transaction",
    "in_transaction",
    "is_modified",
    "object_session",
    "reset",
    "sync_session_class",
}
"""What neither saves nor reads anything, and so may tidy up."""


def test_every_method_of_a_session_is_tried_here() -> None:
    methods = {
        name
        for name, method in inspect.getmembers(AsyncSession, callable)
        if not name.startswith("_")
    }
    assert methods - HARMLESS == set(USES)


async def _errors_of(app: FastAPI, *, is_complete: bool = True) -> list[BaseException]:
    """Return what the server is left with after GET /, which is answered."""
    raised: list[BaseException] = []

    async def remembering(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except BaseException as error:
            raised.append(error)
            raise

    async with client_of(remembering) as client:
        try:
            assert (await client.get("/")).status_code == 200
        except httpx.RemoteProtocolError:
            assert not is_complete
    return raised


async def _told(app: FastAPI, *, is_complete: bool = True) -> str:
    (error,) = await _errors_of(app, is_complete=is_complete)
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, SessionClosed)
    return str(error)


@pytest.mark.parametrize("use", USES)
async def test_a_use_after_the_yield_is_an_error_that_names_the_dependency(
    app: FastAPI, onlooker: Onlooker, use: str
) -> None:
    async def outbox(session: WriteSession) -> AsyncIterator[AsyncSession]:
        session.add(note := Note(text="before"))
        yield session
        result = USES[use](session, note)
        if inspect.isawaitable(result):
            await result

    @app.get("/")
    async def route(session: Annotated[AsyncSession, Depends(outbox)]) -> None: ...

    told = await _told(app)

    assert "its response (200) left" in told
    assert f"{outbox.__qualname__}() ({__file__}:" in told
    assert 'Depends(outbox, scope="function")' in told
    assert await onlooker.texts() == ["before"]
    assert await onlooker.backends("idle in transaction") == 0


@pytest.mark.parametrize("use", READS)
async def test_so_is_a_read(app: FastAPI, onlooker: Onlooker, use: str) -> None:
    async def page(session: ReadSession) -> AsyncIterator[None]:
        await session.execute(ONE)
        yield
        await USES[use](session, Note())

    @app.get("/", dependencies=[Depends(page)])
    async def route() -> None: ...

    told = await _told(app)

    assert 'Depends(page, scope="function")' in told
    assert await onlooker.backends("idle in transaction") == 0


async def test_a_plain_generator_is_named_too(app: FastAPI, onlooker: Onlooker) -> None:
    def outbox(session: WriteSession) -> Iterator[None]:
        yield
        session.add(Note(text="lost"))

    @app.get("/", dependencies=[Depends(outbox)])
    async def route() -> None: ...

    told = await _told(app)

    assert 'Depends(outbox, scope="function")' in told
    assert await onlooker.texts() == []


async def _record(session: AsyncSession) -> None:
    session.add(Note(text="from a helper"))


async def test_a_dependency_is_named_through_what_it_calls(app: FastAPI) -> None:
    @asynccontextmanager
    async def recorded(session: AsyncSession) -> AsyncIterator[None]:
        yield
        await _record(session)

    async def outbox(session: WriteSession) -> AsyncIterator[None]:
        async with recorded(session):
            yield

    @app.get("/", dependencies=[Depends(outbox)])
    async def route() -> None: ...

    told = await _told(app)

    assert 'Depends(outbox, scope="function")' in told


@pytest.mark.parametrize("use", ["add", "execute", "commit"])
async def test_within_the_functions_scope_it_is_saved(
    app: FastAPI, onlooker: Onlooker, use: str
) -> None:
    async def outbox(session: WriteSession) -> AsyncIterator[None]:
        yield
        if use == "execute":
            await session.execute(text("INSERT INTO notes (text) VALUES ('after')"))
        else:
            session.add(Note(text="after"))
        if use == "commit":
            await session.commit()

    @app.get("/")
    async def route(sent: Annotated[None, Depends(outbox, scope="function")]) -> None: ...

    async with client_of(app) as client:
        assert (await client.get("/")).status_code == 200

    assert await onlooker.texts() == ["after"]


async def test_tidying_up_after_the_yield_is_no_error(app: FastAPI, onlooker: Onlooker) -> None:
    async def tidy(session: WriteSession) -> AsyncIterator[None]:
        try:
            yield
        finally:
            session.expunge_all()
            assert not session.in_transaction()
            await session.close()

    @app.get("/", dependencies=[Depends(tidy)])
    async def route(session: WriteSession) -> None:
        session.add(Note(text="kept"))

    assert await _errors_of(app) == []
    assert await onlooker.texts() == ["kept"]


async def _in_a_stream(session: AsyncSession) -> AsyncIterator[str]:
    @asynccontextmanager
    async def recorded() -> AsyncIterator[None]:
        yield
        await session.scalar(select(Note.id))

    async with recorded():
        yield "row"


async def test_a_stream_is_not_taken_for_a_dependency(app: FastAPI) -> None:
    @app.get("/")
    async def route(session: WriteSession) -> StreamingResponse:
        return StreamingResponse(_in_a_stream(session))

    told = await _told(app, is_complete=False)

    assert "its response (200) left" in told
    assert "dependency" not in told
    assert "database.read()" in told
