-- standby: how a replica itself fares; whether it streams is NULL where the role may not see it.
SELECT pg_is_wal_replay_paused() AS is_paused,
    coalesce(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), 0)::int8
        AS waiting_bytes,
    coalesce(extract(epoch FROM now() - pg_last_xact_replay_timestamp()), 0)::float8
        AS seconds,
    (SELECT setting <> '' FROM pg_settings WHERE name = 'primary_conninfo') AS is_streaming,
    (SELECT count(*) FROM pg_stat_wal_receiver WHERE pid IS NOT NULL) AS receivers
