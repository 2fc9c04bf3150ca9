"""Spans and breadcrumbs of the express lane for Sentry; needs the extra ``sentry``.

Sentry's own SQLAlchemy integration covers sessions. It does not see the express lane, which calls
the driver directly.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

try:
    import sentry_sdk
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "penstock.exporters.sentry needs Sentry's package, which is not installed. Install it "
        "with\n  pip install 'penstock[sentry]'",
        name=error.name,
    ) from error

from penstock.database import Database
from penstock.express import DriverLane

_ORIGIN = "auto.db.penstock"


def instrument(database: Database) -> Callable[[], None]:
    """Report the statements of the express lane to Sentry, COPY included, without values.

    Args:
        database: The database, open or not. Instrument it once: a second instrumentation reports
            everything twice. On drivers other than asyncpg the express lane uses sessions, and
            this does nothing.

    Returns:
        A function that removes the instrumentation.
    """
    lane: Any = database.lane
    if not isinstance(lane, DriverLane):
        return lambda: None
    return lane.observer.add_spans(_Spans(str(database.engine.url.database)))


class _Spans:
    """Makes the spans of one database's statements.

    Args:
        name: Name of the database on the server.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @contextmanager
    def of(self, sql: str, batch: int = 0) -> Iterator[Any]:
        text = " ".join(sql.split())
        sentry_sdk.add_breadcrumb(message=text, category="query")
        with sentry_sdk.start_span(op="db", name=text, origin=_ORIGIN) as span:
            span.set_data("db.system", "postgresql")
            span.set_data("db.name", self._name)
            if batch:
                span.set_data("db.operation.batch.size", batch)
            yield span

    def succeed(self, span: Any, rows: int | None) -> None:
        """Do nothing: the span has ended with its block."""
