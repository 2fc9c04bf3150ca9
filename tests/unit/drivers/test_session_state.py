"""What surely stays on a session, by a statement's text, in every spelling."""

import re
import time
from collections.abc import Callable

import pytest

from penstock.drivers.effects import effects_of
from penstock.drivers.session_state import refuse_session_state, session_state
from penstock.errors import PenstockError

TEMPORARY = "a temporary table"
LOCK = "a session's advisory lock"
SET_CONFIG = "set_config(..., false)"
LEAVING = {
    "SET": [
        *("SET work_mem = 1", "SET SESSION work_mem TO DEFAULT", "SET local.a = 1", "SET ROLE a"),
        *("SET SESSION AUTHORIZATION a", 'SET "local" = 1', "SET timezone.a = 1"),
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "DO $$ BEGIN SET work_mem = 1; END $$",
        "DO 'BEGIN IF true THEN SET work_mem = ''8MB''; END IF; END'",
        "DO LANGUAGE plpgsql $$ BEGIN EXECUTE 'SET work_mem = 1'; END $$",
    ],
    "RESET": ["RESET ALL", "RESET work_mem", "RESET ROLE", "RESET SESSION AUTHORIZATION"],
    "DISCARD": ["DISCARD ALL", "DISCARD TEMP", "DISCARD SEQUENCES"],
    "LISTEN": ["LISTEN a", 'LISTEN "A"'],
    "LOAD": ["LOAD 'a'", "LOAD $$a$$"],
    "PREPARE": ["PREPARE a AS SELECT 1", "PREPARE transaction AS SELECT 1"],
    "DEALLOCATE": ["DEALLOCATE a", "DEALLOCATE ALL", "DEALLOCATE PREPARE a"],
    "DECLARE ... WITH HOLD": ["DECLARE a SCROLL CURSOR WITH HOLD FOR SELECT 1"],
    "UPDATE of pg_settings": [
        *("UPDATE pg_settings SET setting = 1", 'UPDATE ONLY pg_catalog."pg_settings" SET a = 1'),
    ],
    TEMPORARY: [
        *(f"CREATE {scope}{temp} TABLE a ()" for scope in ("", "LOCAL ", "GLOBAL ")
          for temp in ("TEMP", "TEMPORARY")),
        *("CREATE TEMP VIEW a AS SELECT 1", "CREATE OR REPLACE TEMP VIEW a AS SELECT 1"),
        *("CREATE TEMP SEQUENCE a", "CREATE TEMP RECURSIVE VIEW a (b) AS SELECT 1"),
        *("CREATE TABLE pg_temp.a ()", 'CREATE TABLE IF NOT EXISTS "pg_temp".a ()'),
        *("CREATE FUNCTION pg_temp.f() RETURNS int RETURN 1", "CREATE VIEW pg_temp.a AS SELECT 1"),
        *(f"SELECT 4711 AS secret INTO {into} a" for into in
          ("TEMP", "TEMPORARY", "TEMP TABLE", "LOCAL TEMP", "GLOBAL TEMPORARY TABLE")),
        *("SELECT 1 INTO pg_temp.a", "WITH a AS (SELECT 1) SELECT * INTO TEMP b FROM a"),
        "DO $$ BEGIN CREATE TEMP TABLE a (); END $$",
    ],
    LOCK: [
        *(f"SELECT {name}(1)" for name in
          ("pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock",
           "pg_try_advisory_lock_shared", '"pg_advisory_lock"', "pg_catalog.pg_advisory_lock",
           'pg_catalog."pg_advisory_lock"', 'U&"pg\\005fadvisory_lock"',
           "U&\"pg!005fadvisory_lock\" UESCAPE '!'", 'U&"pg\\+00005fadvisory_lock"')),
        *("SELECT * FROM pg_advisory_lock(1)", "SELECT 1 WHERE pg_try_advisory_lock(1)"),
        *("WITH a AS (SELECT pg_advisory_lock(1)) SELECT * FROM a", "VALUES (pg_advisory_lock(1))"),
        *("INSERT INTO t SELECT pg_advisory_lock(1)", "SELECT 1; SELECT pg_advisory_lock(1)"),
        *("EXPLAIN ANALYZE SELECT pg_advisory_lock(1)", "((SELECT pg_advisory_lock(1)))"),
        "CREATE TABLE a AS SELECT pg_advisory_lock(1)",
        "DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$",
    ],
    SET_CONFIG: [
        *(f"SELECT set_config('work_mem', lower('8MB'), {value})" for value in
          ("false", "FALSE", "(false)", "false::bool", "CAST('f' AS boolean)", "'off'", "NULL",
           "(1=2)", "NOT true", "is_local => false", "is_local := false", "'no'::boolean")),
        "SELECT set_config(is_local => false, setting_name => 'a', new_value => 'b')",
        "SELECT 1 FROM t WHERE pg_catalog.set_config($1, $2, false) = 'a'",
    ],
}  # fmt: skip
PASSING = [
    *("SET LOCAL work_mem = 1", "SET TRANSACTION READ ONLY", "SET CONSTRAINTS ALL DEFERRED"),
    *("SET TIME ZONE 'UTC'", 'SET "timezone" = 1', "RESET timezone", "RESET TIME ZONE"),
    *("UNLISTEN *", "DISCARD PLANS", "NOTIFY a", "EXECUTE a", "SELECT load, listen, reset FROM t"),
    *("SELECT 'pg_advisory_lock(1)'", "SELECT $$SET a = 1; LISTEN b$$", "SELECT 1 /* ; SET a=1 */"),
    *("SELECT pg_advisory_lock FROM t", "SELECT t.pg_advisory_lock, (1)", 'SELECT "SET a"'),
    *("SELECT mine.pg_advisory_lock(1)", "SELECT pg_catalog.f(1)", 'SELECT "PG_ADVISORY_LOCK"(1)'),
    *("INSERT INTO pg_advisory_lock (a) VALUES (1)", "SELECT pg_advisory_xact_lock(1)"),
    *("GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO a", "CREATE TABLE a (temp int)"),
    *("DROP FUNCTION mine.set_config(text, text, boolean)", "EXPLAIN SELECT pg_advisory_lock(1)"),
    *("CREATE VIEW a AS SELECT pg_advisory_lock(1)", "CREATE TABLE temp (a int)"),
    "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ SELECT pg_advisory_lock(1) $$",
    "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql SET work_mem = 1 AS 'BEGIN END'",
    *("INSERT INTO temp VALUES (1)", "INSERT INTO temp SELECT 1", "MERGE INTO temp USING a ON b"),
    *("SELECT 1 INTO temp", "SELECT a INTO temp FROM t", "INSERT INTO pg_temp.a SELECT 1"),
    *("CREATE TEMP TABLE a () ON COMMIT DROP", "CREATE TEMP TABLE a ON COMMIT DROP AS SELECT 1"),
    *("CREATE TABLE pg_temp.a () ON COMMIT DROP", "SELECT temp, temporary FROM into_temp"),
    *(f"SELECT set_config('a', 'b', {value})" for value in
      ("true", "(TRUE)", "'on'", "true::bool", "is_local => true", "$1", ":local", "t.a", "f()",
       "CAST($1 AS boolean)")),
    *("SELECT set_config('a, false', 'b', true)", "UPDATE t SET pg_settings = 1"),
    *("DO $$ BEGIN PERFORM 'SET a = 1'; END $$", "DO $$ BEGIN SELECT a INTO temp FROM t; END $$"),
    "DO $$ BEGIN RAISE NOTICE 'pg_advisory_lock(1)'; SET LOCAL work_mem = 1; END $$",
    *("SELECT 'open", 'SELECT "open', "SELECT U&\"open", "SELECT /* open", "", ";", "DO", "SET"),
]  # fmt: skip
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "upper": lambda part: part.upper(),
    "lines": lambda part: re.sub(r" |(?=\()", "\r\n\t", part),
    "comments": lambda part: re.sub(r" |(?=\()", " /* it's /* \" */ $$ */ -- f('\n", part),
}
_QUOTED = re.compile(r"""('[^']*'|U&"[^"]*"|"[^"]*"|\$\$.*?\$\$|/\*.*?\*/)""", re.DOTALL)


