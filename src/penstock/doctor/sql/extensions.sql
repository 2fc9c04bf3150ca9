-- extensions: installed ones, and what the server has of them.
SELECT name::text AS extension, installed_version AS installed, default_version AS available,
    (SELECT setting FROM pg_settings WHERE name = 'shared_preload_libraries') AS preloaded
FROM pg_available_extensions
WHERE installed_version IS NOT NULL
