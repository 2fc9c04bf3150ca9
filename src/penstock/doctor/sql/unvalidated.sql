-- unvalidated: constraints that were added NOT VALID and never validated.
SELECT quote_ident(conname) AS name, conrelid::regclass::text AS relation
FROM pg_constraint
WHERE NOT convalidated AND contype IN ('c', 'f', 'n') AND conrelid <> 0
ORDER BY relation, name
LIMIT 1000
