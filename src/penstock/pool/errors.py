"""Why the pool gave no connection; SQLAlchemy's own errors are their base classes."""

import contextlib
import re
import ssl
import traceback
from collections.abc import Iterator, Mapping
from enum import StrEnum

from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeoutError

from penstock.errors import PenstockError
from penstock.pool.queue import RejectReason
from penstock.pool.snapshot import PoolSnapshot, text_of

__all__ = [
    "ConnectFailed",
    "FailureReason",
    "LeaseReclaimed",
    "NestedCheckout",
    "PoolClosed",
    "PoolFull",
    "PoolInAnotherLoop",
    "PoolSuspended",
    "PoolTimeout",
    "chain_of",
    "clear_traceback",
    "is_refused",
    "is_transient",
    "reason_of",
    "rejection_error",
]


class FailureReason(StrEnum):
    """Why a new connection could not be opened."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    AUTHENTICATION = "authentication"
    UNKNOWN_DATABASE = "unknown-database"
    TOO_MANY_CONNECTIONS = "too-many-connections"
    NOT_READY = "not-ready"
    OTHER = "other"


class ConnectFailed(PenstockError, SQLAlchemyError):  # noqa: N818 - it reads as what happened
    """A new connection could not be opened, in time or at all.

    The driver's error is its ``__cause__``. Waiting too long for a connection of the pool is
    another error, ``sqlalchemy.exc.TimeoutError``.

    Args:
        message: Driver, address, database, ``connect_timeout`` and cause; never the password.
        reason: The same as a value to decide by, such as not to hammer a server with a password
            that it refuses.
    """

    def __init__(self, message: str, reason: FailureReason = FailureReason.OTHER) -> None:
        super().__init__(message)
        self.reason = reason


# PostgreSQL, Appendix A "PostgreSQL Error Codes".
SQLSTATES: Mapping[str, FailureReason] = {
    "08000": FailureReason.UNREACHABLE,
    "08001": FailureReason.UNREACHABLE,
    "08003": FailureReason.UNREACHABLE,
    "08006": FailureReason.UNREACHABLE,
    "28000": FailureReason.AUTHENTICATION,
    "28P01": FailureReason.AUTHENTICATION,
    "3D000": FailureReason.UNKNOWN_DATABASE,
    "53300": FailureReason.TOO_MANY_CONNECTIONS,
    "57P01": FailureReason.NOT_READY,
    "57P02": FailureReason.NOT_READY,
    "57P03": FailureReason.NOT_READY,
}

# MariaDB Server documentation, "MariaDB Error Code Reference"; MySQL has the same numbers.
MYSQL_CODES: Mapping[int, FailureReason] = {
    1040: FailureReason.TOO_MANY_CONNECTIONS,
    1044: FailureReason.AUTHENTICATION,
    1045: FailureReason.AUTHENTICATION,
    1049: FailureReason.UNKNOWN_DATABASE,
    1053: FailureReason.NOT_READY,
    1203: FailureReason.TOO_MANY_CONNECTIONS,
    1226: FailureReason.TOO_MANY_CONNECTIONS,
    1698: FailureReason.AUTHENTICATION,
    2003: FailureReason.UNREACHABLE,
    2013: FailureReason.UNREACHABLE,
}

# libpq and SQLite tell nothing but a text when a connection fails, so the reason is read from it.
# A server whose lc_messages is not English leaves the reason at OTHER.
TEXTS: tuple[tuple[re.Pattern[str], FailureReason], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (r"authentication failed|no pg_hba\.conf entry", FailureReason.AUTHENTICATION),
        (r"role .* (does not exist|is not permitted to log in)", FailureReason.AUTHENTICATION),
        (r"database .* does not exist|unable to open database", FailureReason.UNKNOWN_DATABASE),
        (r"too many (clients|connections)", FailureReason.TOO_MANY_CONNECTIONS),
        (r"connection slots are reserved", FailureReason.TOO_MANY_CONNECTIONS),
        (r"database system is", FailureReason.NOT_READY),
        (r"\bSSL\b|certificate", FailureReason.TLS),
        (r"refused|resolve host|unreachable|no route", FailureReason.UNREACHABLE),
        (r"no such file|closed the connection", FailureReason.UNREACHABLE),
    )
)


_CONNECTING = (
    "aiomysql.",
    "aiosqlite.",
    "asyncio.",
    "asyncmy.",
    "asyncpg.",
    "penstock.engine.connector.",
    "psycopg.",
    "pymysql.",
    "sqlalchemy.dialects.",
    "sqlalchemy.engine.",
)
"""Modules whose frames are over once a connect has failed."""


def chain_of(error: BaseException | None, *, causes_only: bool = False) -> Iterator[BaseException]:
    """Go from an error to its cause, to the cause of that, and so on, starting with itself.

    Each comes once, for a chain may be a ring: ``raise error.__cause__ from error`` makes one.

    Args:
        error: The first; None for no chain.
        causes_only: Whether an error that was merely being handled is left out.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if causes_only else error.__context__)


def reason_of(error: BaseException) -> FailureReason:
    """Tell why a driver's connect failed.

    Args:
        error: What the driver raised, with its causes.

    Returns:
        The first reason that the error or one of its causes gives, from the outside in.
    """
    found = FailureReason.OTHER
    for link in chain_of(error):
        reason = _by_code(link) or _by_type(link) or _by_text(link)
        if reason is FailureReason.UNREACHABLE:
            reason = _by_text(link) or reason  # as TLS, for which MySQL's drivers have no code
        if reason not in (None, FailureReason.UNREACHABLE):
            return reason
        found = reason or found
    return found


