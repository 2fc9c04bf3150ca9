-- idle: connections of one application that have been idle for longer than some seconds.
SELECT pid, coalesce(usename::text, '') AS role, coalesce(datname::text, '') AS database,
    coalesce(client_addr::text, 'local') AS client,
    extract(epoch FROM clock_timestamp() - state_change)::float8 AS seconds
FROM pg_stat_activity
WHERE application_name = $1 AND state = 'idle' AND pid <> pg_backend_pid()
    AND backend_type = 'client backend'
    AND clock_timestamp() - state_change > make_interval(secs => $2)
ORDER BY seconds DESC
