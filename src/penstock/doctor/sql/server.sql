-- server: the version, and what the role of this connection is and may see.
SELECT
    current_setting('server_version_num')::int4 AS version,
    current_setting('server_version') AS version_text,
    current_user::text AS role,
    current_database()::text AS database,
    pg_is_in_recovery() AS is_replica,
    pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all_sessions
