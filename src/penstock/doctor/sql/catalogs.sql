-- catalogs: dead rows in the system catalogs.
SELECT format('%I.%I', schemaname, relname) AS relation, n_live_tup AS live, n_dead_tup AS dead
FROM pg_stat_sys_tables
WHERE schemaname = 'pg_catalog' AND n_dead_tup > 0
