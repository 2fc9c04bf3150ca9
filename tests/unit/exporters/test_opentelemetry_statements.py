"""What a span says of its statement: never a value."""

import pytest

from penstock.exporters.opentelemetry_spans import LONGEST_TEXT, describer

describe = describer("postgresql")


def test_neither_values_nor_parameters_are_reported() -> None:
    described = describe("SELECT a -- for anna\n, 'it''s' FROM users WHERE id = $1 AND b = 42")

    assert described.text == "SELECT a , ? FROM users WHERE id = ? AND b = ?"


def test_mysql_has_strings_in_double_quotes_and_with_backslashes() -> None:
    described = describer("mysql")(r"""SELECT `a b`, 'it\'s', "s\"x" # anna""")

    assert described.text == "SELECT `a b`, ?, ?"


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("SELECT a FROM users, notes", "SELECT users"),
        ("select a from app.users u", "select app.users"),
        ('SELECT a FROM "my app"."my users"', 'SELECT "my app"."my users"'),
        ("SELECT 1", "SELECT"),
        ("SELECT extract(year FROM born) FROM users", "SELECT users"),
        ("SELECT a IS DISTINCT FROM b FROM users", "SELECT users"),
        ("SELECT DISTINCT a FROM users FOR UPDATE", "SELECT users"),
        ("SELECT a FROM (SELECT b FROM users) AS s", "SELECT"),
        ("INSERT INTO users (name) SELECT name FROM others", "INSERT users"),
        ("UPDATE ONLY users SET name = $1 FROM others", "UPDATE users"),
        ("DELETE FROM users WHERE id = $1", "DELETE users"),
        ("WITH a AS (SELECT b FROM c) DELETE FROM users", "DELETE users"),
        ("COPY users FROM STDIN", "COPY users"),
        ("CREATE TABLE users (id INTEGER)", "CREATE"),
        ("SHOW application_name", "SHOW"),
        ("(SELECT a FROM b) UNION (SELECT c FROM d)", ""),
        ("", ""),
    ],
)
def test_a_span_is_named_by_what_is_done_to_which_table(sql: str, name: str) -> None:
    assert describe(sql).name(0) == name


def test_attributes_are_those_of_the_conventions() -> None:
    assert describe("SELECT a FROM users WHERE b = 'c'").attributes(0) == {
        "db.query.text": "SELECT a FROM users WHERE b = ?",
        "db.query.summary": "SELECT users",
        "db.operation.name": "SELECT",
        "db.collection.name": "users",
    }


def test_several_in_one_are_a_batch() -> None:
    attributes = describe("INSERT INTO users VALUES ($1)").attributes(3)

    assert attributes["db.query.summary"] == "BATCH INSERT users"
    assert attributes["db.operation.name"] == "BATCH INSERT"
    assert attributes["db.operation.batch.size"] == 3


def test_a_batch_of_one_is_none() -> None:
    described = describe("INSERT INTO users VALUES ($1)")

    assert described.attributes(1) == described.attributes(0)


def test_a_long_statement_is_cut() -> None:
    columns = ", ".join(f"column_{letter}" for letter in "abcdefghij" * 50)

    described = describe(f"SELECT {columns} FROM users")

    assert len(described.text) == LONGEST_TEXT
    assert described.table == "users"


def test_a_literal_across_the_end_of_what_is_looked_at_is_left_out() -> None:
    described = describe("SELECT '" + "secret" * 2000 + "' FROM users")

    assert described.text == "SELECT ?"
