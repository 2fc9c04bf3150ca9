-- policies: tables with policies whose row-level security is off.
SELECT DISTINCT polrelid::regclass::text AS relation
FROM pg_policy JOIN pg_class ON pg_class.oid = polrelid
WHERE NOT relrowsecurity
ORDER BY relation