def clear_traceback(error: BaseException) -> None:
    """Clear the frames that a failed connect keeps alive through its error.

    The driver's hold its half-open socket: psycopg closes that only when nobody holds it any more.
    Others are left alone: where one error is raised again and again, they are those of tasks that
    wait, which up to Python 3.12 would be ended by it.
    """
    for link in chain_of(error):
        for frame, _ in traceback.walk_tb(link.__traceback__):
            module: str = frame.f_globals.get("__name__", "")
            if f"{module}.".startswith(_CONNECTING):
                with contextlib.suppress(RuntimeError):  # it is still at work
                    frame.clear()


def is_refused(error: BaseException) -> bool:
    """Return whether the server said no, so that trying again soon would only annoy it."""
    return _reason(error) in (FailureReason.AUTHENTICATION, FailureReason.UNKNOWN_DATABASE)


def is_transient(error: BaseException) -> bool:
    """Return whether the failure may pass by itself, as while a server starts or is full."""
    return _reason(error) in (
        FailureReason.TIMEOUT,
        FailureReason.UNREACHABLE,
        FailureReason.TOO_MANY_CONNECTIONS,
        FailureReason.NOT_READY,
    )


def _reason(error: BaseException) -> FailureReason:
    return error.reason if isinstance(error, ConnectFailed) else reason_of(error)


def _by_code(error: BaseException) -> FailureReason | None:
    if isinstance(error, OSError):
        return None
    # The MySQL drivers give an SQLSTATE as well, but mostly the unspecific 42000 or HY000.
    number = error.args[0] if error.args else None
    by_number = MYSQL_CODES.get(number) if isinstance(number, int) else None
    return by_number or SQLSTATES.get(str(getattr(error, "sqlstate", None)))


def _by_type(error: BaseException) -> FailureReason | None:
    if isinstance(error, ssl.SSLError):
        return FailureReason.TLS
    if isinstance(error, OSError) and not _by_text(error):
        return FailureReason.UNREACHABLE
    return None


def _by_text(error: BaseException) -> FailureReason | None:
    text = text_of(error)
    return next((reason for pattern, reason in TEXTS if pattern.search(text)), None)


class PoolTimeout(PenstockError, SQLAlchemyTimeoutError):  # noqa: N818 - it reads as what happened
    """No connection came within ``pool_timeout``, or none would have.

    Its ``code`` is that of SQLAlchemy's own, which names the page of its documentation.

    Args:
        message: What happened, how long it took, and the pool's numbers.
        phase: What the caller was waiting for.
        snapshot: The pool's numbers when it gave up.
    """

    code = "3o7r"

    def __init__(
        self,
        message: str,
        phase: RejectReason = RejectReason.WAITING,
        snapshot: PoolSnapshot | None = None,
    ) -> None:
        super().__init__(message)
        self.phase = phase
        self.snapshot = snapshot


class PoolFull(PoolTimeout):
    """``max_waiting`` callers were waiting already; this one was not let in."""


class PoolSuspended(PoolTimeout):
    """Checkout was suspended, and not resumed within ``pool_timeout``."""


class NestedCheckout(PoolTimeout):
    """A task that holds a connection of a saturated pool asked for another."""


class PoolClosed(PenstockError, InvalidRequestError):  # noqa: N818 - as above
    """The pool was drained: it hands out nothing any more."""


class PoolInAnotherLoop(PenstockError, InvalidRequestError):  # noqa: N818 - as above
    """The pool's connections belong to another event loop than the one that asks."""


class LeaseReclaimed(PenstockError, InvalidRequestError):  # noqa: N818 - as above
    """A connection was taken from its holder, who had kept it for too long."""


_WHAT = {
    RejectReason.WAITING: "every connection stayed checked out",
    RejectReason.CONNECTING: "no new connection was ready in time",
    RejectReason.SHED: "the queue has been standing, and its oldest are rejected (codel_target)",
    RejectReason.DEADLINE_UNREACHABLE: "at the pace of the queue its turn would come too late",
    RejectReason.FULL: "as many as may (max_waiting) are waiting already",
    RejectReason.SUSPENDED: "checkout is suspended",
    RejectReason.CLOSED: "the pool was drained and hands out nothing any more",
}
_CLASSES = {RejectReason.FULL: PoolFull, RejectReason.SUSPENDED: PoolSuspended}


def rejection_error(
    why: RejectReason,
    *,
    pool: str,
    timeout: float | None,
    waited: float,
    snapshot: PoolSnapshot,
    limit: str = "",
) -> PoolTimeout | PoolClosed:
    """Return the error for a caller that gets no connection.

    Args:
        why: The phase in which it was rejected.
        pool: The pool's name.
        timeout: Its ``pool_timeout`` in seconds; None for no limit.
        waited: Seconds that the caller waited.
        snapshot: The pool's numbers.
        limit: What ended the wait earlier than ``pool_timeout``, in words; empty for nothing.
    """
    if why is RejectReason.CLOSED:
        return PoolClosed(f"No connection from {pool}: {_WHAT[why]}")
    pool_timeout = "none" if timeout is None else f"{timeout:g} s"
    limits = ", ".join(filter(None, (limit, f"pool_timeout={pool_timeout}")))
    message = f"No connection from {pool} after {waited:.3f} s ({limits}): {_WHAT[why]}; {snapshot}"
    return _CLASSES.get(why, PoolTimeout)(message, why, snapshot)
