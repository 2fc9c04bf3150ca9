-- certificate: the file of the server's own, where TLS is on; for superusers.
SELECT pg_read_file(current_setting('ssl_cert_file')) AS pem,
    extract(epoch FROM now())::float8 AS now
WHERE current_setting('ssl') = 'on'
