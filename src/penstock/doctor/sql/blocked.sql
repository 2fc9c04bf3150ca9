-- blocked: sessions that wait for a lock, with those that hold it.
SELECT
    a.pid,
    coalesce(nullif(a.application_name, ''), 'without a name') AS application,
    coalesce(extract(epoch FROM clock_timestamp() - coalesce(
        (SELECT min(waitstart) FROM pg_locks AS l WHERE l.pid = a.pid AND NOT l.granted),
        a.query_start
    )), 0)::float8 AS seconds,
    pg_blocking_pids(a.pid) AS blockers
FROM pg_stat_activity AS a
WHERE a.wait_event_type = 'Lock'
ORDER BY seconds DESC
