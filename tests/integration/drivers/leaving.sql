-- Statements that leave state on the session by themselves, a blank line between.

SET search_path = mine

SET SESSION search_path TO mine, public

SET TIME ZONE 'Asia/Tokyo'

SET NAMES 'latin1'

SET SCHEMA 'mine'

SET XML OPTION DOCUMENT

SET work_mem FROM CURRENT; SET work_mem = '5MB'

SET app.tenant = 'x'

SET local.tenant = 'x'

SET constraints.a = 'x'

SET transaction.a = 'x'

SET session.a = 'x'

SET "local".tenant = 'x'

SET ROLE someone

SET SESSION ROLE someone

SET SESSION AUTHORIZATION someone

SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY

SET default_transaction_read_only = on

UPDATE pg_settings SET setting = '5000' WHERE name = 'work_mem'

UPDATE "pg_catalog"."pg_settings" AS s SET setting = '5000' WHERE name = 'work_mem'

WITH a AS (SELECT 1) UPDATE ONLY pg_settings SET setting = '5000' WHERE name = 'work_mem'

LISTEN a_channel

PREPARE p AS SELECT 1

PREPARE transaction (int) AS SELECT $1

DECLARE c CURSOR WITH HOLD FOR SELECT 1

DECLARE c BINARY INSENSITIVE NO SCROLL CURSOR WITH HOLD FOR TABLE t

CREATE TEMP TABLE temp_table (v text)

CREATE TEMPORARY TABLE temp_table AS SELECT 1 AS v

CREATE LOCAL TEMP TABLE IF NOT EXISTS temp_table (v) AS TABLE t

CREATE TABLE pg_temp.temp_table (v text)

CREATE TABLE "pg_temp".temp_table AS SELECT 1

CREATE OR REPLACE TEMP VIEW temp_view AS SELECT 1

CREATE TEMP SEQUENCE temp_sequence

CREATE OR REPLACE TEMP RECURSIVE VIEW temp_view (v) AS SELECT 1

CREATE FUNCTION pg_temp.temp_function() RETURNS int LANGUAGE sql AS 'SELECT 1'

CREATE TYPE pg_temp.temp_type AS ENUM ('a', 'b')

SELECT 1 AS v INTO TEMP temp_table

SELECT 1 AS v INTO TEMPORARY TABLE temp_table

SELECT 1 AS v INTO LOCAL TEMP temp_table FROM t

WITH a AS (SELECT 1 AS v) SELECT v INTO pg_temp.temp_table FROM a

EXPLAIN ANALYZE CREATE TEMP TABLE temp_table AS SELECT 1 AS v

EXPLAIN (ANALYZE) CREATE TABLE pg_temp.temp_table AS SELECT 1 AS v

BEGIN; SET LOCAL search_path = pg_temp; CREATE TABLE temp_table (v text); COMMIT

BEGIN; SELECT set_config('search_path', 'PG_TEMP', true); CREATE TABLE a (v text); COMMIT

LOAD 'auto_explain'

DO 'BEGIN PERFORM remember(); END'

DO LANGUAGE plpgsql $do$ BEGIN EXECUTE 'PREPARE p AS SELECT 1'; END $do$

DO $$ BEGIN SET work_mem = '5MB'; COMMIT; END $$

CALL proceed()

SELECT pg_create_physical_replication_slot('a_slot', false, true)

BEGIN

BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE

START TRANSACTION READ ONLY

SELECT 1; BEGIN

COMMIT; BEGIN; SAVEPOINT a; RELEASE a; ROLLBACK AND CHAIN
