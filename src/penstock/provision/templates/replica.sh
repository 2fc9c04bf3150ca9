#!/bin/sh
# A copy of the primary at the first start, which follows it from then on.
set -eu
if [ ! -s "$$PGDATA/PG_VERSION" ]; then
    PGPASSWORD=$$(cat "$${SECRETS:-/run/secrets}/replication_password")
    export PGPASSWORD
    until pg_basebackup --dbname="host=$${PRIMARY:-primary} port=$${PRIMARY_PORT:-5432} user=replicator" \
        --pgdata="$$PGDATA" --write-recovery-conf --slot=replica --checkpoint=fast
    do
        sleep 1
    done
    unset PGPASSWORD
    chmod 700 "$$PGDATA"
fi
exec "$$@"
