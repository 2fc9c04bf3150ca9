-- databases: what each database has counted, and for how many hours.
SELECT
    coalesce(datname::text, 'shared catalogs') AS database,
    datname = current_database() AS is_own,
    deadlocks, conflicts, temp_files, temp_bytes, blks_hit, blks_read,
    xact_commit, xact_rollback, sessions, sessions_abandoned, sessions_fatal, sessions_killed,
    coalesce(checksum_failures, 0) AS checksum_failures,
    greatest(extract(epoch FROM
        now() - coalesce(stats_reset, pg_postmaster_start_time())) / 3600, 0.01)::float8 AS hours
FROM pg_stat_database
