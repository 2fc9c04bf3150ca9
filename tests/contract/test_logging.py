"""What the pool writes into the ``sqlalchemy.pool`` loggers, and under which name."""

import logging
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.contract.subject import Subject, acquire, checked_out, invalidate, pool_of, release
from tests.eventually import eventually

CREATED = "Created new connection"
CHECKED_OUT = ("checked out from pool", "being returned to pool")


@pytest.fixture
def name() -> Iterator[str]:
    """A logging name of this test alone, whose logger loses what ``echo`` hung on it."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    for logger in list(logging.Logger.manager.loggerDict):
        if logger.endswith(name):
            logging.getLogger(logger).handlers.clear()


def lines(caplog: pytest.LogCaptureFixture, *, level: int) -> str:
    """Return what the pool wrote at one level."""
    return "\n".join(
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("sqlalchemy.pool") and record.levelno == level
    )


async def live(engine: AsyncEngine) -> tuple[Any, Any]:
    """Let a pool create, hand out, invalidate and replace a connection; tell which both were."""
    async with checked_out(engine) as lease:
        first = lease.dbapi_connection
    await invalidate(await acquire(engine))
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    async with checked_out(engine) as lease:
        second = lease.dbapi_connection
    return first, second


@pytest.mark.every_driver
async def test_echo_debug_shows_every_step(
    subject: Subject, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = subject.engine(echo_pool="debug", pool_logging_name=name)
    first, second = await live(engine)
    steps = lines(caplog, level=logging.DEBUG)
    for connection in (first, second):
        assert f"{CREATED} {connection!r}" in steps
        for words in CHECKED_OUT:
            assert f"Connection {connection!r} {words}" in steps
        assert f"Connection {connection} rollback-on-return" in steps
    assert f"Hard-closing connection {first!r}" in steps
    assert f"Invalidate connection {first!r}" in lines(caplog, level=logging.INFO)


async def test_echo_shows_invalidations_alone(
    subject: Subject, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = subject.engine(echo_pool=True, pool_logging_name=name)
    first, _ = await live(engine)
    assert lines(caplog, level=logging.INFO) == f"Invalidate connection {first!r}"
    assert lines(caplog, level=logging.DEBUG) == ""


async def test_the_reason_of_an_invalidation_is_written_down(
    subject: Subject, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = subject.engine(echo_pool=True, pool_logging_name=name)
    async with checked_out(engine) as lease:
        lease.invalidate(ValueError("it smells"), soft=True)
        connection = lease.dbapi_connection
    (line,) = lines(caplog, level=logging.INFO).splitlines()
    assert line == f"Soft Invalidate connection {connection!r} (reason: ValueError:it smells)"


async def test_a_connection_that_became_too_old_is_written_down(
    subject: Subject, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = subject.engine(echo_pool=True, pool_logging_name=name, pool_recycle=0)
    async with checked_out(engine) as lease:
        connection = lease.dbapi_connection
    async with checked_out(engine):
        pass
    assert f"Connection {connection!r}" in lines(caplog, level=logging.INFO)


async def test_dispose_and_recreate_are_written_down(
    subject: Subject, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = subject.engine(echo_pool=True, pool_logging_name=name, pool_size=2)
    async with checked_out(engine):
        pass
    await engine.dispose()
    told = lines(caplog, level=logging.INFO)
    assert "Pool disposed. Pool size: 2  Connections in pool: 0" in told
    assert "Pool recreating" in told


async def test_without_echo_nothing_is_written(
    subject: Subject, caplog: pytest.LogCaptureFixture
) -> None:
    await live(subject.engine())
    assert lines(caplog, level=logging.INFO) == lines(caplog, level=logging.DEBUG) == ""


async def test_the_logger_sqlalchemy_pool_switches_it_on_as_echo_does(
    subject: Subject, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "sqlalchemy.pool"):
        await live(subject.engine())
    steps = lines(caplog, level=logging.DEBUG)
    assert all(words in steps for words in (CREATED, *CHECKED_OUT))
    assert "Invalidate connection" in lines(caplog, level=logging.INFO)


@pytest.mark.every_driver
async def test_the_logging_name_is_part_of_the_loggers_name(
    subject: Subject, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = subject.engine(echo_pool="debug", pool_logging_name=name)
    async with checked_out(engine):
        pass
    await engine.dispose()
    async with checked_out(engine):
        pass
    names = {record.name for record in caplog.records}
    assert len(names) == 1
    (logger,) = names
    assert logger.startswith("sqlalchemy.pool.")
    assert logger.endswith(f".{subject.poolclass.__name__}.{name}")


async def test_a_failed_connect_is_written_at_debug(
    subject: Subject, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = subject.engine(
        echo_pool="debug", pool_logging_name=name, connect_args={"no_such_argument": 1}
    )
    with pytest.raises(TypeError):
        await release(await acquire(engine))
    assert "Error on connect():" in lines(caplog, level=logging.DEBUG)
