-- memory: what the server's machine has, and what the settings may use of it.
SELECT (regexp_match(pg_read_file('/proc/meminfo'), 'MemTotal:\s+(\d+) kB'))[1]::int8 * 1024 AS total,
    pg_size_bytes(current_setting('shared_buffers')) AS shared_buffers,
    pg_size_bytes(current_setting('work_mem')) AS work_mem,
    current_setting('max_connections')::int8 AS connections
