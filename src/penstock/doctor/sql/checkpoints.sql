-- checkpoints: how many were due by time, and how many were requested.
SELECT num_timed AS timed, num_requested AS requested,
    greatest(extract(epoch FROM now() - stats_reset) / 3600, 0.01)::float8 AS hours,
    current_setting('max_wal_size') AS max_wal_size
FROM pg_stat_checkpointer
