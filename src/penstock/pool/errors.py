"""The errors of a pool, and why an attempt to connect failed."""

import contextlib
import re
import ssl
import traceback
from collections.abc import Iterator, Mapping
from enum import StrEnum

from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeoutError
from sqlalchemy.pool import Pool

from penstock.base_error import PenstockError
from penstock.pool.events import PoolSnapshot, text_of
from penstock.pool.queue import RejectReason


class FailureReason(StrEnum):
    """Why a new connection could not be opened."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    AUTHENTICATION = "authentication"
    UNKNOWN_DATABASE = "unknown-database"
    TOO_MANY_CONNECTIONS = "too-many-connections"
    NOT_READY = "not-ready"
    CREDENTIALS = "credentials"
    OTHER = "other"


class ConnectFailed(PenstockError, SQLAlchemyError):  # noqa: N818 - it reads as what happened
    """A new connection could not be opened.

    The driver's error is its ``__cause__``. Waiting too long for a connection of the pool is
    another error, ``sqlalchemy.exc.TimeoutError``.

    Args:
        message: Driver, address, database, ``connect_timeout`` and cause; never the password.
        reason: The same as a value to decide by, such as not to retry with a password that the
            server refuses.
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

NO_SERVER = r"server login has been failing|server login failed|query_wait_timeout"
"""PgBouncer's words to a client for which it has no server connection, when it hangs up.

Nothing of the transaction has reached PostgreSQL then (PgBouncer, objects.c and janitor.c).
"""

_NOT_READY = FailureReason.NOT_READY
# libpq and SQLite report a failed connect as a text only, from which the reason is read.
# A server whose lc_messages is not English leaves the reason at OTHER.
TEXTS: tuple[tuple[re.Pattern[str], FailureReason], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (r"authentication failed|no pg_hba\.conf entry", FailureReason.AUTHENTICATION),
        (r"role .* (does not exist|is not permitted to log in)", FailureReason.AUTHENTICATION),
        (r"database .* does not exist|unable to open database", FailureReason.UNKNOWN_DATABASE),
        (r"too many (clients|connections)", FailureReason.TOO_MANY_CONNECTIONS),
        (r"connection slots are reserved", FailureReason.TOO_MANY_CONNECTIONS),
        # PgBouncer's, at max_client_conn and the limits of a database and of a user.
        (r"no more connections allowed|connections exceeded", FailureReason.TOO_MANY_CONNECTIONS),
        (r"database system is|pooler is shutting down", FailureReason.NOT_READY),
        (NO_SERVER, _NOT_READY),
        # None of the servers is the one that is wanted: asyncpg's words, and libpq's.
        (r"match the target attribute|in hot standby mode|session is read-only", _NOT_READY),
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
    "penstock.credentials.",
    "penstock.engine.connector.",
    "psycopg.",
    "pymysql.",
    "sqlalchemy.dialects.",
    "sqlalchemy.engine.",
)
"""Modules whose frames have ended once a connect has failed."""


