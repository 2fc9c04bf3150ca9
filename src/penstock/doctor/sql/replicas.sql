-- replicas: who receives the write-ahead log, and how far behind each is.
SELECT coalesce(nullif(application_name, ''), client_addr::text, pid::text) AS replica,
    coalesce(state, '') AS state, coalesce(sync_state, '') AS sync_state,
    coalesce(pg_wal_lsn_diff(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
        replay_lsn
    ), 0)::int8 AS lag_bytes,
    coalesce(extract(epoch FROM replay_lag), 0)::float8 AS lag_seconds
FROM pg_stat_replication
