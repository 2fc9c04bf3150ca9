-- slru: small caches of transaction states, and how often they had to read.
SELECT name::text AS cache, blks_hit, blks_read
FROM pg_stat_slru
WHERE lower(name) IN
    ('subtransaction', 'subtrans', 'multixact_member', 'multixactmember', 'multixact_offset',
    'multixactoffset')
