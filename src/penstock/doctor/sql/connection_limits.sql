-- connection_limits: databases and roles that have a limit, and how many connections they use.
SELECT 'database' AS kind, d.datname::text AS name,
    count(a.pid) AS connections, d.datconnlimit::int8 AS accepted
FROM pg_database AS d
LEFT JOIN pg_stat_activity AS a ON a.datid = d.oid AND a.usesysid IS NOT NULL
WHERE d.datconnlimit >= 0 AND d.datallowconn
GROUP BY d.datname, d.datconnlimit
UNION ALL
SELECT 'role', r.rolname::text, count(a.pid), r.rolconnlimit::int8
FROM pg_roles AS r
LEFT JOIN pg_stat_activity AS a ON a.usesysid = r.oid
WHERE r.rolconnlimit >= 0 AND r.rolcanlogin
GROUP BY r.rolname, r.rolconnlimit
