"""What the pool has to know of any driver: whether a connection lives, and how one is recovered."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from penstock.deadlines import Deadline, StatementLimit
from penstock.drivers.effects import Effect
from penstock.drivers.sql_text import CONTROL
from penstock.drivers.sql_words import statements

_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
"""Those in which PostgreSQL shows a time."""


@dataclass(frozen=True, slots=True)
class BeginOptions:
    """How the next transaction of a connection begins.

    Args:
        reading: Whether it is ``READ ONLY``, stays so, and is rolled back at its end.
        isolation: As SQLAlchemy spells it, such as ``REPEATABLE READ``; None for the engine's.
        deferrable: Whether a ``SERIALIZABLE`` one that reads waits until it cannot fail.
        settings: Names and values of server settings that hold until the transaction ends; the
            name ``role`` changes the role.
        deadline: By when the work in it has to be done; None for no such bound. What bounds the
            running call counts as well.
    """

    reading: bool = False
    isolation: str | None = None
    deferrable: bool = False
    settings: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    deadline: Deadline | None = None

    @property
    def search_path(self) -> str | None:
        """Where the settings have names looked up; None for where the engine has."""
        paths = (value for name, value in self.settings if name.lower() == "search_path")
        return next(paths, None)

    @property
    def sets_statement_timeout(self) -> bool:
        """Whether the settings say themselves how long a statement may take."""
        return any(name.lower() == "statement_timeout" for name, _ in self.settings)


NO_OPTIONS = BeginOptions()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement that a connection has prepared.

    Args:
        text: Its SQL.
        for_sessions: Whether SQLAlchemy keeps it, or the driver by itself.
    """

    text: str
    for_sessions: bool


class Trace:
    """What ends with a lease."""

    effects = Effect.NONE
    """What its statements may have left on the server, as far as their text shows."""
    lease_options: BeginOptions | None = None
    """How its transactions begin, where a session has said so."""


FOLLOWED = (
    "application_name",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "standard_conforming_strings",
)
"""What PgBouncer may set on each server connection as its client has set it (config.md,
track_extra_parameters)."""


class TransactionTrace(Trace):
    """What a driver's connection knows of its transactions."""

    begin: BeginOptions | None = None
    """How the next one begins; None as ``lease_options`` has it, or the engine."""
    holds_state = False
    """Whether the open one may hold settings or locks that end with it."""
    limit: StatementLimit | None = None
    """The ``statement_timeout`` that it was given last; None for none."""
    own_timeout: float | None = None
    """Seconds of the configured ``statement_timeout``, 0 for none; None until it was read."""
    reads_within = False
    """Whether a session reads in a savepoint of a transaction that is not its own."""
    refuses_state = False
    """Whether others get the server connection after each transaction, with what is left there."""
    followed_at_first: tuple[str | None, ...] | None = None
    """The settings that a pooler in between keeps for each client, as the connection began with
    them; None without a pooler."""
    _options: BeginOptions | None = None
    """How the open one was to begin, where that was said."""
    _has_lost_settings = False
    """Whether the open one may be another than the one that its settings were sent for."""
    _may_have_state = False
    """Whether a statement may have made the open one write, which is to read."""

    def read_within(self, *, begins: bool) -> None:
        """Keep what follows read-only, in a savepoint of a transaction that is not the session's.

        Args:
            begins: False where that ends.
        """
        self.reads_within, self._may_have_state = begins, False

    @property
    def writes(self) -> bool:
        """Whether the lease is a session's that writes."""
        return self.lease_options is not None and not self.lease_options.reading

    def forget_options(self) -> None:
        """Forget how transactions were to begin: the lease that said so has failed."""
        self.begin = self._options = self.lease_options = self.limit = None
        self.reads_within = False


def never() -> bool:
    """Return False: for a driver that does not know."""
    return False


def always() -> bool:
    """Return True: for a statement that nothing relies on."""
    return True


def transport_of(connection: Any) -> Any:
    """Return the transport of asyncpg's, asyncmy's or aiomysql's own connection, or None."""
    writer = getattr(connection, "_writer", None)  # of aiomysql
    return getattr(connection, "_transport", None) if writer is None else writer.transport


