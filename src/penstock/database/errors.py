"""What can go wrong between a session and its caller, beyond what SQLAlchemy already names."""

from sqlalchemy.exc import InvalidRequestError

from penstock.errors import PenstockError

__all__ = [
    "BudgetExceeded",
    "ReadOnlyError",
    "SelfDeadlock",
    "SessionBusy",
    "SessionClosed",
]


class BudgetExceeded(PenstockError):  # noqa: N818 - it reads as what happened, like SQLAlchemy's
    """The fleet may open more connections than the server can serve; nothing was started.

    Raised by :meth:`Database.open` only under ``budget="refuse"``.
    """


class ReadOnlyError(PenstockError, InvalidRequestError):
    """A read-only session was asked to write, or an object that it loaded was changed."""


class SelfDeadlock(PenstockError, InvalidRequestError):  # noqa: N818 - as above
    """A statement of the express lane waited for a lock of a session of its own request.

    The server sees no deadlock: the session's transaction only ends after the statement. The
    statement was cancelled and has written nothing.
    """


class SessionBusy(PenstockError, InvalidRequestError):  # noqa: N818 - as above
    """A unit of work should have been committed while one of its statements was in progress."""


class SessionClosed(PenstockError, InvalidRequestError):  # noqa: N818 - as above
    """The session's unit of work is over; using it again would open a transaction nobody ends."""
