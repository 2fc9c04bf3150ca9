"""Reset on return: what one holder leaves behind, the next one does not find."""

from typing import Any

import pytest
from sqlalchemy import PoolResetState, event, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn
from tests.contract.journal import Journal
from tests.contract.subject import Subject, acquire, ask, checked_out, invalidate, pool_of, release
from tests.eventually import eventually

COUNT = "SELECT count(*) FROM left_behind"
INSERT = "INSERT INTO left_behind VALUES (1)"


async def make_table(engine: AsyncEngine) -> None:
    """Give the test an empty table."""
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS left_behind"))
        await connection.execute(text("CREATE TABLE left_behind (id integer)"))


async def count(engine: AsyncEngine) -> Any:
    """Return how many rows another connection sees."""
    async with engine.connect() as connection:
        return (await connection.execute(text(COUNT))).scalar()


@pytest.mark.every_driver
@pytest.mark.parametrize("reset", ["rollback", True])
async def test_no_uncommitted_row_survives(subject: Subject, reset: object) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_reset_on_return=reset)
    await make_table(engine)
    async with engine.connect() as connection:
        await connection.execute(text(INSERT))
    assert await count(engine) == 0

    async with checked_out(engine) as lease:
        await ask(lease, INSERT)
        assert await ask(lease, COUNT) == 1
    assert await count(engine) == 0


@pytest.mark.every_driver
async def test_with_commit_what_a_raw_lease_wrote_stays(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_reset_on_return="commit")
    await make_table(engine)
    async with checked_out(engine) as lease:
        await ask(lease, INSERT)
    assert await count(subject.engine()) == 1


async def test_with_commit_a_connection_still_rolls_back_what_it_began(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_reset_on_return="commit")
    await make_table(engine)
    async with engine.connect() as connection:
        await connection.execute(text(INSERT))
    assert await count(subject.engine()) == 0


@pytest.mark.every_driver
@pytest.mark.parametrize("reset", [None, False])
async def test_with_none_the_transaction_is_left_as_it_is(subject: Subject, reset: object) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_reset_on_return=reset)
    await make_table(engine)
    async with checked_out(engine) as lease:
        await ask(lease, INSERT)
    async with checked_out(engine) as lease:
        assert await ask(lease, COUNT) == 1
        await greenlet_spawn(lease.rollback)
    assert await count(engine) == 0


@pytest.mark.every_driver
async def test_a_scheme_of_ones_own_replaces_the_reset(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_reset_on_return=None)
    await make_table(engine)
    states: list[PoolResetState] = []

    @event.listens_for(engine.sync_engine, "reset")
    def reset(connection: Any, _record: Any, state: PoolResetState) -> None:
        states.append(state)
        if not state.terminate_only:
            connection.rollback()

    async with checked_out(engine) as lease:
        await ask(lease, INSERT)
    assert await count(engine) == 0
    plain = PoolResetState(transaction_was_reset=False, terminate_only=False, asyncio_safe=True)
    assert states[0] == plain
    assert len(states) == 2


async def test_reset_is_not_for_the_invalidated_and_for_the_detached_says_so(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    journal = Journal(engine)
    await invalidate(await acquire(engine))
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    assert journal.count("reset") == 0

    lease = await acquire(engine)
    lease.detach()
    await release(lease)
    (entry,) = journal.of("reset")
    assert entry.rest[1] == PoolResetState(
        transaction_was_reset=False, terminate_only=True, asyncio_safe=True
    )


@pytest.mark.every_driver
async def test_the_reset_does_not_repeat_what_the_connection_did(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0)
    await make_table(engine)
    rollback, called = engine.dialect.do_rollback, 0

    def counted(connection: Any) -> None:
        nonlocal called
        called += 1
        rollback(connection)

    monkeypatch.setattr(engine.dialect, "do_rollback", counted)
    async with engine.connect() as connection:
        await connection.execute(text(COUNT))
    assert called == 1
    async with checked_out(engine) as lease:
        await ask(lease, COUNT)
    assert called == 2


@pytest.mark.every_driver
async def test_autocommit_ends_with_the_lease(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0)
    await make_table(engine)
    async with engine.connect() as connection:
        usual = await connection.get_isolation_level()
        await connection.rollback()
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(INSERT))
    async with engine.connect() as connection:
        assert await connection.get_isolation_level() == usual
        await connection.execute(text(INSERT))
    assert await count(engine) == 1


@pytest.mark.every_driver
async def test_an_isolation_level_ends_with_the_lease(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0)
    other = "READ UNCOMMITTED" if engine.dialect.name == "sqlite" else "SERIALIZABLE"
    async with engine.connect() as connection:
        usual = await connection.get_isolation_level()
    assert usual != other
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level=other)
        assert await connection.get_isolation_level() == other
    async with engine.connect() as connection:
        assert await connection.get_isolation_level() == usual


@pytest.mark.every_driver
async def test_an_engine_with_another_isolation_level_shares_the_pool(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    await make_table(engine)
    committing = engine.execution_options(isolation_level="AUTOCOMMIT")
    assert committing.pool is engine.pool
    async with committing.connect() as connection:
        await connection.execute(text(INSERT))
    async with engine.connect() as connection:
        await connection.execute(text(INSERT))
    assert await count(committing) == 1
    assert pool_of(engine).checkedout() == 0


@pytest.mark.every_driver
async def test_an_error_in_a_transaction_does_not_reach_the_next_holder(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    await make_table(engine)

    async def insert_and_fail() -> None:
        async with engine.begin() as connection:
            await connection.execute(text(INSERT))
            raise KeyError

    with pytest.raises(KeyError):
        await insert_and_fail()
    assert await count(engine) == 0
    assert pool_of(engine).checkedout() == 0
