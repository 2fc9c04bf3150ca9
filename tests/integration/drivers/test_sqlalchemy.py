"""What SQLAlchemy sends to a real server for its constructs changes nothing on the session."""

import contextlib
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session
from tests.integration.drivers.session import STATE
from tests.integration.engine.engines import with_driver
from tests.unit.drivers.constructs import BATCHES, STATEMENTS, Base

from penstock.drivers.effects import Effect, effects_of


@contextlib.contextmanager
def texts_of(engine: AsyncEngine) -> Iterator[list[str]]:
    texts: list[str] = []

    def note(_connection: object, _cursor: object, text: str, *_: object) -> None:
        texts.append(text)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        yield texts
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", note)


def state(connection: Connection) -> set[tuple[str, str]]:
    rows = {(name, value) for name, value in connection.exec_driver_sql(STATE)}
    connection.rollback()
    return rows


def reflect(connection: Connection) -> None:
    inspector = sa.inspect(connection)
    metadata = sa.MetaData()
    for schema in (None, "my schema"):
        metadata.reflect(connection, schema=schema, views=True)
        inspector.get_multi_table_comment(schema=schema)
        inspector.get_multi_check_constraints(schema=schema)
        inspector.get_multi_indexes(schema=schema)
        inspector.get_sequence_names(schema=schema)
        inspector.get_view_names(schema=schema)
        inspector.get_materialized_view_names(schema=schema)
    inspector.get_schema_names()
    inspector.get_temp_table_names()
    inspector.has_table("members")
    assert {"members", "my schema.order"} <= set(metadata.tables)


def run_all(connection: Connection) -> None:
    for name, statement in STATEMENTS.items():
        with Session(connection) as session:
            before = state(connection)
            session.execute(statement).close()  # type: ignore[call-overload]
            session.commit()
            assert state(connection) == before, name
    for name, (statement, rows) in BATCHES.items():
        before = state(connection)
        connection.execute(statement, rows)  # type: ignore[call-overload]
        connection.commit()
        assert state(connection) == before, name


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_all_that_sqlalchemy_sends_leaves_nothing(database_url: str, driver: str) -> None:
    engine = create_async_engine(with_driver(database_url, driver), enable_from_linting=False)
    try:
        with texts_of(engine) as texts:
            async with engine.connect() as connection:
                before = await connection.run_sync(state)
                await connection.execute(sa.schema.CreateSchema("my schema"))
                await connection.run_sync(Base.metadata.create_all)
                await connection.commit()
                await connection.run_sync(run_all)
                await connection.run_sync(reflect)
                await connection.run_sync(Base.metadata.drop_all)
                await connection.commit()
                after = await connection.run_sync(state)
    finally:
        await engine.dispose()

    assert after == before
    assert len(texts) > 200
    assert {
        text: effects_of(text)
        for text in texts
        if effects_of(text) & ~(Effect.READS | Effect.TRANSACTION)
    } == {}
