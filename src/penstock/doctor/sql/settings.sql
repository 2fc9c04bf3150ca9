-- settings: what this role's sessions start with, and what only a restart will apply.
SELECT name, setting AS current, reset_val AS value, coalesce(unit, '') AS unit, pending_restart
FROM pg_settings
