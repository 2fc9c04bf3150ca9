"""A statement's shape: one line, at most 200 characters, and never a value."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.drivers.sql_text import LONGEST, _shape, shape

TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=30)
NUMBERS = st.one_of(
    st.integers(min_value=0).map(str),
    st.floats(min_value=0, allow_infinity=False, allow_nan=False).map(repr),
    st.integers(min_value=0).map(hex),
    st.integers(min_value=1000).map(lambda number: f"{number:_}"),
)


def plain(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def escaped(text: str) -> str:
    return "E'" + text.replace("\\", r"\\").replace("'", r"\'") + "'"


def dollars(text: str) -> str:
    return f"$tag$ {text.replace('$', '')} $tag$"


def in_a_comment(text: str) -> str:
    return f"/* {text.replace('/', '')} /* nested */ */ 1"


def in_a_line_comment(text: str) -> str:
    return f"1 -- {' '.join(text.split())}\n"


def mysql_text(text: str) -> str:
    return escaped(text)[1:]


def mysql_double(text: str) -> str:
    return '"' + text.replace("\\", r"\\").replace('"', '""') + '"'


def mysql_comment(text: str) -> str:
    return f"1 # {' '.join(text.split())}\n"


STATEMENT = "SELECT a FROM t1 WHERE b = {0} AND c = 'it''s' OR d = {1} AND e_2 = $1::INTEGER"


@pytest.mark.parametrize("write", [plain, escaped, dollars, in_a_line_comment])
@given(text=TEXTS, number=NUMBERS)
def test_no_text_and_no_number_survives_whatever_is_in_it(
    write: Callable[[str], str], text: str, number: str
) -> None:
    shaped = shape(STATEMENT.format(write(text), number))

    assert shaped == "SELECT a FROM t1 WHERE b = ? AND c = ? OR d = ? AND e_2 = ?::INTEGER"


@given(text=TEXTS)
def test_no_comment_survives(text: str) -> None:
    assert shape(f"SELECT {in_a_comment(text)} + 'x'") == "SELECT ? + ?"


@pytest.mark.parametrize("write", [mysql_text, mysql_double, mysql_comment])
@given(text=TEXTS, number=NUMBERS)
def test_mysqls_quotes_and_comments_are_understood_where_they_are_meant(
    write: Callable[[str], str], text: str, number: str
) -> None:
    statement = f"SELECT `a b` FROM t1 WHERE b = {write(text)} AND c = 'x' OR d = {number}"

    assert shape(statement, is_mysql=True) == (
        "SELECT `a b` FROM t1 WHERE b = ? AND c = ? OR d = ?"
    )


@given(TEXTS)
def test_any_text_at_all_has_a_shape_on_one_line_of_limited_length(text: str) -> None:
    for is_mysql in (False, True):
        shaped = shape(text, is_mysql=is_mysql)
        assert len(shaped) <= LONGEST
        assert len(shaped.splitlines()) <= 1


@given(st.integers(1, 3000))
def test_a_list_has_one_shape_however_long_it_is(length: int) -> None:
    numbers = range(1, length + 1)
    ids = ", ".join(f"${number}::INTEGER" for number in numbers)
    rows = ", ".join(f"(%(a__{number})s, lower(%(b__{number})s), {number})" for number in numbers)

    assert shape(f"SELECT a FROM t WHERE id IN ({ids})") == "SELECT a FROM t WHERE id IN (...)"
    assert shape(f"INSERT INTO t (a, b) VALUES {rows}") == "INSERT INTO t (a, b) VALUES (...)"
    assert shape(f"SELECT a = ANY(ARRAY[{ids}]") == "SELECT a = ANY(ARRAY[...]"


PARTS = [
    "%(",
    "%(a ",
    "IN (",
    "IN (a",
    "VALUES (",
    "VALUES (?),",
    "ARRAY[",
    "IN (SELECT ",
    "(",
    "()",
]
PARTS += ["'", "E'a' -- b\n", '"', "$a$", "/*", "--\n", "1.", "?", ",", " ", "IN ((((", "x IN () "]


@pytest.mark.parametrize("begin", ["SELECT ", "IN (", "VALUES (a), ("])
@pytest.mark.parametrize("part", PARTS)
def test_the_time_is_linear_in_the_length(part: str, begin: str) -> None:
    def seconds(length: int) -> float:
        statement = begin + part * (length // len(part))
        since = time.process_time()
        _shape(statement, is_mysql=False, longest=LONGEST)
        return time.process_time() - since

    short = min(seconds(2_000) for _ in range(3))

    # Twenty times as long: four hundred times the time if it were quadratic.
    assert min(seconds(40_000) for _ in range(2)) < 100 * short + 0.05


@pytest.mark.parametrize(
    ("statement", "shaped"),
    [
        ("SELECT  a,\n\tb\nFROM t ;", "SELECT a, b FROM t"),
        ('SELECT "it\'s 1" FROM "t 2"', 'SELECT "it\'s 1" FROM "t 2"'),
        ("SELECT sa_1, t2.c3 LIMIT 10", "SELECT sa_1, t2.c3 LIMIT ?"),
        ("SELECT * FROM t WHERE a = 'open", "SELECT * FROM t WHERE a = ?"),
        ("SELECT 1 /* open 'x'", "SELECT ?"),
        ("SELECT a WHERE b IN (SELECT c FROM d)", "SELECT a WHERE b IN (SELECT c FROM d)"),
        ("(a, b) IN ((?, ?), (?, ?))", "(a, b) IN (...)"),
        ("SELECT E'a'\n'b\\'c', U&'d', X'1F'", "SELECT ?, ?, ?"),
        ("SELECT E'a' -- d\n -- e\n\n'b\\'secret', 1", "SELECT ?, ?"),
        ("a ->> 'x' #>> '{y,z}'", "a ->> ? #>> ?"),
        ("SELECT -1.5e-10 + .5", "SELECT -? + ?"),
        ("UPDATE t SET a = VALUES(a)", "UPDATE t SET a = VALUES(a)"),
        ("WHERE %(id_1)s = a % 5 AND b LIKE '%%x'", "WHERE ? = a % ? AND b LIKE ?"),
    ],
)
def test_a_shape_is_what_one_would_write_by_hand(statement: str, shaped: str) -> None:
    assert shape(statement) == shaped


def test_a_long_statement_is_cut_at_200_characters() -> None:
    columns = ", ".join(f"column_{number}" for number in range(100))
    shaped = shape(f"SELECT {columns} FROM t WHERE a = 'secret'")

    assert shaped == f"SELECT {columns}"[:200]
    assert len(shaped) == LONGEST == 200
