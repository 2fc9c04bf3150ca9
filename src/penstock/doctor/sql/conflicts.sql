-- conflicts: statements that a replica cancelled because replay was in their way.
SELECT datname::text AS database, confl_tablespace, confl_lock, confl_snapshot,
    confl_bufferpin, confl_deadlock
FROM pg_stat_database_conflicts
WHERE confl_tablespace + confl_lock + confl_snapshot + confl_bufferpin + confl_deadlock > 0
