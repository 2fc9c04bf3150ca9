-- backend_fsyncs: fsyncs that clients' processes had to do themselves.
SELECT coalesce(sum(fsyncs), 0)::int8 AS fsyncs
FROM pg_stat_io
WHERE backend_type = 'client backend' AND object = 'relation'
