-- statement_statistics: how often pg_stat_statements had to forget.
SELECT dealloc AS forgotten,
    greatest(extract(epoch FROM now() - stats_reset) / 3600, 0.01)::float8 AS hours,
    current_setting('pg_stat_statements.max') AS most
FROM pg_stat_statements_info
