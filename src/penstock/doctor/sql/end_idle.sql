-- end_idle: end those of some connections that are still what they were when they were shown.
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) AS ended
FROM pg_stat_activity
WHERE pid = ANY($3::int4[]) AND application_name = $1 AND state = 'idle'
    AND clock_timestamp() - state_change > make_interval(secs => $2)
