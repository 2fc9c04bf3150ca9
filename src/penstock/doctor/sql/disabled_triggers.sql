-- disabled_triggers: triggers that do not fire, those of foreign keys included.
SELECT quote_ident(tgname) AS name, tgrelid::regclass::text AS relation,
    tgisinternal AS is_of_constraint
FROM pg_trigger
WHERE tgenabled = 'D'
ORDER BY relation, name
LIMIT 1000
