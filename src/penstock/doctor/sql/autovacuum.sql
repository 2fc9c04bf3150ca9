-- autovacuum: what its workers are doing, and for how long.
SELECT a.pid, CASE WHEN c.oid IS NULL THEN '' ELSE format('%I.%I', n.nspname, c.relname) END AS relation,
    coalesce(p.phase, '') AS phase,
    extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds,
    a.query LIKE '%to prevent wraparound%' AS prevents_wraparound,
    current_setting('autovacuum_max_workers')::int8 AS workers
FROM pg_stat_activity AS a
LEFT JOIN pg_stat_progress_vacuum AS p ON p.pid = a.pid AND p.datname = current_database()
LEFT JOIN pg_class AS c ON c.oid = p.relid
LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE a.backend_type = 'autovacuum worker'
ORDER BY seconds DESC