def spelled(spelling: str, statement: str) -> str:
    parts = _QUOTED.split(statement)
    return "".join(
        part if number % 2 else SPELLINGS[spelling](part) for number, part in enumerate(parts)
    )


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("what", LEAVING)
def test_what_stays_is_told_and_refused_in_every_spelling(what: str, spelling: str) -> None:
    for statement in LEAVING[what]:
        text = f"-- SELECT 1;\n/* ; */ {spelled(spelling, statement)} ;"
        assert session_state(text) == what, text
        with pytest.raises(PenstockError, match="is refused"):
            refuse_session_state(effects_of(text), text)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("statement", PASSING)
def test_what_does_not_surely_stay_passes(statement: str, spelling: str) -> None:
    text = spelled(spelling, statement)
    assert session_state(text) is None, text
    refuse_session_state(effects_of(text), text)


PARTS = ["set_config(1,2,", "create temp ", "into ", "do '", "pg_advisory_lock", "(", "execute '' "]


@pytest.mark.parametrize("part", PARTS)
def test_the_time_is_linear_in_the_length(part: str) -> None:
    def seconds(length: int) -> float:
        begin = time.process_time()
        session_state("SELECT " + part * (length // len(part)))
        return time.process_time() - begin

    short = min(seconds(5_000 + number) for number in range(0, 90, 30))

    # Twenty times as long: four hundred times the time if it were quadratic.
    assert seconds(100_000) < 100 * short + 0.05
