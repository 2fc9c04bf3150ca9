-- hba_rules: what pg_hba.conf asks of clients, where it asks little.
SELECT line_number::int8 AS line, type, auth_method AS method, coalesce(address, '') AS address,
    coalesce(error, '') AS error
FROM pg_hba_file_rules
WHERE auth_method IN ('trust', 'password', 'md5') OR error IS NOT NULL
ORDER BY line
