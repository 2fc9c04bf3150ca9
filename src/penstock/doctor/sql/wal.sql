-- wal: how often a write had to wait because the buffers of the write-ahead log were full.
SELECT wal_records, wal_buffers_full, current_setting('wal_buffers') AS wal_buffers
FROM pg_stat_wal
