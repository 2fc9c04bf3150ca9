-- sessions: each server process but our own, without the text of its statement.
SELECT
    a.pid,
    coalesce(nullif(a.application_name, ''), 'without a name') AS application,
    coalesce(a.usename::text, '') AS role,
    coalesce(a.datname::text, '') AS database,
    coalesce(a.backend_type, '') AS kind,
    coalesce(a.state, '') AS state,
    coalesce(r.rolsuper, false) AS is_superuser,
    a.client_addr IS NOT NULL AND NOT (
        a.client_addr <<= '127.0.0.0/8' OR a.client_addr = '::1'
    ) AS is_remote,
    s.ssl AS is_encrypted,
    coalesce(a.wait_event_type, '') AS waits_for,
    coalesce(age(a.backend_xmin), 0)::int8 AS horizon_age,
    coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8 AS transaction_seconds,
    coalesce(extract(epoch FROM clock_timestamp() - a.query_start), 0)::float8 AS query_seconds,
    coalesce(extract(epoch FROM clock_timestamp() - a.state_change), 0)::float8 AS state_seconds
FROM pg_stat_activity AS a
LEFT JOIN pg_roles AS r ON r.oid = a.usesysid
LEFT JOIN pg_stat_ssl AS s ON s.pid = a.pid
WHERE a.pid <> pg_backend_pid()
ORDER BY transaction_seconds DESC
