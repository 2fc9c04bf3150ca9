-- foreign_keys: those whose columns no index begins with.
SELECT k.conname::text AS name, format('%I.%I', n.nspname, t.relname) AS relation,
    t.relkind = 'p' AS is_partitioned, greatest(t.reltuples, 0)::int8 AS rows,
    (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY position)
        FROM unnest(k.conkey) WITH ORDINALITY AS part (number, position)
        JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = part.number) AS columns
FROM pg_constraint AS k
JOIN pg_class AS t ON t.oid = k.conrelid
JOIN pg_namespace AS n ON n.oid = t.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND NOT EXISTS (
    SELECT FROM pg_index AS i
    WHERE i.indrelid = k.conrelid AND i.indisvalid AND i.indpred IS NULL
        AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey
)
ORDER BY rows DESC
LIMIT 1000
