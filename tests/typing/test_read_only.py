"""What a type checker makes of the two kinds of session."""

import textwrap
from pathlib import Path

import pytest
from mypy import api

PRELUDE = """
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from penstock.database import ReadOnlySession
from penstock.fastapi import ReadSession, WriteSession

class Model(DeclarativeBase): ...

class User(Model):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

"""


def check(code: str, cache: Path) -> str:
    path = cache / "snippet.py"
    path.write_text(PRELUDE + textwrap.dedent(code), encoding="utf-8")
    report, error, _ = api.run(
        ["--strict", "--config-file=", "--cache-dir", str(cache), "--no-error-summary", str(path)]
    )
    return report + error


@pytest.mark.parametrize(
    "statement",
    [
        "session.add(User(name='x'))",
        "session.add_all([])",
        "await session.delete(User(name='x'))",
        "await session.merge(User(name='x'))",
        "await session.flush()",
        "await session.commit()",
        "await session.execute(insert(User).values(name='x'))",
        "await session.execute(update(User).values(name='x'))",
        "await session.execute(delete(User))",
        "await session.scalar(insert(User).values(name='x').returning(User.id))",
    ],
)
def test_a_write_through_a_read_session_is_a_type_error(statement: str, cache: Path) -> None:
    report = check(f"async def route(session: ReadSession) -> None:\n    {statement}\n", cache)

    assert "error:" in report


def test_reading_has_the_types_that_sqlalchemy_gives(cache: Path) -> None:
    report = check(
        """
        async def route(session: ReadSession) -> None:
            reveal_type(await session.get(User, 1))
            reveal_type((await session.scalars(select(User))).all())
            reveal_type((await session.execute(select(User.id, User.name))).one())
            reveal_type(await session.scalar(select(User.name)))
            await session.execute(text("SELECT 1"))
        """,
        cache,
    )

    assert "error:" not in report
    assert "User | None" in report or "Union[snippet.User, None]" in report
    assert "Sequence[snippet.User]" in report
    assert "Row[int, str]" in report or "Row[builtins.int, builtins.str]" in report
    assert "str | None" in report or "Union[builtins.str, None]" in report


def test_each_session_fits_where_existing_code_asks_for_either(cache: Path) -> None:
    report = check(
        """
        from sqlalchemy.ext.asyncio import AsyncSession
        from penstock import Database

        async def names(session: ReadOnlySession) -> None: ...
        async def load(session: AsyncSession) -> None:
            session.add(User(name="x"))

        class Repository:
            def __init__(self, session: AsyncSession) -> None: ...

        async def route(reading: ReadSession, writing: WriteSession, database: Database) -> None:
            await names(reading)
            await names(writing)
            await load(reading)
            await load(writing)
            Repository(reading)
            async with database.read() as session:
                Repository(session)
                await names(session)
        """,
        cache,
    )

    assert "error:" not in report
