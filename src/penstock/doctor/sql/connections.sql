-- connections: clients by application, role and state, each row with the server's limits.
SELECT
    coalesce(nullif(application_name, ''), 'without a name') AS application,
    coalesce(usename::text, '') AS role,
    coalesce(state, 'unknown') AS state,
    count(*) AS connections,
    count(*) FILTER (WHERE pid = pg_backend_pid()) AS own,
    count(*) FILTER (WHERE clock_timestamp() - state_change > interval '10 min') AS unchanged,
    bool_or(application_name = '') AS is_unnamed,
    current_setting('max_connections')::int8 AS accepted,
    current_setting('superuser_reserved_connections')::int8 AS superuser_reserved,
    coalesce(current_setting('reserved_connections', true)::int8, 0) AS reserved
FROM pg_stat_activity
WHERE backend_type = 'client backend' OR (backend_type IS NULL AND usesysid IS NOT NULL)
GROUP BY application_name, usename, state
ORDER BY connections DESC
