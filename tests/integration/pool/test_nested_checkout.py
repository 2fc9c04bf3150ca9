"""A task that would wait for the connection that it holds itself is told so at once."""

import asyncio
import logging
from typing import Any

import pytest
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from penstock import PenstockPool
from penstock.errors import NestedCheckout
from penstock.pool.events import NestedCheckoutSeen, PoolEvent


def engine_of(url: str, **settings: Any) -> AsyncEngine:
    return create_async_engine(url, poolclass=PenstockPool, pool_size=1, max_overflow=0, **settings)


async def hold_one_and_ask_for_another(engine: AsyncEngine) -> None:
    async with engine.connect(), engine.connect():
        pass


async def test_it_is_refused_at_once_with_both_stacks(database_url: str) -> None:
    engine = engine_of(database_url, nested_checkout="refuse")
    async with asyncio.timeout(5):  # pool_timeout is 30 s
        with pytest.raises(NestedCheckout) as refused:
            await hold_one_and_ask_for_another(engine)

    message = str(refused.value)
    assert isinstance(refused.value, SQLAlchemyTimeoutError)
    assert refused.value.phase == "nested"
    assert message.count("in hold_one_and_ask_for_another") == 2
    assert refused.value.snapshot is not None
    assert (refused.value.snapshot.checked_out, refused.value.snapshot.limit) == (1, 1)
    async with engine.connect():
        pass
    await engine.dispose()


async def test_production_warns_and_waits(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of(database_url, nested_checkout="warn", pool_timeout=1)
    seen: list[PoolEvent] = []
    assert isinstance(engine.pool, PenstockPool)
    engine.pool.listeners.add(seen.append)
    caplog.set_level(logging.WARNING, "penstock.pool")
    with pytest.raises(SQLAlchemyTimeoutError) as timed_out:
        await hold_one_and_ask_for_another(engine)
    await engine.dispose()

    assert not isinstance(timed_out.value, NestedCheckout)
    assert any("in hold_one_and_ask_for_another" in record.message for record in caplog.records)
    assert any(isinstance(event, NestedCheckoutSeen) for event in seen)


async def test_it_is_not_refused_while_there_is_room(database_url: str) -> None:
    engine = create_async_engine(
        database_url,
        poolclass=PenstockPool,
        pool_size=1,
        max_overflow=1,
        nested_checkout="refuse",
    )
    await hold_one_and_ask_for_another(engine)
    await engine.dispose()


async def test_another_task_may_wait_for_a_lease(database_url: str) -> None:
    engine = engine_of(database_url, nested_checkout="refuse")
    async with engine.connect():
        other = asyncio.create_task(hold_briefly(engine))
        await asyncio.sleep(0.05)
    await other
    await engine.dispose()


async def hold_briefly(engine: AsyncEngine) -> None:
    async with engine.connect():
        pass
