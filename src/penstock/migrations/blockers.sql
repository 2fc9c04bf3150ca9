-- Sessions that a session waits for, and those that hold an advisory lock.
-- Parameters: pid, of the session that waits; key, of the advisory lock.
SELECT
    activity.pid,
    activity.usename,
    activity.application_name,
    activity.state,
    extract(epoch FROM clock_timestamp() - activity.xact_start)::float AS seconds
FROM pg_stat_activity AS activity
WHERE activity.pid = ANY (pg_blocking_pids(:pid))
OR EXISTS (
    SELECT FROM pg_locks AS held
    WHERE held.pid = activity.pid AND held.locktype = 'advisory' AND held.granted
    AND held.objsubid = 1 AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (held.classid::bigint << 32) | held.objid::bigint = :key
    AND held.pid <> :pid
)
ORDER BY activity.xact_start