class Driver:
    """Any driver: nothing is known but what SQLAlchemy's dialect can do."""

    can_recover = False
    """Whether a connection can be used again after its query was cancelled."""
    can_set_read_only = False
    """Whether a connection can be kept read-only to reading without a round trip."""
    is_pipelined = False
    """Whether transactions begin and end without a wait, which the express lane builds on."""
    resets_pipelined = False
    """Whether session state is undone without a wait."""

    def owns(self, connection: Any) -> bool:  # noqa: ARG002 - others need it
        """Return whether a connection is this driver's, and not one that a listener has brought.

        Args:
            connection: Whatever the engine's connect, a creator or ``do_connect`` has returned.
        """
        return True

    def adapt(self, connection: Any) -> Any:
        """Return SQLAlchemy's adapter for a new connection, or a better one in its place.

        Args:
            connection: SQLAlchemy's adapter around the driver's connection.
        """
        return connection

    def expose(self, connection: Any) -> None:
        """Record that code outside SQLAlchemy has the driver's connection, and may use it."""

    def take_effects(self, connection: Any) -> Effect:
        """Return what the lease may have left on the server, and begin anew."""
        trace = self.trace(connection)
        effects: Effect = trace.effects
        trace.effects = Effect.NONE
        return effects

    def trace(self, connection: Any) -> Any:  # noqa: ARG002 - others need it
        """Return what has the attributes of :class:`Trace` for the connection's lease."""
        return Trace()

    def is_closed(self, connection: Any) -> Callable[[], bool]:  # noqa: ARG002 - others need it
        """Return a function for whether the driver knows it to be closed, without a round trip."""
        return never

    def is_standby(self, connection: Any) -> bool:  # noqa: ARG002 - others need it
        """Return whether the server has said, unasked, that it only replays another's writes."""
        return False

    def fileno(self, connection: Any) -> int | None:  # noqa: ARG002 - others need it
        """Return the number of the connection's socket; None where it has none."""
        return None

    def sees_off(self, connection: Any) -> int | None:
        """Return the number of the socket whose end is to be awaited after the close.

        Returns:
            None where closing waits by itself until the server has closed the socket, or has no
            socket.
        """
        return None if self.is_closed(connection)() else self.fileno(connection)

    def ping(self, dialect: Any, connection: Any) -> bool:
        """Make one round trip; False where the connection is broken. Runs in a greenlet."""
        answer: bool = dialect._do_ping_w_event(connection)
        return answer

    def recover(self, connection: Any) -> bool:  # noqa: ARG002 - others need it
        """Wait for the cancelled query to end and roll back; False where that failed."""
        return False

    def reset(self, connection: Any) -> bool:  # noqa: ARG002 - others need it
        """Undo what a session may have set on the server. Runs in a greenlet.

        Returns:
            Whether nothing is left: only a new connection undoes some of it.
        """
        return True

    def followed_settings(self, connection: Any) -> tuple[str | None, ...]:  # noqa: ARG002 - others need it
        """Return the values of ``FOLLOWED`` as the server has reported them last."""
        return ()

    def is_as_at_first(self, connection: Any, effects: Effect) -> bool | None:
        """Return whether a connection through a pooler has what it began with.

        It is never reset: that would reach a server connection of others, or lose the settings that
        the pooler has set there for this client, such as its time zone.

        Args:
            connection: SQLAlchemy's adapter.
            effects: What its lease may have left.

        Returns:
            None without a pooler, where a reset sees to it.
        """
        trace = self.trace(connection)
        if not isinstance(trace, TransactionTrace) or trace.followed_at_first is None:
            return None
        if effects & (Effect.DRIVER | Effect.LASTING):
            return False
        if effects & Effect.SESSION and not trace.refuses_state:
            return False
        return self.followed_settings(connection) == trace.followed_at_first

    def is_shared(self, connection: Any) -> bool:  # noqa: ARG002 - others need it
        """Return whether nothing may be sent behind a statement whose end has not been awaited."""
        return False

    def may_reset_pipelined(self, connection: Any, effects: Effect) -> bool:
        """Return whether what a lease did may be undone without a wait.

        After a use of the driver's own connection it is not known what has to be undone.
        """
        return self.resets_pipelined and not (
            effects & Effect.DRIVER or self.is_shared(connection) or self.is_cancelling(connection)
        )

    def reset_pipelined(self, connection: Any) -> None:
        """Have the server undo the same, without a wait, before it runs anything else."""
        raise NotImplementedError

    def server_pid(self, connection: Any) -> int | None:  # noqa: ARG002 - others need it
        """Return the number of the server's process; None where there is none or it is not known.

        Behind a pooler it says nothing: the process may be any.
        """
        return None

    def is_in_transaction(self, connection: Any) -> bool:  # noqa: ARG002 - others need it
        """Return whether the driver knows of an open transaction."""
        return False

    def is_cancelling(self, connection: Any) -> bool:  # noqa: ARG002 - others need it
        """Return whether the server may still run a statement that was cancelled."""
        return False

    def abandon(self, dialect: Any, connection: Any) -> None:
        """Drop the connection without waiting for anything."""
        dialect.do_terminate(connection)

    def statements(self, connection: Any) -> list[Prepared]:  # noqa: ARG002 - others need it
        """Return the statements that the connection has prepared, the most recent first."""
        return []

    def prepare(self, dialect: Any, connection: Any, statements: list[Prepared]) -> None:
        """Prepare statements, so that no request has to. Runs in a greenlet."""

    def set_read_only(
        self, connection: Any, *, to_reading: bool, ignores_error: Callable[[], bool] = never
    ) -> None:
        """Have the server refuse whatever writes, outside a transaction, from now on; or not.

        Without a round trip. While it is kept read-only, each statement is a transaction of its
        own.

        Args:
            connection: SQLAlchemy's adapter around the driver's connection, which is idle.
            to_reading: False to lift it.
            ignores_error: As ``Pipeline.send_query`` has it.
        """
        raise NotImplementedError


