-- A call of every function of pg_catalog that takes nothing polymorphic, with a value of each of the
-- most usual types and NULL of all others.
SELECT proname::text, format(
    'SELECT pg_catalog.%I(%s)%s',
    proname,
    (
        SELECT string_agg(
            coalesce(
                '{"text": "''a''", "name": "''a''", "integer": "1", "bigint": "1", "smallint": "1",
                  "oid": "1259", "regclass": "''pg_class''", "boolean": "true", "numeric": "1",
                  "double precision": "0", "json": "''{}''", "jsonb": "''{}''"
                }'::jsonb ->> format_type(type, NULL),
                'NULL'
            ) || '::' || format_type(type, NULL),
            ', ' ORDER BY place
        )
        FROM unnest(proargtypes) WITH ORDINALITY AS argument (type, place)
    ),
    CASE prokind WHEN 'w' THEN ' OVER ()' END
)
FROM pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind IN ('f', 'a', 'w')
    AND NOT EXISTS (
        SELECT FROM unnest(proargtypes) AS type JOIN pg_type ON pg_type.oid = type
        WHERE typtype = 'p'
    )
