-- settings: what this role's sessions start with, for whom it was set, what waits for a restart.
SELECT name, setting AS current, reset_val AS value, coalesce(unit, '') AS unit, pending_restart,
    coalesce((
        SELECT CASE
            WHEN own.setrole = 0 AND own.setdatabase <> 0
                THEN format('DATABASE %I', current_database())
            WHEN own.setdatabase <> 0
                THEN format('ROLE %I IN DATABASE %I', current_user, current_database())
            WHEN own.setrole <> 0 THEN format('ROLE %I', current_user)
            ELSE 'ROLE ALL'
        END
        FROM pg_db_role_setting AS own
        WHERE own.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user))
            AND own.setdatabase IN
                (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
            AND EXISTS (
                SELECT FROM unnest(own.setconfig) AS given
                WHERE split_part(given, '=', 1) = pg_settings.name
            )
        ORDER BY own.setrole <> 0 DESC, own.setdatabase <> 0 DESC
        LIMIT 1
    ), '') AS set_for
FROM pg_settings
