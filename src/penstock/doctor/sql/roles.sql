-- roles: those that can log in and whose password ends.
SELECT rolname::text AS role,
    (extract(epoch FROM rolvaliduntil - now()) / 86400)::float8 AS days
FROM pg_roles
WHERE rolcanlogin AND rolvaliduntil < 'infinity'
ORDER BY days
