#!/bin/sh
# Runs once, in an empty primary: the service's role with PgBouncer's secret of its password, its
# database, and what the replica follows by.
set -eu
secrets=$${SECRETS:-/run/secrets}
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$${POSTGRES_USER:-postgres}" --dbname postgres \
    --set secret="$$(sed -n 's/.*" "\(SCRAM-SHA-256.*\)"$$/\1/p' "$$secrets/userlist.txt")" \
    --set replication="$$(cat "$$secrets/replication_password")" <<'SQL'
CREATE ROLE "$user" LOGIN PASSWORD :'secret';
CREATE DATABASE "$database" OWNER "$user";
CREATE ROLE replicator REPLICATION LOGIN PASSWORD :'replication';
SELECT pg_create_physical_replication_slot('replica');
SQL
echo 'host replication replicator samenet scram-sha-256' >>"$$PGDATA/pg_hba.conf"
