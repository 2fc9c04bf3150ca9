"""Capacity plans for people: from a running service, as a report, and held against a real run.

``verification`` has the run; it needs the HTTP client of the load generator.
"""

from penstock.capacity.page import write_page
from penstock.capacity.report import draw_plan, draw_verification, write_json
from penstock.capacity.service import measured_inputs, only_database

__all__ = [
    "draw_plan",
    "draw_verification",
    "measured_inputs",
    "only_database",
    "write_json",
    "write_page",
]
