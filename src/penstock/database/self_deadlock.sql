-- The process of this connection, and whether it holds what others wait for, be it by way of third ones.
--
-- :pids are the others' processes. The server itself sees no deadlock: this one waits for nothing.
WITH RECURSIVE waiting (pid) AS (
    SELECT unnest(CAST(:pids AS integer[]))
    UNION
    SELECT unnest(pg_blocking_pids(pid)) FROM waiting
)
SELECT pg_backend_pid(), EXISTS (SELECT FROM waiting WHERE pid = pg_backend_pid())
