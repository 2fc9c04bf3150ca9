-- What a session of PostgreSQL remembers, as pairs of a name and a value, in no particular order.
SELECT 'setting ' || name, setting FROM pg_settings
UNION ALL
-- One that was set for a transaction is empty after it where it was NULL before.
SELECT 'own setting ' || name, coalesce(current_setting(name, true), '')
FROM unnest(ARRAY['app.tenant', 'local.tenant', 'constraints.a', 'transaction.a', 'session.a']) name
UNION ALL
SELECT 'current user', current_user
UNION ALL
SELECT 'session user', session_user
UNION ALL
SELECT 'lock', concat_ws(' ', classid, objid, objsubid, mode)
FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL
SELECT 'channel', pg_listening_channels()
UNION ALL
SELECT 'prepared', name FROM pg_prepared_statements WHERE from_sql
UNION ALL
SELECT 'cursor', name FROM pg_cursors WHERE is_holdable
UNION ALL
SELECT 'temporary', relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()
UNION ALL
SELECT 'temporary', typname FROM pg_type WHERE typnamespace = pg_my_temp_schema()
UNION ALL
SELECT 'temporary', proname FROM pg_proc WHERE pronamespace = pg_my_temp_schema()
UNION ALL
SELECT 'slot', slot_name FROM pg_replication_slots WHERE temporary AND active_pid = pg_backend_pid()
