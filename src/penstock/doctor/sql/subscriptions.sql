-- subscriptions: errors of logical replication's subscribers.
SELECT subname::text AS subscription, apply_error_count, sync_error_count
FROM pg_stat_subscription_stats
WHERE apply_error_count + sync_error_count > 0
