-- synchronous: which synchronous standbys are named, and how many are there.
SELECT current_setting('synchronous_standby_names') AS named,
    current_setting('synchronous_commit') AS synchronous_commit,
    (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')) AS present
