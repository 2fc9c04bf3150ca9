-- statements: what pg_stat_statements knows of this database's, the most expensive first.
SELECT s.query, s.calls, s.mean_exec_time / 1000 AS mean_seconds,
    s.total_exec_time / 1000 AS total_seconds
FROM pg_stat_statements AS s
WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND s.query ~* '^\s*(select|with|insert|update|delete)\s'
ORDER BY s.total_exec_time DESC
LIMIT 1000
