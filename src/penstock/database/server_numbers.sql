-- server_numbers: connections of all clients, how many the server accepts, and how far the replica
-- furthest behind is, in bytes and in seconds; nothing of replicas where the role may not see them.
SELECT
    (SELECT sum(numbackends) FROM pg_stat_database)::float8 AS connections,
    current_setting('max_connections')::float8 AS accepted,
    (SELECT max(pg_wal_lsn_diff(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
        replay_lsn
    )) FROM pg_stat_replication)::float8 AS lag_bytes,
    (SELECT max(extract(epoch FROM replay_lag)) FROM pg_stat_replication)::float8 AS lag_seconds
