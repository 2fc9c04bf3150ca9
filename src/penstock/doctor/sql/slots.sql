-- slots: replication slots, and how much of the write-ahead log each keeps.
SELECT slot_name::text AS slot, active AS is_active, coalesce(wal_status, '') AS wal_status,
    coalesce(pg_wal_lsn_diff(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
        restart_lsn
    ), 0)::int8 AS kept_bytes,
    coalesce(greatest(age(xmin), age(catalog_xmin)), 0)::int8 AS horizon_age,
    current_setting('max_slot_wal_keep_size') = '-1' AS is_unlimited
FROM pg_replication_slots
WHERE NOT temporary
