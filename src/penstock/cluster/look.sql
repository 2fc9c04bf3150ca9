-- look: the role of a server, how far it is, which history it is in, and which cluster it belongs
-- to; by what every role may call. To see a new timeline at once, a role needs pg_monitor.
SELECT
    pg_is_in_recovery() AS is_replica,
    (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END
        - '0/0')::int8 AS lsn,
    CASE WHEN pg_is_in_recovery() THEN greatest(
        (SELECT timeline_id FROM pg_control_checkpoint()),
        (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
        (SELECT received_tli FROM pg_stat_wal_receiver)
    ) ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END AS timeline,
    (SELECT system_identifier FROM pg_control_system()) AS system
