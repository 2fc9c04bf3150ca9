"""Statements are cut as the server cuts them, whatever is in them, in linear time."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.drivers.effects import effects_of
from penstock.drivers.sql_text import Kind, Quotes, tokens

DIALECTS = [(Quotes.STANDARD, False), (Quotes.STANDARD, True), (Quotes.BACKSLASHES, True)]
DIALECTS += [(Quotes.MYSQL, False)]


def cut(statement: str, quotes: Quotes = Quotes.STANDARD, *, skips_rows: bool = False) -> list[str]:
    found = tokens(statement, quotes, skips_rows=skips_rows)
    return [f"{kind.name} {statement[begin:end]}" for kind, begin, end in found]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("a.B_1$ (", ["WORD a", "MARK .", "WORD B_1$", "MARK ("]),
        ("/* a /* b */ c */d--e\rf", ["WORD d", "WORD f"]),
        ("/*/ a */b/**/c", ["WORD b", "WORD c"]),
        ("'a''b' E'a\\'b''c' N'a\\'", ["TEXT 'a''b'", "TEXT E'a\\'b''c'", "TEXT N'a\\'"]),
        ("E'a' -- b\n\t'\\'c', 1", ["TEXT E'a' -- b\n\t'\\'c'", "MARK ,", "VALUE 1"]),
        ("E'a' 'b\\', 'c'", ["TEXT E'a'", "TEXT 'b\\'", "MARK ,", "TEXT 'c'"]),
        ("B'1' X'F' u&'a\\'", ["TEXT B'1'", "TEXT X'F'", "TEXT u&'a\\'"]),
        ('"a""(b" U&"c" u & "d"', ['NAME "a""(b"', 'CODED_NAME U&"c"', "WORD u"]),
        ("$$a$b$$ $c$ $$ $C$ $c$", ["TEXT $$a$b$$", "TEXT $c$ $$ $C$ $c$"]),
        ("a$$b $1$$c$$", ["WORD a$$b", "VALUE $1", "TEXT $$c$$"]),
        ("$a $é$ü$é$", ["OPERATOR $", "WORD a", "TEXT $é$ü$é$"]),
        ("a\u00a0b\u2028(", ["WORD a\u00a0b\u2028", "MARK ("]),
        ("1e5 1.5e-3 .5 1_0 0xfF", ["VALUE 1e5", "VALUE 1.5e-3", "VALUE .5", "VALUE 1_0"]),
        ("1and 1..2", ["VALUE 1", "WORD and", "VALUE 1", "MARK .", "VALUE .2"]),
        ("%(a_1)s::b %(a'b)s", ["VALUE %(a_1)s", "CAST ::", "WORD b", "DOUBTFUL %(a'b)s"]),
        ("a-->b\nc<--d", ["WORD a", "WORD c", "OPERATOR <"]),
        ("a 'b", ["WORD a", "OPEN_TEXT 'b"]),
        ('"b""', ['OPEN_NAME "b""']),
        ("/* /* */", ["OPEN_COMMENT /* /* */"]),
        ("$a$ $$", ["OPEN_TEXT $a$ $$"]),
        ("E'\\", ["OPEN_TEXT E'\\"]),
    ],
)
def test_a_statement_is_cut_as_postgresql_cuts_it(statement: str, expected: list[str]) -> None:
    assert cut(statement)[: len(expected)] == expected


def test_backslashes_escape_where_the_server_says_so() -> None:
    assert cut("'a\\' b' X'c\\'", Quotes.BACKSLASHES) == ["TEXT 'a\\' b'", "TEXT X'c\\'"]


def test_mysql_has_its_own_quotes_and_comments() -> None:
    statement = "\"a\\\"'\" `b'` 'c\\'' # d'\n--e -- f'\n$$"

    assert cut(statement, Quotes.MYSQL) == [
        'TEXT "a\\"\'"',
        "NAME `b'`",
        "TEXT 'c\\''",
        "OPERATOR -",
        "OPERATOR -",
        "WORD e",
        "OPERATOR $",
        "OPERATOR $",
    ]


def test_a_comma_takes_rows_of_parameters_with_it() -> None:
    rows = "($1::VARCHAR, $2, 3), ($4::TIMESTAMP WITH TIME ZONE, NULL, 1.5), (f(x), 2, 3)"

    assert cut(f"VALUES {rows}", skips_rows=True) == [
        *("WORD VALUES", "MARK (", "VALUE $1", "CAST ::", "WORD VARCHAR", "MARK , $2,", "VALUE 3"),
        *("MARK )", "MARK , ($4::TIMESTAMP WITH TIME ZONE, NULL, 1.5),", "MARK (", "WORD f"),
        *("MARK (", "WORD x", "MARK )", "MARK , 2,", "VALUE 3", "MARK )"),
    ]


GARBAGE = st.one_of(
    st.text(),
    st.text("'\"$\\/*-()%,;. \nUuEe&as1:[]"),
    st.lists(st.sampled_from(["'", '"', "$$", "$a$", "/*", "*/", "--", "\n", "\\", "E'", "a"])).map(
        "".join
    ),
)


@pytest.mark.parametrize(("quotes", "skips_rows"), DIALECTS)
@given(statement=GARBAGE)
def test_any_text_is_cut_into_tokens_in_their_order(
    statement: str, quotes: Quotes, skips_rows: bool
) -> None:
    found = list(tokens(statement, quotes, skips_rows=skips_rows))

    assert all(begin < end <= len(statement) for _, begin, end in found)
    assert all(one[2] <= other[1] for one, other in itertools.pairwise(found))
    assert not any(kind.name.startswith("OPEN_") for kind, *_ in found[:-1])
    assert effects_of(statement) is not None


@given(GARBAGE)
def test_what_skips_rows_cuts_the_rest_in_the_same_way(statement: str) -> None:
    def without_values(*, skips_rows: bool) -> list[str]:
        found = tokens(statement, skips_rows=skips_rows)
        kept = (statement[begin:end] for kind, begin, end in found if kind is not Kind.VALUE)
        return [text for text in kept if text[0] not in ",()"]

    skipped = without_values(skips_rows=True)
    remaining = iter(without_values(skips_rows=False))

    assert all(text in remaining for text in skipped)


PARTS = ["%(", "/*", "'", "''", "$$", "(", "$a$ $b$ ", '"', "E'\\' ", "--\n", "a(b) as (", " ", "1"]
PARTS += [",($1", ",(1,1,1,1,1,1", ",5::a::b", "(1,1,1", "x.", "$a", "E'a' -- -- \n", "%(a ", "-"]


@pytest.mark.parametrize("part", PARTS)
def test_the_time_is_linear_in_the_length(part: str) -> None:
    def seconds(length: int) -> float:
        statement = "SELECT " + part * (length // len(part))
        begin = time.process_time()
        for quotes, skips_rows in ((Quotes.STANDARD, True), (Quotes.MYSQL, False)):
            for _ in tokens(statement, quotes, skips_rows=skips_rows):
                pass
        return time.process_time() - begin

    short = min(seconds(3_000) for _ in range(3))

    # Twenty times as long: four hundred times the time if it were quadratic.
    assert min(seconds(60_000) for _ in range(2)) < 100 * short + 0.05
