-- prepared_transactions: transactions that wait for COMMIT PREPARED.
SELECT gid::text AS name, owner::text AS role, database::text AS database,
    extract(epoch FROM now() - prepared)::float8 AS seconds
FROM pg_prepared_xacts
ORDER BY seconds DESC
