"""What an error says in production: the fault, and nobody's values, on each driver and lane."""

import enum
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    Enum,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    bindparam,
    insert,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from penstock import Database

SECRET = "ada-4711"
OTHER = "4111111111"


class Mood(enum.Enum):
    """A column's values."""

    FINE = 1


PEOPLE = Table(
    "people",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("email", String(20), nullable=False),
    Column("age", Integer),
    Column("mood", Enum(Mood, native_enum=False)),
    UniqueConstraint("email", name="one_email"),
    CheckConstraint("age < 1000", name="an_age"),
)
PERSON = {"id": 1, "email": SECRET, "age": 1, "mood": None}
FAULTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "unique": (insert(PEOPLE), {**PERSON, "id": 2}),
    "not null": (insert(PEOPLE), {**PERSON, "id": 2, "email": None, "age": 471}),
    "check": (insert(PEOPLE), {**PERSON, "id": 2, "email": f"{SECRET}b", "age": 4711}),
    "no enum": (insert(PEOPLE), {**PERSON, "id": 2, "mood": SECRET}),
    "literal": (text(f"SELECT '{SECRET}', {OTHER} FROM nowhere"), {}),
    "syntax": (text(f"SELECT 1 FRM '{SECRET}'"), {}),
}
POSTGRESQLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "too long": (insert(PEOPLE), {**PERSON, "id": 2, "email": SECRET * 9}),
    "no number": (text("SELECT CAST(CAST(:value AS text) AS integer)"), {"value": SECRET}),
    "no number literally": (text(f"SELECT CAST('{SECRET}' AS integer)"), {}),
    "out of range": (text("SELECT CAST(CAST(:v AS text) AS integer)"), {"v": OTHER}),
    "of another type": (
        select(bindparam("value", type_=Integer)).where(text("true")),
        {"value": SECRET},
    ),
    "no date": (text(f"SELECT date '{OTHER}-13-01'"), {}),
    "no JSON": (text("SELECT CAST(CAST(:value AS text) AS json)"), {"value": f'{{"{SECRET}'}),
}


@pytest.fixture(params=["production", "development"])
async def database(any_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """A database with one person in it, in either environment."""
    database = Database.from_url(
        any_url, environment=request.param, echo=False, telemetry=False, budget="off"
    )
    async with database:
        async with database.engine.begin() as connection:
            await connection.run_sync(PEOPLE.metadata.drop_all)
            await connection.run_sync(PEOPLE.metadata.create_all)
            await connection.execute(insert(PEOPLE), PERSON)
        yield database


def faults_of(database: Database) -> dict[str, tuple[Any, dict[str, Any]]]:
    is_postgresql = database.engine.dialect.name == "postgresql"
    return FAULTS | (POSTGRESQLS if is_postgresql else {})


async def raised(database: Database, statement: Any, values: dict[str, Any]) -> StatementError:
    with pytest.raises(StatementError) as found:
        async with database.write() as session:
            await session.execute(statement, values)
    return found.value


async def test_a_sessions_errors_show_no_value_in_production(database: Database) -> None:
    shows = database.settings.environment == "development"
    shown = {}
    for fault, (statement, values) in faults_of(database).items():
        error = await raised(database, statement, values)
        told = f"{error} {error!r} {error.orig if isinstance(error, DBAPIError) else ''}"
        shown[fault] = any(value in told for value in ("471", "4111", "ada"))
        assert len(str(error).split("[SQL")[0]) > 20, error

    if shows:
        assert any(shown.values())
    else:
        assert [fault for fault, is_shown in shown.items() if is_shown] == []


async def test_the_express_lanes_errors_show_none_either(database: Database) -> None:
    if database.settings.driver != "asyncpg" or database.settings.environment == "development":
        pytest.skip("elsewhere it is SQLAlchemy's")
    shown = {}
    for fault, (statement, values) in faults_of(database).items():
        if values and fault in {"unique", "not null", "check", "no enum", "too long"}:
            statement = statement.values(values)  # noqa: PLW2901 - the same one, bound
            values = {}  # noqa: PLW2901 - as above
        with pytest.raises(StatementError) as found:
            await database.writer.execute(statement, **values)
        told = f"{found.value} {found.value!r}"
        shown[fault] = any(value in told for value in ("471", "4111", "ada"))

    assert [fault for fault, is_shown in shown.items() if is_shown] == []


async def test_which_constraint_was_violated_is_told(database: Database) -> None:
    error = await raised(database, *FAULTS["unique"])

    assert isinstance(error, IntegrityError)
    assert any(name in str(error) for name in ("one_email", "people.email"))
