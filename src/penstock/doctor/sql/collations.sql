-- collations: databases whose indexes were built by another version of the collation library.
SELECT quote_ident(datname) AS database, datcollversion AS built_with,
    pg_database_collation_actual_version(oid) AS actual
FROM pg_database
WHERE datcollversion <> pg_database_collation_actual_version(oid)
