-- What the statements need, made anew.
DROP SCHEMA IF EXISTS mine CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public;
CREATE TABLE t (v text, id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
CREATE TABLE empty (v text, id int PRIMARY KEY);
CREATE SCHEMA mine;
CREATE FUNCTION remember() RETURNS text LANGUAGE sql AS
    $$ SELECT set_config('app.tenant', 'remembered', false) $$;
CREATE FUNCTION mine.lower() RETURNS text LANGUAGE sql AS 'SELECT remember()';
CREATE FUNCTION "Remember (me)"() RETURNS text LANGUAGE sql AS 'SELECT remember()';
CREATE FUNCTION conflict(text) RETURNS text LANGUAGE sql AS 'SELECT remember()';
CREATE FUNCTION insert(text) RETURNS text LANGUAGE sql AS 'SELECT remember()';
CREATE FUNCTION cube(text) RETURNS text LANGUAGE sql AS 'SELECT remember()';
CREATE FUNCTION "join"(text) RETURNS text LANGUAGE sql AS 'SELECT remember()';
CREATE FUNCTION materialized(text) RETURNS text LANGUAGE sql AS 'SELECT remember()';
CREATE FUNCTION second(text) RETURNS text LANGUAGE sql AS 'SELECT remember()';
CREATE FUNCTION set(text) RETURNS text LANGUAGE sql AS 'SELECT remember()';
CREATE FUNCTION over(text) RETURNS text LANGUAGE sql AS 'SELECT remember()';
CREATE FUNCTION ордер(text) RETURNS text LANGUAGE sql AS 'SELECT remember()';
CREATE PROCEDURE proceed() LANGUAGE sql AS 'SELECT remember()';
