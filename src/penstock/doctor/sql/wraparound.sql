-- wraparound: how old the oldest transaction and multixact ids of each database are.
SELECT datname::text AS database, age(datfrozenxid)::int8 AS transactions,
    mxid_age(datminmxid)::int8 AS multixacts
FROM pg_database
ORDER BY transactions DESC
