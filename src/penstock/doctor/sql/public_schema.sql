-- public_schema: whether everybody may create objects in the schema that everybody searches.
SELECT nspname::text AS schema
FROM pg_namespace
CROSS JOIN aclexplode(coalesce(nspacl, acldefault('n', nspowner))) AS granted
WHERE granted.grantee = 0 AND granted.privilege_type = 'CREATE' AND nspname = 'public'
