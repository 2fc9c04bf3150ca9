-- indexes: the 5,000 largest indexes of the database, with what makes two of them the same.
SELECT format('%I.%I', n.nspname, c.relname) AS index,
    format('%I.%I', n.nspname, t.relname) AS relation,
    i.indisvalid AS is_valid,
    i.indisunique AS is_unique,
    i.indisprimary OR i.indisreplident
        OR EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = c.oid) AS is_needed,
    c.relispartition AS is_partition,
    EXISTS (SELECT FROM pg_stat_progress_create_index AS p WHERE p.index_relid = c.oid) AS is_built,
    coalesce(s.idx_scan, 0) AS scans,
    c.relpages::int8 AS pages,
    i.indkey::text AS columns,
    m.amname::text AS method,
    concat_ws('|', i.indclass::text, i.indcollation::text, i.indoption::text,
        pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid)) AS details,
    i.indexprs IS NULL AND i.indpred IS NULL AND i.indnatts = i.indnkeyatts AS is_plain
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_class AS t ON t.oid = i.indrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_am AS m ON m.oid = c.relam
LEFT JOIN pg_stat_user_indexes AS s ON s.indexrelid = c.oid
WHERE c.relkind = 'i' AND c.relpersistence <> 't'
    AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast'
ORDER BY c.relpages DESC, index
LIMIT 5000
