-- archiver: how archiving of the write-ahead log fares.
SELECT archived_count, failed_count, coalesce(last_failed_wal, '') AS last_failed,
    coalesce(last_failed_time > last_archived_time, last_failed_time IS NOT NULL) AS is_failing
FROM pg_stat_archiver
