-- look: what the server accepts, and how many connections its clients have, by the names that they
-- give themselves. Every role may see the names; whose connections are no client's have no role or
-- no database.
SELECT
    current_setting('max_connections')::int AS max_connections,
    current_setting('superuser_reserved_connections')::int
        + coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved,
    pg_backend_pid() AS pid,
    application_name,
    count(*)::int AS connections
FROM pg_stat_activity
WHERE usesysid IS NOT NULL AND datid IS NOT NULL
    AND (backend_type IS NULL OR backend_type = 'client backend')
GROUP BY application_name
