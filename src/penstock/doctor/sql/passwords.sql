-- passwords: roles whose stored password is an MD5 hash.
SELECT rolname::text AS role FROM pg_authid WHERE rolpassword LIKE 'md5%' ORDER BY rolname
