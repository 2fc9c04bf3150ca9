-- sequences: how far each has come, and what the column that it fills can hold.
SELECT format('%I.%I', s.schemaname, s.sequencename) AS sequence,
    s.last_value, s.max_value, s.min_value, s.increment_by, s.cycle AS is_cyclic,
    has_sequence_privilege(c.oid, 'SELECT') OR has_sequence_privilege(c.oid, 'USAGE')
        AS is_readable,
    filled.relation, filled.column,
    CASE filled.type WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 END::int8
        AS column_max
FROM pg_sequences AS s
JOIN pg_namespace AS n ON n.nspname = s.schemaname
JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = s.sequencename
LEFT JOIN LATERAL (
    SELECT format('%I.%I', tn.nspname, t.relname) AS relation, quote_ident(a.attname) AS column,
        a.atttypid AS type
    FROM (
        SELECT d.refobjid, d.refobjsubid
        FROM pg_depend AS d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
            AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
        UNION
        SELECT f.adrelid, f.adnum
        FROM pg_depend AS d JOIN pg_attrdef AS f ON f.oid = d.objid
        WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
            AND d.classid = 'pg_attrdef'::regclass
    ) AS uses (relation, number)
    JOIN pg_attribute AS a ON a.attrelid = uses.relation AND a.attnum = uses.number
    JOIN pg_class AS t ON t.oid = uses.relation
    JOIN pg_namespace AS tn ON tn.oid = t.relnamespace
    WHERE a.attinhcount = 0 -- a partition's column changes with its parent's
) AS filled ON true
