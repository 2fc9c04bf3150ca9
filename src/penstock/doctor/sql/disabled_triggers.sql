-- disabled_triggers: triggers that do not fire, those of foreign keys included.
SELECT quote_ident(tgname) AS name, format('%I.%I', nspname, relname) AS relation,
    tgisinternal AS is_of_constraint
FROM pg_trigger
JOIN pg_class ON pg_class.oid = tgrelid
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE tgenabled = 'D'
ORDER BY relation, name
LIMIT 1000
