"""A pool belongs to one event loop of one process, and says so."""

import asyncio
import gc
import os

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tests.integration.pool.pools import backend

from penstock import PenstockPool
from penstock.errors import PoolInAnotherLoop


def test_another_loop_is_refused_with_the_remedy(database_url: str) -> None:
    engine = create_async_engine(database_url, poolclass=PenstockPool)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(backend(engine))
        with pytest.raises(PoolInAnotherLoop, match=r"await engine\.dispose\(\)"):
            second.run(backend(engine))
        first.run(engine.dispose())


def test_a_disposed_engine_may_be_used_by_another_loop(database_url: str) -> None:
    engine = create_async_engine(database_url, poolclass=PenstockPool)
    for _ in range(2):
        asyncio.run(use_and_dispose(engine))


async def use_and_dispose(engine: AsyncEngine) -> None:
    await backend(engine)
    await engine.dispose()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the loop that ended with sockets open
def test_dispose_helps_even_after_the_loop_has_ended(database_url: str) -> None:
    engine = create_async_engine(database_url, poolclass=PenstockPool)
    asyncio.run(backend(engine))
    asyncio.run(engine.dispose())
    asyncio.run(use_and_dispose(engine))
    gc.collect()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # this test's own threads
def test_a_forked_process_opens_its_own_and_leaves_the_others_alone(database_url: str) -> None:
    engine = create_async_engine(database_url, poolclass=PenstockPool)
    with asyncio.Runner() as runner:
        process = runner.run(backend(engine))
        child = os.fork()
        if child == 0:
            os._exit(_in_the_child(engine, process))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert runner.run(backend(engine)) == process
        runner.run(engine.dispose())


def _in_the_child(engine: AsyncEngine, parents: int) -> int:
    async def use() -> int:
        own = await backend(engine)
        await engine.dispose()
        return own

    try:
        return 0 if asyncio.run(use()) != parents else 1
    except BaseException:  # noqa: BLE001 - pytest must not go on in the child
        return 2


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # as above
async def test_a_process_forked_within_a_task_leaves_the_connections_alone(
    database_url: str,
) -> None:
    engine = create_async_engine(database_url, poolclass=PenstockPool)
    process = await backend(engine)
    child = os.fork()
    if child == 0:
        os._exit(_in_the_child(engine, process))
    _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - nothing else runs in this test
    assert os.waitstatus_to_exitcode(status) == 0
    assert await backend(engine) == process
    await engine.dispose()
