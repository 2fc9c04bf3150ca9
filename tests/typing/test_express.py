"""What a type checker makes of queries, and of what a reader and a writer give for them."""

import re
import textwrap
from pathlib import Path

import pytest
from mypy import api

PRELUDE = """
from pydantic import BaseModel
from sqlalchemy import Row, bindparam, delete, func, insert, select, text, union, update
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column
from penstock import Database, query
from penstock.express import JsonQuery, Query
from penstock.fastapi import Reader, Writer

class Model(DeclarativeBase): ...

class User(Model):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str | None]

class Team(Model):
    __tablename__ = "teams"
    id: Mapped[int] = mapped_column(primary_key=True)

user_id = query(select(User.id))
columns = query(select(User.id, User.email).where(User.id == bindparam("user_id")))
user = query(select(User).where(User.id == bindparam("user_id")))
pairs = query(select(User, Team))
mixed = query(select(User, func.count()))
five = query(select(User.id, User.id, User.email, User.id, User.email))
added = query(insert(User).returning(User.id))
added_columns = query(insert(User).returning(User.id, User.email))
added_user = query(insert(User).returning(User))
updated = query(update(User).values(email="x").returning(User.id, User.email))
deleted = query(delete(User).returning(User))
either = query(union(select(User.id, User.email), select(User.id, User.email)))
words = query(text("SELECT 1"))
plain = query(insert(User))

class Out(BaseModel):
    id: int

as_json = JsonQuery(select(User.id), Out)

"""


def check(code: str, cache: Path) -> list[str]:
    """Return what mypy says of each line of the body of a function with a reader and a writer."""
    body = "async def route(reader: Reader, writer: Writer) -> None:\n"
    path = cache / "snippet.py"
    text = PRELUDE + body + textwrap.indent(textwrap.dedent(code), "    ")
    path.write_text(text, encoding="utf-8")
    report, error, _ = api.run(
        ["--strict", "--config-file=", "--cache-dir", str(cache), "--no-error-summary", str(path)]
    )
    plain = (report + error).replace("builtins.", "").replace("snippet.", "")
    return [line.partition(": ")[2] for line in plain.splitlines()]


def revealed(expressions: list[str], cache: Path) -> list[str]:
    """Return the types of expressions; mypy shows a row as its tuple, and the row within."""
    lines = check("\n".join(f"reveal_type({each})" for each in expressions), cache)
    types = [line.partition('"')[2].rstrip('"') for line in lines]
    plain = [each.replace("sqlalchemy.engine.row.", "") for each in types]
    return [re.sub(r"tuple\[[^\[\]]*, fallback=(Row\[[^\[\]]*\])\]", r"\1", each) for each in plain]


QUERIES = {
    "user_id": "Row[int]",
    "columns": "Row[int, str | None]",
    "user": "User",
    "pairs": "Row[User, Team]",
    "mixed": "Row[User, int]",
    "five": "Row[int, int, str | None, int, str | None]",
    "added": "Row[int]",
    "added_columns": "Row[int, str | None]",
    "added_user": "User",
    "updated": "Row[int, str | None]",
    "deleted": "User",
    "either": "Row[int, str | None]",
    "words": "Any",
    "plain": "Any",
}


def test_a_query_knows_its_results(cache: Path) -> None:
    found = revealed(list(QUERIES), cache)

    expected = [f"penstock.express.query.Query[{result}]" for result in QUERIES.values()]
    assert found == expected


def test_each_way_to_ask_knows_what_it_gives(cache: Path) -> None:
    expressions = {
        "await reader.one(columns, user_id=1)": "Row[int, str | None]",
        "await reader.with_timeout(0.5).one(columns, {'user_id': 1})": "Row[int, str | None]",
        "await reader.one_or_none(columns, user_id=1)": "Row[int, str | None] | None",
        "await reader.first(columns, user_id=1)": "Row[int, str | None] | None",
        "await reader.all(columns, user_id=1)": "list[Row[int, str | None]]",
        "await reader.one(user, user_id=1)": "User",
        "await reader.one_or_none(user, user_id=1)": "User | None",
        "await reader.all(user, user_id=1)": "list[User]",
        "await reader.exists(user, user_id=1)": "bool",
        "await reader.scalar(user_id)": "int | None",
        "await reader.scalar(select(User.id))": "int | None",
        "await reader.scalar(added)": "int | None",
        "await reader.json(user, Out, user_id=1)": "bytes",
        "await reader.json(as_json)": "bytes",
        "reader.stream(user, user_id=1)": "penstock.express.reader.Stream[User]",
        "(await reader.one(columns)).id": "Any",
        "(await reader.one(columns))[0]": "int",
        "(await reader.one(columns))[1]": "str | None",
        "await writer.one(added_columns)": "Row[int, str | None]",
        "await writer.scalar(added)": "int | None",
        "await writer.execute(plain, email='x')": "int",
        "await writer.execute_many(plain, [{'email': 'x'}])": "None",
        "await writer.copy_in(User, [{'email': 'x'}])": "int",
        "[row async for row in reader.stream(columns)]": "list[Row[int, str | None]]",
    }

    assert dict(zip(expressions, revealed(list(expressions), cache), strict=True)) == expressions


def test_the_first_column_of_several_is_a_scalar_too(cache: Path) -> None:
    expressions = {
        "await reader.scalar(columns)": "int | None",
        "await reader.scalar(user)": "User | None",
        "await reader.scalar(select(User))": "User | None",
    }

    assert dict(zip(expressions, revealed(list(expressions), cache), strict=True)) == expressions


@pytest.mark.parametrize(
    "expression",
    [
        "query('SELECT 1')",
        "query(User)",
        "query(func.now())",
        "await reader.one('SELECT 1')",
        "await reader.one(columns, 5)",
        "await reader.with_timeout('soon').one(columns)",
        "await writer.copy_in(User, 5)",
        "reader.execute(plain)",
        "await reader.json(select(User), Out)",
        "await reader.all(as_json)",
        "(await reader.one(user)).nothing",
    ],
)
def test_mistakes_are_seen(cache: Path, expression: str) -> None:
    assert any("error:" in line for line in check(expression, cache))


def test_a_snapshot_is_a_reader(cache: Path) -> None:
    code = """
        async with reader.snapshot() as snapshot:
            reveal_type(await snapshot.one(user, user_id=1))
        async with reader.stream(user, user_id=1) as users:
            async for each in users:
                reveal_type(each)
    """
    assert check(code, cache) == ['note: Revealed type is "User"'] * 2
