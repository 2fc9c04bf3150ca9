"""COMMIT, and whether its failure says what became of the work."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from penstock.deadlines import DeadlineExceeded, limits_in_force
from penstock.engine import StatementTimeout
from penstock.express import CommitOutcomeUnknown

__all__ = ["commit", "committing"]

_UNKNOWN_SQLSTATE_CLASSES = ("08", "57")
"""Connection exception and operator intervention: the server may have committed before it went.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""
_STATEMENT_COMPLETION_UNKNOWN = "40003"
_CANCELLED = "57014"
"""The server says so only of a transaction that it has rolled back: a cancellation that comes later
is a warning."""


def commit(session: Session) -> float:
    """Flush ``session`` and commit its transaction.

    A failure of the flush is raised as it is: nothing has been committed then.

    Returns:
        Seconds that the COMMIT took.

    Raises:
        CommitOutcomeUnknown: The COMMIT left and no answer came back.
        DeadlineExceeded: The time was up before it left; the work is rolled back.
        sqlalchemy.exc.DBAPIError: The server refused the COMMIT; the work is rolled back.
    """
    session.flush()
    began = monotonic()
    with committing():
        session.commit()
    return monotonic() - began


@contextmanager
def committing() -> Iterator[None]:
    """Send a COMMIT in the block, and say so where nobody knows what became of it.

    Raises:
        CommitOutcomeUnknown: The COMMIT left and no answer came back.
        DeadlineExceeded: The time was up before it left.
    """
    if (limits := limits_in_force()) is not None:
        limits.before_commit()
    try:
        yield
    except asyncio.CancelledError as cancelled:
        cancelled.was_sent = True  # type: ignore[attr-defined]  # for whoever has set a limit
        raise
    except Exception as error:
        if _outcome_is_unknown(error):
            limit = getattr(error, "limit", "")
            lost = f"did not come within {limit}" if limit else "was lost"
            raise CommitOutcomeUnknown(
                f"The answer to COMMIT {lost}: the work may or may not have been saved. "
                "Look for it before repeating it."
            ) from error
        raise


def _outcome_is_unknown(error: Exception) -> bool:
    if isinstance(error, StatementTimeout | DeadlineExceeded):
        return error.outcome_unknown
    if not isinstance(error, DBAPIError):
        return isinstance(error, OSError | TimeoutError)
    sqlstate: str | None = getattr(error.orig, "sqlstate", None)
    if sqlstate is None:
        return error.connection_invalidated
    if sqlstate == _CANCELLED:
        return False
    return sqlstate.startswith(_UNKNOWN_SQLSTATE_CLASSES) or sqlstate == (
        _STATEMENT_COMPLETION_UNKNOWN
    )
