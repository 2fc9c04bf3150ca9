"""COMMIT, and whether its failure says what became of the work."""

from time import monotonic

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from penstock.express import CommitOutcomeUnknown

__all__ = ["commit"]

_UNKNOWN_SQLSTATE_CLASSES = ("08", "57")
"""Connection exception and operator intervention: the server may have committed before it went.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""
_STATEMENT_COMPLETION_UNKNOWN = "40003"


def commit(session: Session) -> float:
    """Flush ``session`` and commit its transaction.

    A failure of the flush is raised as it is: nothing has been committed then.

    Returns:
        Seconds that the COMMIT took.

    Raises:
        CommitOutcomeUnknown: The COMMIT left and no answer came back.
        sqlalchemy.exc.DBAPIError: The server refused the COMMIT; the work is rolled back.
    """
    session.flush()
    began = monotonic()
    try:
        session.commit()
    except Exception as error:
        if _outcome_is_unknown(error):
            raise CommitOutcomeUnknown(
                "The answer to COMMIT was lost: the work may or may not have been saved. "
                "Look for it before repeating it."
            ) from error
        raise
    return monotonic() - began


def _outcome_is_unknown(error: Exception) -> bool:
    if not isinstance(error, DBAPIError):
        return isinstance(error, OSError | TimeoutError)
    sqlstate: str | None = getattr(error.orig, "sqlstate", None)
    if sqlstate is None:
        return error.connection_invalidated
    return sqlstate.startswith(_UNKNOWN_SQLSTATE_CLASSES) or sqlstate == (
        _STATEMENT_COMPLETION_UNKNOWN
    )
