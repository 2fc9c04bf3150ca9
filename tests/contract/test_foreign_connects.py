"""Connects that go through an application's own code: whatever comes of them, the slot is free."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection
from tests.contract.subject import Subject, acquire, invalidate, numbers, release
from tests.eventually import eventually


class Foreign:
    """A connection of no driver that any pool knows."""

    def __init__(self) -> None:
        self.is_closed = False

    def rollback(self) -> None:
        """Nothing is ever begun."""

    def close(self) -> None:
        self.is_closed = True

    terminate = close


def bring(engine: AsyncEngine) -> list[Foreign]:
    """Have every connect of an engine return something foreign, and return what it did."""
    brought: list[Foreign] = []

    @event.listens_for(engine.sync_engine, "do_connect")
    def connect(*_: Any) -> Foreign:
        brought.append(Foreign())
        return brought[-1]

    return brought


def held(lease: PoolProxiedConnection) -> Any:
    """Return what a holder has instead of a driver's connection."""
    return lease.dbapi_connection


@pytest.mark.every_driver
async def test_what_a_do_connect_listener_brings_is_leased_and_closed(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=2, max_overflow=0, pool_timeout=5, _initialize=False)
    brought = bring(engine)

    one, two = await acquire(engine), await acquire(engine)

    assert [held(one), held(two)] == brought
    assert numbers(engine) == (2, 0, 0, 2)
    await invalidate(one)
    await eventually(lambda: brought[0].is_closed)
    await release(two)
    again = await acquire(engine)
    assert held(again) in brought[1:]
    await release(again)
    await engine.dispose()
    assert brought[1].is_closed


@pytest.mark.every_driver
async def test_a_foreign_connection_outlives_a_cancelled_lease_or_is_replaced(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5, _initialize=False)
    brought = bring(engine)
    lease = await acquire(engine)
    lease.invalidate(asyncio.CancelledError())
    await release(lease)

    again = await acquire(engine)

    assert held(again) is brought[-1]
    assert numbers(engine) == (1, 0, 0, 1)
    await release(again)


class SpeechlessError(Exception):
    """An error whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Interruption(BaseException):
    """None of the exceptions that programs handle."""


def ring(link: str) -> OSError:
    """Return an error that is its own cause's cause, as ``raise error.__cause__ from error`` does.

    Args:
        link: ``__cause__`` or ``__context__``, by which it refers back.
    """
    inner, outer = OSError("the driver's"), RuntimeError("wrapped")
    outer.__cause__ = inner
    setattr(inner, link, outer)
    return inner


def raising(error: BaseException) -> Callable[[], None]:
    """Return what raises the error."""

    def fail() -> None:
        raise error

    return fail


FAILURES = {
    "ring of causes": (raising(ring("__cause__")), OSError),
    "ring through a context": (raising(ring("__context__")), OSError),
    "no text": (raising(SpeechlessError()), SpeechlessError),
    "no exception": (raising(Interruption()), Interruption),
    "cancelled": (raising(asyncio.CancelledError()), BaseException),
    "a group": (raising(ExceptionGroup("two", [OSError("a"), OSError("b")])), ExceptionGroup),
}
WAYS = ("do_connect", "connect", "async_creator")


def break_connects(
    subject: Subject, way: str, fail: Callable[[], None]
) -> tuple[AsyncEngine, list[bool]]:
    """Make an engine of one slot whose connects fail while the list has something."""
    failing = [True]

    def pass_or_fail(*_: Any) -> None:
        if failing:
            fail()

    options: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 5}
    if way != "async_creator":
        engine = subject.engine(**options)
        event.listen(engine.sync_engine, way, pass_or_fail)
        return engine, failing

    dialect: Any = subject.engine().dialect
    arguments, connect_options = dialect.create_connect_args(make_url(subject.url))

    async def create() -> Any:
        pass_or_fail()
        return await dialect.loaded_dbapi.driver.connect(*arguments, **connect_options)

    return subject.engine(**options, async_creator=create), failing


@pytest.mark.drivers("asyncpg")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("failure", FAILURES)
async def test_the_slot_is_free_again_whatever_an_attempt_raises(
    subject: Subject, way: str, failure: str
) -> None:
    fail, raised = FAILURES[failure]
    engine, failing = break_connects(subject, way, fail)
    for _ in range(2):
        async with asyncio.timeout(5):
            with pytest.raises(raised):
                await acquire(engine)
    assert numbers(engine) == (1, 0, -1, 0)
    failing.clear()

    lease = await acquire(engine)

    assert numbers(engine) == (1, 0, 0, 1)
    await release(lease)
