"""What is wrong with a PostgreSQL or a PgBouncer: checks, each a query and a rule, and a report."""

from penstock.doctor.check import Check, Observation
from penstock.doctor.checklist import CHECKS, GROUPS, chosen
from penstock.doctor.declared import DeclaredPools, declared_checks
from penstock.doctor.examination import (
    Examination,
    Result,
    doctor_settings,
    examine,
    refuse_other_databases,
)
from penstock.doctor.idle import IdleConnections, end_idle, find_idle, seconds_of
from penstock.doctor.pgbouncer import examine_pgbouncer
from penstock.doctor.report import draw, findings_table, write_json
from penstock.doctor.slow_routes import CHECK as SLOW_ROUTES
from penstock.doctor.slow_routes import SlowUse

__all__ = [
    "CHECKS",
    "GROUPS",
    "SLOW_ROUTES",
    "Check",
    "DeclaredPools",
    "Examination",
    "IdleConnections",
    "Observation",
    "Result",
    "SlowUse",
    "chosen",
    "declared_checks",
    "doctor_settings",
    "draw",
    "end_idle",
    "examine",
    "examine_pgbouncer",
    "find_idle",
    "findings_table",
    "refuse_other_databases",
    "seconds_of",
    "write_json",
]