LASTING = """
    SELECT FROM pg_prepared_statements WHERE from_sql UNION ALL
    SELECT FROM pg_replication_slots WHERE temporary AND active_pid = pg_backend_pid() LIMIT 1
"""
"""A row where the server's session has what only its end undoes."""


def seconds_of(shown: str) -> float:
    """Return the seconds of a time as PostgreSQL shows it, such as ``90s`` or ``1min``."""
    number = shown.rstrip("abcdefghijklmnopqrstuvwxyz")
    return float(number) * _UNITS.get(shown[len(number) :], 0.001)


def keeps_transaction(operation: str) -> bool:
    """Return whether transaction control is about savepoints alone.

    Any other may have ended the transaction and its settings, also where another one is open
    after it (``AND CHAIN``).

    Args:
        operation: As it is sent.
    """
    is_in_body = False
    for words in statements(operation):
        if is_in_body and words[:1] == ["end"]:
            is_in_body = False
        elif _begins_or_ends(*words[:3]):
            return False
        is_in_body = is_in_body or ("begin", "atomic") in pairwise(words)
    return True


def _begins_or_ends(kind: str = "", second: str = "", third: str = "") -> bool:
    if kind == "prepare":
        return second == "transaction" and third[:1] == "'"
    if kind == "rollback":
        return (third if second in {"work", "transaction"} else second) != "to"
    return kind in CONTROL - {"savepoint", "release"}


def refuse_end(
    trace: TransactionTrace, operation: str, error: type[Exception], *, is_autocommit: bool
) -> None:
    """Refuse what would end a transaction past the session that it belongs to.

    Args:
        trace: Of the connection.
        operation: A statement that has the effect ``CONTROL``.
        error: Of the driver, which is raised.
        is_autocommit: Whether a session that writes has begun none by itself.
    """
    if keeps_transaction(operation):
        return
    if trace.reads_within:
        raise error(
            "A ReadSession that reads within the WriteSession's transaction cannot end that: what "
            "was written there would be saved, or lost, without a word. Commit by the WriteSession."
        )
    if trace.writes and not is_autocommit:
        raise error(
            "A session that writes begins its transaction itself and ends it by commit() or "
            "rollback(): after a statement that has failed, a COMMIT as text would lose the work "
            "without a word."
        )


def is_outdated_plan(error: Any) -> bool:
    """Return whether the server refused to run a statement that was prepared for another schema.

    Args:
        error: asyncpg's or psycopg's, or SQLAlchemy's of such a cause.
    """
    raised = error.__cause__ or error
    diagnosis = getattr(raised, "diag", None)
    source = getattr(diagnosis, "source_function", None)
    return (source or getattr(raised, "server_source_function", None)) == "RevalidateCachedQuery"


CONTEXT_REFUSED = "the session context is refused: "
_OF_SETTINGS = ("0A", "0P", "22", "25001", "42", "55P02")
"""SQLSTATEs with which the server refuses a role, a name or a value; any other is of the server's
state or of the connection.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""


def without_values(message: str, settings: tuple[tuple[str, str], ...], sqlstate: str) -> str:
    """Return what the server says where settings could not be set, without their values.

    Args:
        message: The server's.
        settings: Names and values.
        sqlstate: By which an error of the settings is known; empty for one that has ended the
            connection.
    """
    for value in sorted({value for _, value in settings if value}, key=len, reverse=True):
        message = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "***", message)
    return CONTEXT_REFUSED + message if sqlstate.startswith(_OF_SETTINGS) else message
