"""What a statement may leave behind on its session, by its text."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.drivers.effects import Effect, effects_of

READS = Effect.READS
SESSION = Effect.SESSION
READS_AND_LEAVES = SESSION | READS


@pytest.mark.parametrize(
    ("statement", "effects"),
    [
        ("", Effect.NONE),
        (" ; -- nothing\n /* ; */ ;", Effect.NONE),
        ("SELECT 1", READS),
        ("\n-- a\n/* b */ ((sElEcT 1)) ;; -- c", READS),
        ("VALUES (1)", READS),
        ("TABLE t", READS),
        ("SHOW search_path", READS),
        ("WITH a AS (SELECT 1) SELECT * FROM a", READS),
        ("EXPLAIN (ANALYZE, COSTS OFF) DELETE FROM t", READS),
        ("EXPLAIN ANALYZE VERBOSE EXECUTE a(1)", READS_AND_LEAVES),
        ("EXPLAIN (SELECT f(1))", READS_AND_LEAVES),
        ("EXPLAIN DECLARE a CURSOR FOR SELECT 1", READS_AND_LEAVES),
        ("INSERT INTO t (a) VALUES ($1)", Effect.NONE),
        ("LOCK TABLE t IN SHARE MODE", Effect.NONE),
        ("NOTIFY a, 'f(x)'", Effect.NONE),
        ("SELECT 1; SELECT 2", Effect.SEVERAL),
        (";SET a = 1;;SELECT 2;", SESSION | Effect.SEVERAL),
        ("BEGIN; SELECT f(1); COMMIT", SESSION | Effect.SEVERAL | Effect.CONTROL),
        ("SELECT 'open", SESSION | Effect.SEVERAL),
        ('SELECT "open', SESSION | Effect.SEVERAL),
        ("SELECT 1 /* open", SESSION | Effect.SEVERAL),
        ("SELECT $a$ open $b$", SESSION | Effect.SEVERAL),
    ],
)
def test_the_effects_of_a_statement(statement: str, effects: Effect) -> None:
    assert effects_of(statement) == effects


@pytest.mark.parametrize(
    "statement",
    [
        *("BEGIN", "begin work", "START TRANSACTION READ ONLY", "COMMIT AND CHAIN", "END", "ABORT"),
        *("ROLLBACK", "SAVEPOINT a", "RELEASE SAVEPOINT a", "ROLLBACK TO a", "COMMIT PREPARED 'a'"),
        *("ROLLBACK PREPARED 'a'", "PREPARE TRANSACTION 'a'", "/**/ PREPARE--\nTRANSACTION $$a$$"),
    ],
)
def test_transaction_control(statement: str) -> None:
    assert effects_of(statement) == Effect.CONTROL


@pytest.mark.parametrize(
    "statement",
    [
        *("PREPARE a AS SELECT 1", "PREPARE transaction AS SELECT $1", "PREPARE transaction (a)"),
        *("DEALLOCATE a", "DEALLOCATE PREPARE ALL", "DISCARD ALL", "DISCARD PLANS"),
        "DO $$ BEGIN EXECUTE 'PREPARE a AS SELECT 1'; END $$",
        *("LOAD 'a'", "DO $$ BEGIN LOAD 'a'; END $$"),
        "SELECT pg_create_physical_replication_slot('a', false, true)",
        "SELECT * FROM pg_create_logical_replication_slot('a', 'b', true)",
    ],
)
def test_statements_whose_state_only_a_new_connection_undoes(statement: str) -> None:
    assert effects_of(statement) & ~Effect.READS == SESSION | Effect.LASTING


@pytest.mark.parametrize(
    "statement",
    [
        *("SET a = 1", "SET SESSION a TO 1", "RESET ALL", "RESET a", "SET ROLE a", "RESET ROLE"),
        *("SET SESSION AUTHORIZATION a", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
        *("SET local.a = 1", "SET transaction.a = 1", "SET constraints . a = 1", 'SET "local" = 1'),
        *("SET LOCAL seed = 0.5", 'SET LOCAL "Seed" TO 0.5', "SET LOCAL search_path = pg_temp"),
        *("SET LOCAL search_path TO 'pg_temp', a", "DISCARD TEMP", "DISCARD SEQUENCES"),
        *("LISTEN a", "UNLISTEN *", "EXECUTE a", "DECLARE a CURSOR FOR SELECT 1", "FETCH a"),
        *(
            "MOVE a",
            "CLOSE ALL",
            "DO $$ BEGIN END $$",
            "CALL a()",
            "CREATE EXTENSION a",
        ),
        *("CREATE TEMP TABLE a ()", "CREATE LOCAL TEMPORARY VIEW a AS SELECT 1"),
        *("CREATE TABLE pg_temp.a ()", 'DROP TABLE "pg_temp_3".a', "CREATE TABLE a AS EXECUTE b"),
        *("CREATE FUNCTION a() RETURNS int RETURN 1", "CREATE SCHEMA a CREATE TEMP VIEW b AS c"),
        *("UPDATE pg_settings SET setting = 1", 'update only "pg_catalog" . pg_settings set a = 1'),
        *("SECURITY LABEL ON TABLE a IS 'b'", "UNKNOWN a", "'a'", "42", '"select" 1', "{call a}"),
    ],
)
def test_statements_that_leave_state(statement: str) -> None:
    assert effects_of(statement) & ~Effect.TRANSACTION == SESSION


@pytest.mark.parametrize(
    "statement",
    [
        *(
            "SET LOCAL a = 1",
            "SET LOCAL a.b = 'c'",
            "SET TRANSACTION READ ONLY",
            "SET LOCAL ROLE a",
        ),
        *(
            "SET CONSTRAINTS ALL DEFERRED",
            "SET TRANSACTION SNAPSHOT 'a'",
            "SET LOCAL TIME ZONE 'a'",
        ),
        "COPY t (a) FROM STDIN (FORMAT binary)",
    ],
)
def test_statements_that_end_with_their_transaction(statement: str) -> None:
    assert effects_of(statement) & ~Effect.TRANSACTION == Effect.NONE


@pytest.mark.parametrize(
    "statement",
    [
        "SET LOCAL app.tenant = '5'",
        "SELECT set_config('app.tenant', $1, true)",
        "SELECT pg_advisory_xact_lock(1)",
        "SET TRANSACTION READ ONLY",
    ],
)
def test_statements_that_leave_what_ends_with_the_transaction(statement: str) -> None:
    assert effects_of(statement) & ~READS == Effect.TRANSACTION


@pytest.mark.parametrize(
    ("call", "leaves"),
    [
        ("set_config('a', 'b', true)", False),
        ("pg_catalog.Set_Config ($1, %(b)s, /* c */ TRUE)", False),
        ("set_config(:a, lower($1), true)", False),
        ("set_config('a', 'b', false)", True),
        ("set_config('a', 'b', $3)", True),
        ("set_config('a', 'b', %s)", True),
        ("set_config('a', 'b', :c)", True),
        ("set_config('a', 'b', 't')", True),
        ("set_config('a', 'b', NOT true)", True),
        ("set_config('a', 'b', t.true)", True),
        ("set_config('a', 'b', is_local => true)", True),
        ("set_config('a', (SELECT 'b', true))", True),
        ("set_config($1, $2, $3, true)", True),
        ("set_config('seed', '0.5', true)", True),
        ("set_config('search_path', 'a, pg_temp', true)", True),
        ("a.set_config('a', 'b', true)", True),
        ('"Set_Config"(1, 2, true)', True),
        ("lower(a)", False),
        ("LOWER (a)", False),
        ("pg_catalog . lower(a)", False),
        ('"pg_catalog"."lower"(a)', False),
        ('"LOWER"(a)', True),
        ('"PG_CATALOG".lower(a)', True),
        ("public.lower(a)", True),
        ("a.pg_catalog.lower(a)", True),
        ("lower\u212a(a)", True),
        ("u&\"lower\"(a)", True),
        ("f -- a\n /* b */ (a)", True),
        ("a . f\n. g (x)", True),
        ('"coalesce"(a)', True),
        ("coalesce(a, b)", False),
        ("pg_advisory_xact_lock(1)", False),
        ("pg_advisory_lock(1)", True),
        ("dblink('a')", True),
        ("lastval()", False),
        ("a %f(b)", True),
        ("1 %(f(2))", True),
        ("a OPERATOR(pg_catalog.+) b", False),
        ("'f(a)' || \"f(a)\"", False),
        ("a \u212a(b) FROM (SELECT 1) AS a", False),
    ],
)  # fmt: skip
def test_calls_are_seen_in_every_spelling(call: str, leaves: bool) -> None:
    effects = effects_of(f"SELECT {call}") & ~Effect.TRANSACTION
    assert effects == (READS_AND_LEAVES if leaves else READS)
    if leaves:
        assert effects_of(f"INSERT INTO t (a) SELECT {call} RETURNING a") & SESSION
        assert effects_of(f"SELECT DISTINCT ON (a) {call}") & SESSION


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT a FROM t WHERE NOT ilike(a)",
        "SELECT a FROM t WHERE NOT materialized(a)",
        "SELECT a FROM t JOIN u ON conflict(a) WHERE b",
        "INSERT INTO t SELECT a FROM b JOIN c ON conflict(a) ON CONFLICT (a) DO NOTHING",
        "MERGE INTO t USING u ON conflict(a) WHEN MATCHED THEN DO NOTHING",
        "MERGE INTO t USING u ON CASE WHEN a THEN insert(a) END WHEN MATCHED THEN DO NOTHING",
        "SELECT CASE WHEN a THEN insert(a) END",
        "SELECT join(a, b)",
        "SELECT a FROM stdin(1)",
        "SELECT cube(a) FROM t GROUP BY a",
        "SELECT a FROM t GROUP BY a, f(cube(b))",
        "SELECT a FROM t GROUP BY a ORDER BY a, cube(b)",
        "SELECT first(a), next(a), second(a), key(a), zone(a), sets(a), over(a), set(a)",
        "SELECT a FROM f(b) WITH ORDINALITY, g(c)",
        "WITH a AS (SELECT 1) SELECT a, f(b)",
        "WITH a AS (SELECT 1) (SELECT a) ORDER BY a, f(b)",
        "DELETE FROM t USING f(a)",
        "CREATE TABLE a AS SELECT b FROM c JOIN d ON f(e)",
        "CREATE INDEX a ON t (f(b))",
        "ALTER TABLE t ALTER a TYPE int USING f(a)",
        "UPDATE t SET a = 1 RETURNING WITH (OLD AS o) f(a)",
    ],
)
def test_calls_are_seen_where_a_clause_would_look_the_same(statement: str) -> None:
    assert effects_of(statement) & SESSION


def test_texts_are_read_in_both_ways_where_a_backslash_stands_before_a_quote() -> None:
    # The call is in a text where standard_conforming_strings is on, and in the second where off.
    assert effects_of(r"SELECT 'a\' || f(x) || 'b'") == READS_AND_LEAVES
    assert effects_of(r"SELECT 'a\', ' || f(x) || '\''") == READS_AND_LEAVES
    assert effects_of(r"SELECT a LIKE 'b' ESCAPE '\'") == READS
    assert effects_of(r"SELECT a LIKE 'b' ESCAPE '\' OR a LIKE 'c' ESCAPE '\'") == READS
    assert effects_of(r"SELECT 'a\'; SET a = 'b'") == SESSION | Effect.SEVERAL


TOKENS = [
    *("SELECT", "select", "f", "lower", "pg_catalog", "set_config", "a", '"a""("', '"f"', "temp"),
    *("(", ")", "[", "]", ",", ".", ";", "::", "=", "||", "1.5", "$1", "'a''('", "$a$ ( $a$"),
    *("true", "WITH", "AS", "FROM", "INTO", "SET", "LOCAL", "INSERT", "UPDATE", "ON", "CONFLICT"),
    *("GROUP", "BY", "ROLLUP", "JOIN", "CREATE", "TABLE", "INDEX", "EXPLAIN", "ANALYZE", "BEGIN"),
    *("DISTINCT", "MERGE", "WHEN", "THEN", "CASE", "END", "PREPARE", "TRANSACTION", "RETURNING"),
]
GAPS = st.sampled_from([" ", "\n", "\t\r\f", " /* a(b) /* ; ' */ */ ", " -- f(' ;\n", "\n--\r\n"])


@given(st.lists(st.tuples(st.sampled_from(TOKENS), GAPS)))
def test_space_and_comments_change_nothing(parts: list[tuple[str, str]]) -> None:
    plain = " ".join(token for token, _ in parts)
    spaced = "".join(token + gap for token, gap in parts)

    assert effects_of(spaced) == effects_of(plain)


@given(st.lists(st.sampled_from(TOKENS)))
def test_letters_of_either_case_are_one(parts: list[str]) -> None:
    bare = [part if part[0] in "\"'$" else part.upper() for part in parts]

    assert effects_of(" ".join(bare)) == effects_of(" ".join(parts))


@given(st.one_of(st.text(), st.text("'\"$\\/*-()%,;. \nUuEeaf1:[]")))
def test_nothing_hides_what_follows(text: str) -> None:
    assert effects_of(text) in ~Effect.NONE
    assert effects_of(f"{text}\n;SELECT f(1)") & SESSION
    assert effects_of(f"{text}\n;SET a = 1") & SESSION


PARTS = ["(", "f(", "a(b) AS (", "WITH a(b) AS (", " ON CONFLICT (a) WHERE", "x.", "GROUP BY ("]
PARTS += ["a,", "CASE WHEN THEN insert(", "set_config(", "1,(", ";", "'a' ", "JOIN a ON "]


@pytest.mark.parametrize("part", PARTS)
def test_the_time_is_linear_in_the_length(part: str) -> None:
    texts = itertools.count()

    def seconds(length: int) -> float:
        # None is the same as one before.
        statement = f"SELECT {next(texts)}, " + part * (length // len(part))
        begin = time.process_time()
        effects_of(statement)
        return time.process_time() - begin

    short = min(seconds(3_000) for _ in range(3))

    # Twenty times as long: four hundred times the time if it were quadratic.
    assert min(seconds(60_000) for _ in range(2)) < 100 * short + 0.05


def test_no_more_is_kept_than_a_bound_allows() -> None:
    long = "SELECT " + "1, " * 100_000
    for number in range(2_000):
        effects_of(f"SELECT {number}")

    assert effects_of(long + "f(1)") == READS_AND_LEAVES
    assert effects_of(long + "2") == READS
