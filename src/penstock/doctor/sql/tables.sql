-- tables: the 5,000 largest tables of the database, by the estimates that vacuum keeps.
SELECT format('%I.%I', n.nspname, c.relname) AS relation,
    c.relkind = 'p' AS is_partitioned,
    c.relpersistence = 'u' AS is_unlogged,
    c.relispartition AS is_partition,
    c.relpages::int8 AS pages,
    coalesce(s.n_live_tup, 0) AS live,
    coalesce(s.n_dead_tup, 0) AS dead,
    coalesce(s.n_mod_since_analyze, 0) AS modified,
    coalesce(s.last_vacuum, s.last_autovacuum) IS NOT NULL AS is_vacuumed,
    coalesce(s.last_analyze, s.last_autoanalyze) IS NOT NULL AS is_analyzed,
    coalesce(s.seq_scan, 0) AS sequential_scans,
    coalesce(s.seq_tup_read, 0) AS rows_scanned,
    coalesce(s.idx_scan, 0) AS index_scans,
    coalesce(array_to_string(c.reloptions, ','), '') ~ 'autovacuum_enabled=(false|off|no|0)'
        AS is_without_autovacuum,
    EXISTS (SELECT FROM pg_constraint AS p WHERE p.conrelid = c.oid AND p.contype = 'p')
        AS has_primary_key,
    EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'id') AS has_id
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_user_tables AS s ON s.relid = c.oid
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
    AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast'
    AND NOT EXISTS (
        SELECT FROM pg_depend AS d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    )
ORDER BY c.relpages DESC
LIMIT 5000
