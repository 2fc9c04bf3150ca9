-- sequences: how far each has come, and what the column that it fills can hold.
SELECT format('%I.%I', s.schemaname, s.sequencename) AS sequence,
    s.last_value, s.max_value, s.min_value, s.increment_by, s.cycle AS is_cyclic,
    has_sequence_privilege(c.oid, 'SELECT') OR has_sequence_privilege(c.oid, 'USAGE')
        AS is_readable,
    col.relation, col.name AS column,
    CASE col.type WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 END::int8
        AS column_max
FROM pg_sequences AS s
JOIN pg_namespace AS n ON n.nspname = s.schemaname
JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = s.sequencename
LEFT JOIN LATERAL (
    SELECT a.attrelid::regclass::text AS relation, quote_ident(a.attname) AS name,
        a.atttypid AS type
    FROM pg_depend AS d
    LEFT JOIN pg_attrdef AS f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
    JOIN pg_attribute AS a
        ON (d.classid = 'pg_attrdef'::regclass AND a.attrelid = f.adrelid AND a.attnum = f.adnum)
        OR (d.classid = 'pg_class'::regclass AND a.attrelid = d.refobjid
            AND a.attnum = d.refobjsubid)
    WHERE (d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
            AND d.refobjid = c.oid)
        OR (d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))
    ORDER BY a.atttypid = 'int2'::regtype DESC, a.atttypid = 'int4'::regtype DESC
    LIMIT 1
) AS col ON true