def chain_of(error: BaseException | None, *, causes_only: bool = False) -> Iterator[BaseException]:
    """Iterate over an error, its cause, the cause of that, and so on.

    Each error comes once: a chain may be a ring, as ``raise error.__cause__ from error`` makes it.

    Args:
        error: The first error; None for no chain.
        causes_only: Whether ``__context__`` is not followed where there is no ``__cause__``.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if causes_only else error.__context__)


def reason_of(error: BaseException) -> FailureReason:
    """Return why a driver's connect failed.

    Args:
        error: The driver's error, with its causes.

    Returns:
        The first reason that the error or one of its causes has, from the outermost inwards.
    """
    found = FailureReason.OTHER
    for link in chain_of(error):
        reason = _by_code(link) or _by_type(link) or _by_text(link)
        if reason is FailureReason.UNREACHABLE:
            reason = _by_text(link) or reason  # such as TLS, for which MySQL's drivers have no code
        if reason not in (None, FailureReason.UNREACHABLE):
            return reason
        found = reason or found
    return found


def has_no_server(error: BaseException) -> bool:
    """Return whether PgBouncer has hung up without having passed on what it was sent.

    Args:
        error: What a driver has raised for a statement, whose connection has ended.
    """
    return any(
        (getattr(link, "sqlstate", None) or "").startswith("08")
        and re.search(NO_SERVER, text_of(link))
        for link in chain_of(error, causes_only=True)
    )


def clear_traceback(error: BaseException) -> None:
    """Clear the frames that a failed connect keeps alive through its error.

    The driver's frames hold its half-open socket, which psycopg closes only when the last reference
    is gone. Other frames are kept: an error that is raised again has frames of waiting tasks,
    which up to Python 3.12 would end with them.

    Args:
        error: The driver's error, with its causes.
    """
    for link in chain_of(error):
        for frame, _ in traceback.walk_tb(link.__traceback__):
            module: str = frame.f_globals.get("__name__", "")
            if f"{module}.".startswith(_CONNECTING):
                with contextlib.suppress(RuntimeError):  # the frame is executing
                    frame.clear()


def is_refused(error: BaseException) -> bool:
    """Return whether the server refused the connection, so that an early retry is useless.

    Args:
        error: The error of an attempt to connect.
    """
    return _reason(error) in (FailureReason.AUTHENTICATION, FailureReason.UNKNOWN_DATABASE)


def is_transient(error: BaseException) -> bool:
    """Return whether the failure may pass by itself, as while a server starts or is full.

    Args:
        error: The error of an attempt to connect.
    """
    return _reason(error) in (
        FailureReason.TIMEOUT,
        FailureReason.UNREACHABLE,
        FailureReason.TOO_MANY_CONNECTIONS,
        FailureReason.NOT_READY,
        FailureReason.CREDENTIALS,
    )


def _reason(error: BaseException) -> FailureReason:
    return error.reason if isinstance(error, ConnectFailed) else reason_of(error)


def _by_code(error: BaseException) -> FailureReason | None:
    if isinstance(error, OSError):
        return None
    # MySQL's drivers have an SQLSTATE as well, but mostly the unspecific 42000 or HY000.
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
    """No connection came within ``pool_timeout``, or none could have.

    Its ``code`` is that of SQLAlchemy's ``TimeoutError``, which names a page of its documentation.

    Args:
        message: What happened, how long it took, and the pool's numbers.
        phase: The phase in which the caller was rejected.
        snapshot: The pool's numbers at that moment.
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
    """The wait queue was full: ``max_waiting`` callers were waiting."""


class PoolSuspended(PoolTimeout):
    """Checkout was suspended, and not resumed within ``pool_timeout``."""


class NestedCheckout(PoolTimeout):
    """A task that holds a connection of a saturated pool asked for another."""


class PoolClosed(PenstockError, InvalidRequestError):  # noqa: N818 - it reads as what happened
    """The pool was drained and is closed."""


class PoolInAnotherLoop(PenstockError, InvalidRequestError):  # noqa: N818 - it reads as what happened
    """The pool's connections belong to another event loop than the caller's."""


class LeaseReclaimed(PenstockError, InvalidRequestError):  # noqa: N818 - it reads as what happened
    """A connection was closed under its holder, which had kept it for too long."""


_WHAT = {
    RejectReason.WAITING: "every connection stayed checked out",
    RejectReason.CONNECTING: "no new connection was ready in time",
    RejectReason.SHED: "the pool is overloaded, and its oldest waiters are rejected (codel_target)",
    RejectReason.DEADLINE_UNREACHABLE: "its turn would come after its deadline",
    RejectReason.FULL: "the wait queue is full (max_waiting)",
    RejectReason.SUSPENDED: "checkout is suspended",
    RejectReason.CLOSED: "the pool was drained and is closed",
}
_CLASSES = {RejectReason.FULL: PoolFull, RejectReason.SUSPENDED: PoolSuspended}


def name_of(pool: Pool) -> str:
    """Return a pool's name in messages."""
    name = pool._orig_logging_name  # noqa: SLF001 - SQLAlchemy has no other
    return f"pool {name}" if name else "the pool"


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
