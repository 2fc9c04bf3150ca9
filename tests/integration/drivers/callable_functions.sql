-- The functions of pg_catalog that a statement can call by name: no triggers, no handlers, nothing
-- that only the server itself calls, and no type's own input and output.
SELECT DISTINCT proname::text FROM pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind IN ('f', 'a', 'w')
    AND NOT prorettype || proargtypes::oid[] && ARRAY[
        'internal', 'cstring', 'trigger', 'event_trigger', 'language_handler', 'fdw_handler',
        'index_am_handler', 'table_am_handler', 'tsm_handler', 'pg_ddl_command'
    ]::regtype[]::oid[]
