-- subtransactions: open transactions with more than the 64 subtransactions that fit into memory.
SELECT a.pid, coalesce(nullif(a.application_name, ''), 'without a name') AS application,
    s.subxact_count::int8 AS subtransactions, s.subxact_overflowed AS has_overflowed
FROM pg_stat_get_backend_idset() AS backend
CROSS JOIN pg_stat_get_backend_subxact(backend) AS s
JOIN pg_stat_activity AS a ON a.pid = pg_stat_get_backend_pid(backend)
WHERE s.subxact_overflowed
