-- Cancel those of :pids which wait, be it by way of others, for this connection's process.
--
-- The server itself sees no deadlock: this process waits for nothing. :own is what the driver takes
-- for its number; a pooler makes one up, and then the others' are made up as well.
WITH RECURSIVE waiting (pid, first) AS (
    SELECT pid, pid FROM unnest(CAST(:pids AS integer[])) AS pid
    UNION
    SELECT blocker, first FROM waiting, unnest(pg_blocking_pids(pid)) AS blocker
)
SELECT coalesce(bool_or(pg_cancel_backend(first)), false)
FROM waiting
WHERE pid = pg_backend_pid() AND pid = :own
