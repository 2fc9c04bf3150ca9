-- autovacuum: what its workers are doing, and for how long.
SELECT a.pid, coalesce(p.relid::regclass::text, '') AS relation,
    coalesce(p.phase, '') AS phase,
    extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds,
    a.query LIKE '%to prevent wraparound%' AS prevents_wraparound,
    current_setting('autovacuum_max_workers')::int8 AS workers
FROM pg_stat_activity AS a
LEFT JOIN pg_stat_progress_vacuum AS p ON p.pid = a.pid AND p.datname = current_database()
WHERE a.backend_type = 'autovacuum worker'
ORDER BY seconds DESC
