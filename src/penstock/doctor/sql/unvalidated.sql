-- unvalidated: constraints that were added NOT VALID and never validated.
SELECT quote_ident(conname) AS name, format('%I.%I', nspname, relname) AS relation
FROM pg_constraint
JOIN pg_class ON pg_class.oid = conrelid
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE NOT convalidated AND contype IN ('c', 'f', 'n')
ORDER BY relation, name
LIMIT 1000
