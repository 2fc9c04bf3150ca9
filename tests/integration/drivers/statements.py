"""Statements that leave state on a session, in many spellings, and ones that leave nothing."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

_FOLDER = Path(__file__).parent


def _statements(name: str) -> list[str]:
    return (_FOLDER / name).read_text("utf-8").strip().split("\n\n")[1:]


PREPARATIONS = (_FOLDER / "preparations.sql").read_text("utf-8")
ROWS = """
    DROP TABLE IF EXISTS made;
    TRUNCATE t, empty RESTART IDENTITY CASCADE; INSERT INTO t VALUES ('a'), ('b');
"""
"""What is in the tables before each statement."""

CALLS = (
    "set_config('app.tenant', 'x', false)",
    "pg_catalog.set_config('app.tenant', 'x', NOT true)",
    "\"pg_catalog\" . \"set_config\"('app.tenant', 'x', (false))",
    "U&\"\\0073et_config\"('app.tenant', 'x', false)",
    "U&\"!0073et_config\" UESCAPE '!'('app.tenant', 'x', false)",
    "pg_advisory_lock(1)::text",
    "pg_try_advisory_lock_shared(1, 2)::text",
    "query_to_xml($$SELECT set_config('app.tenant', 'x', false)$$, true, true, '')::text",
    "remember()",
    "public.remember()",
    "mine.lower()",
    '"Remember (me)"()',
    "insert('x')",
    "cube('x')",
    "conflict('x')",
    "\"join\"('x')",
    "materialized('x')",
    "second('x')",
    "set('x')",
    "over('x')",
    "ордер('x')",
    "lower(upper(remember()))",
    "coalesce(nullif(remember(), ''), 'a')",
    "CASE WHEN true THEN insert('x') END",
    "(ARRAY[remember()])[1]",
    "xmlelement(name a, remember())::text",
    "json_object('a' : remember())::text",
    "overlay(remember() placing 'x' from 1)",
    "trim(both ' ' from remember())",
    "CAST(remember() AS varchar(5))",
    "remember()::varchar(5)",
    "'a' COLLATE \"C\" || remember()",
)
"""Texts that each leave state when they are evaluated."""

SHAPES: Mapping[str, str] = {
    "select": "SELECT {}",
    "select all": "SELECT ALL {} AS a",
    "select distinct": "SELECT DISTINCT {}",
    "distinct on": "SELECT DISTINCT ON (v) {} FROM t",
    "distinct on a call": "SELECT DISTINCT ON ({}) v FROM t",
    "second column": "SELECT 'a' AS a, {}",
    "where": "SELECT v FROM t WHERE {} = 'a'",
    "not": "SELECT v FROM t WHERE NOT {} = 'a'",
    "in": "SELECT v FROM t WHERE v IN ('a', {})",
    "between": "SELECT v FROM t WHERE v BETWEEN {} AND 'z'",
    "like": "SELECT v FROM t WHERE v LIKE {}",
    "escaped": r"SELECT v FROM t WHERE v = 'a\' OR {} = 'x'",
    "subquery": "SELECT (SELECT {})",
    "exists": "SELECT 1 WHERE EXISTS (SELECT 1 WHERE {} = 'a')",
    "any": "SELECT 'a' = ANY (ARRAY['b', {}])",
    "from query": "SELECT * FROM (SELECT {} OFFSET 0) AS a (b)",
    "cte": "WITH a AS MATERIALIZED (SELECT {} AS b) SELECT * FROM a",
    "second cte": "WITH a (b) AS (SELECT 1), c (d) AS (SELECT {}) SELECT * FROM a, c",
    "after ctes": "WITH a (b) AS (SELECT 1), c (d) AS (SELECT 2) SELECT b, {} FROM a, c",
    "after ctes in parentheses": "WITH a AS (SELECT 1) (SELECT 'a', {}) ORDER BY 1",
    "recursive": "WITH RECURSIVE a (b) AS (SELECT {} UNION SELECT b FROM a) SELECT b FROM a",
    "cte insert": "WITH a AS (INSERT INTO t VALUES ({}) RETURNING v) SELECT v FROM a",
    "parentheses": "((SELECT {}) UNION ALL SELECT 'a') LIMIT 5",
    "union": "SELECT 'a' UNION ALL SELECT {}",
    "values": "VALUES ({})",
    "second row": "VALUES ('a', 'b'), ('c', {})",
    "table of values": "SELECT * FROM (VALUES ('a'), ({})) AS a (b)",
    "join": "SELECT 1 FROM t JOIN t AS u ON u.v = {}",
    "lateral": "SELECT 1 FROM t CROSS JOIN LATERAL (SELECT {} OFFSET 0) AS a",
    "order": "SELECT v FROM t ORDER BY v, {}",
    "group": "SELECT count(*) FROM t GROUP BY {}",
    "grouping sets": "SELECT count(*) FROM t GROUP BY GROUPING SETS ((v), ({}))",
    "rollup": "SELECT count(*) FROM t GROUP BY ROLLUP (v, ({}))",
    "having": "SELECT v FROM t GROUP BY v HAVING {} = max(v)",
    "limit": "SELECT v FROM t LIMIT length({})",
    "fetch": "SELECT v FROM t FETCH FIRST (length({})) ROWS ONLY",
    "window": "SELECT count(*) OVER (PARTITION BY {} ORDER BY v) FROM t",
    "named window": "SELECT count(*) OVER w FROM t WINDOW w AS (ORDER BY v, {})",
    "filter": "SELECT count(*) FILTER (WHERE {} = 'a') FROM t",
    "within group": "SELECT mode() WITHIN GROUP (ORDER BY {}) FROM t",
    "case": "SELECT CASE v WHEN 'a' THEN {} ELSE 'c' END FROM t",
    "array": "SELECT ARRAY (SELECT {})",
    "row": "SELECT ROW ('a', {})",
    "insert values": "INSERT INTO t (v) VALUES ({})",
    "insert select": "INSERT INTO t (v) SELECT {} RETURNING id",
    "insert returning": "INSERT INTO t AS u (v) VALUES ('a') RETURNING u.id, {}",
    "upsert": "INSERT INTO t (v, id) OVERRIDING SYSTEM VALUE VALUES ('a', 1)"
    " ON CONFLICT (id) DO UPDATE SET v = {}",
    "upsert where": "INSERT INTO t (v, id) OVERRIDING SYSTEM VALUE VALUES ('a', 1)"
    " ON CONFLICT (id) DO UPDATE SET (v) = ROW ('b') WHERE {} = 'a'",
    "insert join": "INSERT INTO t (v) SELECT 'a' FROM t JOIN t AS u ON {} = 'a'"
    " ON CONFLICT DO NOTHING",
    "update": "UPDATE t SET v = {}",
    "update columns": "UPDATE t SET (v) = (SELECT {})",
    "update from": "UPDATE t SET v = 'a' FROM (SELECT {} AS w OFFSET 0) AS u WHERE u.w = t.v",
    "update returning": "UPDATE t SET v = 'a' RETURNING id, {}",
    "delete": "DELETE FROM t USING t AS u WHERE t.v = {}",
    "delete returning": "DELETE FROM t RETURNING {}",
    "merge": "MERGE INTO t USING t AS u ON {} = u.v WHEN MATCHED THEN DO NOTHING",
    "merge update": "MERGE INTO t USING t AS u ON u.id = t.id"
    " WHEN MATCHED AND t.v = 'a' THEN UPDATE SET v = {}",
    "merge insert": "MERGE INTO empty USING t AS u ON false"
    " WHEN NOT MATCHED THEN INSERT (v, id) VALUES ({}, u.id)",
    "merge case": "MERGE INTO t USING t AS u ON CASE WHEN true THEN {} END = 'a'"
    " WHEN MATCHED THEN DO NOTHING",
    "explain": "EXPLAIN ANALYZE SELECT {} FROM t",
    "explain options": "EXPLAIN (ANALYZE, COSTS OFF) (SELECT {})",
    "explain insert": "EXPLAIN (ANALYZE, VERBOSE) INSERT INTO t (v) SELECT {}",
    "create table": "CREATE TABLE made (v) AS SELECT {}",
    "select into": "SELECT {} AS v INTO made",
    "second statement": "SELECT 'a'; SELECT {}",
    "copy": "COPY (SELECT {}) TO '/dev/null'",
    "json table": "SELECT * FROM JSON_TABLE('[]', '$' COLUMNS (a text PATH '$')) AS j, t"
    " WHERE {} = 'a'",
    "hidden by a comment": "SELECT /* ' */ {} /* ' */",
    "hidden by quotes": "SELECT 'a''', {}, '''b'",
    "hidden by escapes": r"SELECT E'a\'', {}, E'\'b'",
    "hidden by a second line": "SELECT E'a'\n'\\'', {}, E'\\'b'",
    "hidden by dollars": "SELECT $a$ $$ $a$, {}, $a$ $$ $a$",
    "hidden by a name": 'SELECT v AS "a""", {}, v AS "\'" FROM t',
}
"""Where such a text may stand."""


def _outside_quotes(change: Callable[[str], str]) -> Callable[[str], str]:
    quoted = re.compile(
        r"((?:\bE)?'(?:[^'\\]|''|\\.)*'|\$(\w*)\$.*?\$\2\$|(?:U&)?\"[^\"]*\"|/\*.*?\*/)", re.DOTALL
    )

    def changed(statement: str) -> str:
        parts, end = [], 0
        for found in quoted.finditer(statement):
            parts += [change(statement[end : found.start()]), found[0]]
            end = found.end()
        return "".join([*parts, change(statement[end:])])

    return changed


SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "plain": str,
    "upper": _outside_quotes(str.upper),
    "lower": _outside_quotes(str.lower),
    "comments": _outside_quotes(
        lambda part: re.sub(r" |(?=\()", " /* it's /* \" */ $$ */ -- f('\n", part)
    ),
    "lines": _outside_quotes(lambda part: re.sub(r" |(?=[().,])", "\r\n\t", part)),
    "comment in front": lambda statement: f"-- SELECT 1;\n/* ; */ {statement} ; -- the end",
}
"""Ways to write a statement that leave its meaning as it is."""

COMMANDS = _statements("leaving.sql")
HARMLESS = _statements("harmless.sql")
