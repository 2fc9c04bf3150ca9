-- policies: tables with policies whose row-level security is off.
SELECT DISTINCT format('%I.%I', nspname, relname) AS relation
FROM pg_policy
JOIN pg_class ON pg_class.oid = polrelid
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE NOT relrowsecurity
ORDER BY relation
