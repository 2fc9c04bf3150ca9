"""The tables of a worker's file: how routes use connections, and which statements were slow."""

from penstock.telemetry.layout import (
    LAYOUT,
    ROUTE_BYTES,
    ROUTE_NUMBERS,
    ROUTES,
    STATEMENT_BYTES,
    STATEMENT_NUMBERS,
    STATEMENTS,
)
from penstock.telemetry.table import Table

__all__ = ["OTHER_ROUTES", "OTHER_STATEMENTS", "routes_of", "statements_of"]

OTHER_ROUTES = ("(other routes)",)
OTHER_STATEMENTS = ("(other statements)", "")


def routes_of(numbers: "memoryview[float]", texts: memoryview) -> Table:
    """Return the table of routes: checkouts, seconds, the longest."""
    return Table(
        numbers,
        texts,
        begin=LAYOUT.routes,
        width=ROUTE_NUMBERS,
        names_begin=LAYOUT.route_texts,
        name_bytes=(ROUTE_BYTES,),
        rows=ROUTES,
    )


def statements_of(numbers: "memoryview[float]", texts: memoryview) -> Table:
    """Return that of statements: calls, seconds, longest, rows, most in a request, last call."""
    return Table(
        numbers,
        texts,
        begin=LAYOUT.statements,
        width=STATEMENT_NUMBERS,
        names_begin=LAYOUT.statement_texts,
        name_bytes=(STATEMENT_BYTES, ROUTE_BYTES),
        rows=STATEMENTS,
    )
