"""Sentry sees what runs in the express lane, and no value of it."""

from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
from sqlalchemy import bindparam, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from penstock import Database, query
from penstock.exporters.sentry import instrument

SECRET = "a value"


class Base(DeclarativeBase): ...


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    line: Mapped[str]


by_line = query(select(Line).where(Line.line == bindparam("line")))
add = query(insert(Line).values(line=bindparam("line")))


@pytest.fixture
def reported() -> Iterator[list[Any]]:
    """The transactions that Sentry would be sent."""
    events: list[Any] = []

    def keep(event: Any, _: Any) -> None:
        events.append(event)

    client = sentry_sdk.Client(
        dsn="http://key@127.0.0.1:1/1",
        traces_sample_rate=1.0,
        default_integrations=False,
        auto_enabling_integrations=False,
        before_send_transaction=keep,
    )
    with sentry_sdk.isolation_scope() as scope:
        scope.set_client(client)
        yield events
    client.close(timeout=0)


async def work(database: Database) -> None:
    await database.reader.all(by_line, line=SECRET)
    await database.writer.execute(add, line=SECRET)
    await database.writer.execute_many(add, [{"line": SECRET}, {"line": SECRET}])
    await database.writer.copy_in(Line, [{"line": SECRET}])
    async with database.reader.stream(select(Line.line)) as lines:
        assert [line async for line in lines]
    async with database.reader.snapshot() as snapshot:
        await snapshot.scalar(text("SELECT 7"))


async def test_reads_writes_and_copies_are_spans_without_values(
    database_url: str, reported: list[Any]
) -> None:
    async with Database.from_url(database_url, environment="testing") as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        remove = instrument(database)
        with sentry_sdk.start_transaction(name="seen"):
            await work(database)
        remove()
        with sentry_sdk.start_transaction(name="unseen"):
            await work(database)

    seen, unseen = reported
    spans = [span["description"] for span in seen["spans"] if span["op"] == "db"]
    begins = {" ".join(span.split()[:2]).upper() for span in spans}
    assert begins >= {"SELECT LINES.ID,", "INSERT INTO", "SELECT LINES.LINE", "SELECT 7"}
    assert [span for span in spans if span.upper().startswith("COPY")]
    assert all(span["data"]["db.system"] == "postgresql" for span in seen["spans"])
    assert SECRET not in str(seen)
    assert not unseen["spans"]


async def test_a_statement_that_fails_ends_its_span(database_url: str, reported: list[Any]) -> None:
    async with Database.from_url(database_url, environment="testing") as database:
        instrument(database)
        with sentry_sdk.start_transaction(name="seen"), pytest.raises(Exception, match="missing"):
            await database.reader.scalar(text("SELECT * FROM missing"))

    (span,) = reported[0]["spans"]
    assert (
        span["data"]["status"] if "status" in span["data"] else span["status"] == "internal_error"
    )


def test_a_lane_that_runs_by_sessions_is_left_alone() -> None:
    database = Database.from_url("sqlite://")
    lane = database.lane
    instrument(database)()
    assert database.lane is lane
