-- Statements that leave nothing and are known to, a blank line between.

SET LOCAL app.tenant = 'x'

SET LOCAL search_path = mine

SET LOCAL ROLE someone

SET LOCAL SESSION AUTHORIZATION someone

SET LOCAL SESSION CHARACTERISTICS AS TRANSACTION READ ONLY

SET LOCAL TIME ZONE 'UTC'

SET TRANSACTION READ ONLY

SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE

SET CONSTRAINTS ALL DEFERRED

SELECT set_config('app.tenant', 'x', true)

SELECT set_config('app.tenant', v, TRUE), pg_catalog.set_config('role', 'someone', true) FROM t

SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(1, 2)

SELECT pg_sleep(0), pg_notify('a', 'b'), random(), nextval('t_id_seq')

SELECT pg_export_snapshot(), lo_from_bytea(0, '\x00')

NOTIFY a_channel, 'x'

SHOW ALL

SHOW search_path

TABLE t

TRUNCATE empty RESTART IDENTITY CASCADE

ANALYZE VERBOSE t (v), empty

ANALYZE (SKIP_LOCKED) t (v)

VACUUM (ANALYZE) t (v)

REINDEX (VERBOSE) TABLE t

EXPLAIN SELECT lower(v) FROM t

EXPLAIN (ANALYZE, FORMAT json) (SELECT count(*) FROM t)

EXPLAIN ANALYZE VERBOSE (TABLE t)

SELECT temp.v AS temp FROM t AS temp

SELECT 'f(x)', "f(x)" FROM (SELECT 1) AS a ("f(x)")

SELECT * FROM json_to_record('{}') AS r (a int, b numeric(10, 2), c varchar(5))

SELECT * FROM ROWS FROM (unnest(ARRAY[1]), generate_series(1, 2)) WITH ORDINALITY u (a, b, c)

SELECT * FROM JSON_TABLE('[]', '$' COLUMNS (a varchar(5) PATH '$', NESTED PATH '$' COLUMNS (b
    text PATH '$'))) AS j (c, d)

SELECT v FROM t WHERE v LIKE ('a') OR v NOT ILIKE ('b') OR v SIMILAR TO ('c')

SELECT v FROM t WHERE (now(), now()) OVERLAPS (now(), INTERVAL '1')

SELECT (DATE '2026-01-01', INTERVAL (3) '1') OVERLAPS (now(), INTERVAL '1' SECOND (3))

SELECT now() AT TIME ZONE ('UTC'), now()::timestamp (3) with time zone, '1'::bit varying (3)

SELECT * FROM t LEFT JOIN (t AS u CROSS JOIN (SELECT 1) AS w (a)) USING (v)

SELECT 1 FROM t JOIN t AS u ON true JOIN (SELECT 1) AS w (a) ON u.id = '1'::integer JOIN (SELECT 2
    WHERE CASE WHEN true THEN NULL ELSE true END) AS x (a) ON u.v IS NOT NULL JOIN (VALUES (1)) AS y ON true

SELECT relname FROM pg_class WHERE relname LIKE 'pg_temp%'

WITH a (b) AS (VALUES (1)), c (d) AS NOT MATERIALIZED (SELECT 2) SELECT b, lower('A') FROM a, c

WITH RECURSIVE a (b, c) AS (SELECT 1, 2 UNION ALL SELECT b, c FROM a WHERE false) SEARCH DEPTH
    FIRST BY b, c SET d CYCLE b, c SET e USING f SELECT b FROM a

INSERT INTO empty AS e (v, id) SELECT 'a', 1 FROM t JOIN t AS u (w) ON true WHERE false ON
    CONFLICT (id) WHERE id > 0 DO UPDATE SET (v, id) = ROW (excluded.v, 1)

MERGE INTO empty USING t ON t.id = empty.id WHEN MATCHED THEN UPDATE SET (v) = ROW (CASE WHEN
    true THEN 'a' END) WHEN NOT MATCHED THEN INSERT (v, id) VALUES (t.v, t.id) RETURNING
    merge_action()

SELECT count(*) FROM t GROUP BY ROLLUP (v), CUBE (v, id), GROUPING SETS ((v), CUBE (id))

SELECT count(*) FROM t TABLESAMPLE system (5) REPEATABLE (1), t AS u TABLESAMPLE bernoulli (5)

CREATE TABLE new (a numeric(10, 2), "B" varchar(5) CHECK (length("B") > 1), c int REFERENCES t
    (id), PRIMARY KEY (a), UNIQUE NULLS NOT DISTINCT (c), FOREIGN KEY (c) REFERENCES empty (id),
    EXCLUDE USING btree (c WITH =)) WITH (fillfactor = 70)

CREATE TABLE IF NOT EXISTS mine.parted (a int) PARTITION BY RANGE (a, lower(a::text))

CREATE TABLE IF NOT EXISTS mine.part PARTITION OF mine.parted FOR VALUES FROM (1, 'a') TO (2, 'b')

CREATE UNIQUE INDEX ON ONLY t USING btree (lower(v), id DESC) INCLUDE (v) WHERE length(v) > 100

CREATE INDEX CONCURRENTLY IF NOT EXISTS ix ON public.t (v varchar_pattern_ops, (id + 1))

CREATE OR REPLACE VIEW viewed (a, b) AS SELECT v, count(*) FROM t GROUP BY v

CREATE TYPE mood AS ENUM ('a', 'b')

CREATE TYPE pair AS (a int, b varchar(5))

CREATE DOMAIN short AS varchar(5) CHECK (length(VALUE) < 4)

CREATE SEQUENCE counted INCREMENT BY 5

ALTER TABLE t ADD COLUMN w varchar(5) DEFAULT lower('A')

ALTER TABLE t ALTER w TYPE varchar(9) USING lower(w)

COMMENT ON COLUMN t.v IS 'f(x)'

COPY t (v) FROM '/dev/null'

COPY t (v) TO '/dev/null' WITH (FORMAT csv)

DROP TABLE IF EXISTS gone, mine.gone

GRANT SELECT (v), INSERT ON t TO someone
