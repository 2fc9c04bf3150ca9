-- Lifts the limits on the session's statements and transactions, and sets the one on locks.
-- Parameter: lock_timeout, with its unit. transaction_timeout exists since PostgreSQL 17.
SELECT set_config(name, CASE name WHEN 'lock_timeout' THEN :lock_timeout ELSE '0' END, false)
FROM pg_settings
WHERE name IN (
    'lock_timeout', 'statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout'
)
