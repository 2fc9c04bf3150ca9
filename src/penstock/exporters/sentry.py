"""Spans and breadcrumbs for Sentry of what runs in the express lane; needs the extra ``sentry``.

Sessions need nothing of the kind: Sentry's own integration of SQLAlchemy sees them. The express
lane speaks to the driver by another way than those that its integrations know.
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

__all__ = ["instrument"]

_ORIGIN = "auto.db.penstock"


def instrument(database: Database) -> Callable[[], None]:
    """Have Sentry see the statements of the express lane, COPY among them; never a value.

    Args:
        database: Open or not; once for each, or everything is told twice. Where its express lane
            runs by sessions, as on other drivers than asyncpg, there is nothing to do.

    Returns:
        What turns it off again.
    """
    lane: Any = database.lane
    if not isinstance(lane, DriverLane):
        return lambda: None
    return lane.observer.add_spans(_Spans(str(database.engine.url.database)))


class _Spans:
    """Makes the spans of one database's statements.

    Args:
        name: The database's.
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
        """Leave the span as it is: it has ended with its block."""
