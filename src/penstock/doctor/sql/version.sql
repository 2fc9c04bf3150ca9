-- version: of the server, and its date.
SELECT current_setting('server_version_num')::int4 AS number,
    current_setting('server_version') AS text, current_date AS today
