-- For psql in the directory of userlist.txt, by an administrator.
\set ON_ERROR_STOP on
BEGIN;

-- The password stays the same; PgBouncer can log in only where both have the same secret of it.
\set secret `sed -n 's/.*" "\(SCRAM-SHA-256.*\)"$$/\1/p' userlist.txt`
ALTER ROLE $role PASSWORD :'secret';

-- What a service sends when it connects to PostgreSQL itself, and PgBouncer would refuse.
$settings

COMMIT;
