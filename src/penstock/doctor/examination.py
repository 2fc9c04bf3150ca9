"""An examination: one connection, read-only and bounded, and what every check found."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from penstock.base_error import PenstockError
from penstock.doctor.check import Check, NotKnown, Observation, Query, Row, Rows
from penstock.doctor.slow_routes import LARGE_TABLE, STATEMENTS, SlowUse, matched, scans
from penstock.engine import build_engine
from penstock.findings import Finding, exit_status
from penstock.pool import ConnectFailed
from penstock.settings import DatabaseSettings

LONGEST_QUERY = 0.5
"""Seconds after which the server ends one query of ours."""

LONGEST_LOCK_WAIT = 0.1
"""Seconds for which one of our queries waits for a lock, and blocks those behind it."""

LONGEST = 1.5
"""Seconds after which no further query is begun, so that all is over within two."""

LONGEST_SILENCE = 3.0
"""Seconds without an answer after which the server counts as lost. Its own limit ends a query much
sooner; a busy machine of ours may take a moment to read that."""

NOT_EXAMINED = 3
"""Exit status where not all could be examined; 1 and 2 tell of what was found."""

APPLICATION = "penstock doctor"
SERVER = Query("server")
_ROWS = "SELECT coalesce(max(reltuples), 0) FROM pg_class WHERE oid = to_regclass($1)"
_PREPARED = "penstock_doctor"
_PARAMETERS = "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = $1"
_BEFORE_PLAN = "SAVEPOINT plan; SET LOCAL plan_cache_mode = force_generic_plan"
_AFTER_PLAN = f"ROLLBACK TO plan; DEALLOCATE {_PREPARED}"
_WITHOUT_EXTENSION = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.ObjectNotInPrerequisiteStateError,
)
_POSTGRESQL = ("postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg")
_TLS = ("tls", "tls_ca_file", "tls_cert_file", "tls_key_file")
_BEGIN = (
    "BEGIN READ ONLY; "
    f"SET LOCAL statement_timeout = {LONGEST_QUERY * 1000:.0f}; "
    f"SET LOCAL lock_timeout = {LONGEST_LOCK_WAIT * 1000:.0f}"
)


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found.

    Args:
        check: Which one.
        observation: What is wrong; None where nothing is, or where nobody can say.
        skipped: Why it could not be told; empty where it could.
    """

    check: Check
    observation: Observation | None = None
    skipped: str = ""

    @property
    def status(self) -> str:
        """``ok``, ``skipped``, or the severity of what was found."""
        if self.skipped:
            return "skipped"
        return self.observation.severity.value if self.observation else "ok"

    @property
    def finding(self) -> Finding | None:
        """What was found, in the form that every room reports problems in."""
        seen = self.observation
        if seen is None:
            return None
        return Finding(self.check.id, seen.severity, seen.evidence, seen.remedy)


@dataclass(frozen=True, slots=True)
class Examination:
    """What all checks found.

    Args:
        server: What was examined, without a password.
        seconds: How long it took, with connecting.
        results: One for each check.
        is_partial: Whether a PgBouncer was to be examined and could not be reached.
    """

    server: str
    seconds: float
    results: tuple[Result, ...]
    is_partial: bool = False

    @property
    def exit_status(self) -> int:
        """0 without a warning, 1 with one, 2 where something is critical, else 3 if partial."""
        found = exit_status(result.status for result in self.results)
        return found or (NOT_EXAMINED if self.is_partial else 0)


def refuse_other_databases(scheme: str) -> None:
    """Refuse what is no PostgreSQL.

    Args:
        scheme: Of its URL.

    Raises:
        PenstockError: It is another's.
    """
    if scheme not in _POSTGRESQL:
        raise PenstockError(
            "penstock doctor examines PostgreSQL, by a URL such as postgresql://user@host/name. "
            "This URL is another's."
        )


def doctor_settings(settings: DatabaseSettings) -> DatabaseSettings:
    """Return the settings of one connection of our own, which sends no settings of its own.

    What a service sends when it connects would be taken for the server's. Poolers accept nothing,
    which is why this is how one behind ``pgbouncer`` connects.

    Args:
        settings: Of the service, whose URL and TLS are used.

    Raises:
        PenstockError: The database is no PostgreSQL.
    """
    scheme, _, rest = settings.url.get_secret_value().partition("://")
    refuse_other_databases(scheme)
    given = {
        "url": f"postgresql+asyncpg://{rest}",
        "environment": "serverless",
        "proxy": "pgbouncer",
        "application_name": APPLICATION,
        "command_timeout": LONGEST_SILENCE,
        **{name: value for name in _TLS if (value := getattr(settings, name)) is not None},
    }
    return DatabaseSettings.accept(given, {})


@asynccontextmanager
async def connected(settings: DatabaseSettings) -> AsyncIterator[asyncpg.Connection]:
    """Open the one connection, as the driver has it, and close it at the end.

    Args:
        settings: As :func:`doctor_settings` returns them.

    Raises:
        ConnectFailed: It could not be opened.
    """
    engine = build_engine(settings)
    try:
        async with engine.connect() as connection:
            yield (await connection.get_raw_connection()).driver_connection
    finally:
        await engine.dispose()


async def examine(
    settings: DatabaseSettings, checks: Sequence[Check], uses: Sequence[SlowUse] = ()
) -> Examination:
    """Run checks on a server.

    Args:
        settings: As :func:`doctor_settings` returns them.
        checks: Those that PostgreSQL can answer.
        uses: The slow statements of a service, for its check.

    Returns:
        A result for each. A check that could not run is skipped with the reason.

    Raises:
        ConnectFailed: No connection could be opened.
        PenstockError: The server did not say what it is.
    """
    began = time.monotonic()
    try:
        async with connected(settings) as connection:
            questions = _Questions(connection, time.monotonic() + LONGEST)
            server = await questions.server()
            answers = {
                query: await questions.answer(query, server)
                for query in dict.fromkeys(check.query for check in checks)
            }
            if STATEMENTS in answers:
                answers[STATEMENTS] = await questions.slow_routes(uses, answers[STATEMENTS])
    except ConnectFailed:
        raise
    except (SQLAlchemyError, asyncpg.PostgresError, OSError, TimeoutError) as error:
        raise PenstockError(f"The server could not be examined: {_said(error)}") from error
    results = evaluate(checks, answers, server)
    name = f"PostgreSQL {server['version_text']}, database {server['database']}"
    return Examination(name, time.monotonic() - began, results)


def evaluate(
    checks: Iterable[Check], answers: Mapping[Query, Rows | str], server: Row
) -> tuple[Result, ...]:
    """Apply the rules of checks to the rows of their queries.

    Args:
        checks: Which ones.
        answers: The rows of each query, or why there are none.
        server: The row of the query ``server``.
    """
    return tuple(_result(check, answers[check.query], server) for check in checks)


def _result(check: Check, answer: Rows | str, server: Row) -> Result:
    if isinstance(answer, str):
        return Result(check, skipped=answer)
    try:
        seen = check.rule(answer)
    except NotKnown as reason:
        return Result(check, skipped=str(reason))
    hides = check.query.shows_own_sessions_only and not server["sees_all_sessions"]
    if seen is None and hides:
        role = server["role"]
        return Result(
            check, skipped=f"{role} sees its own sessions only: GRANT pg_monitor TO {role}"
        )
    return Result(check, seen)


class _Questions:
    """The queries of one examination, in one read-only transaction while none of them fails."""

    def __init__(self, connection: asyncpg.Connection, until: float) -> None:
        self._connection = connection
        self._until = until
        self._is_open = False
        self._lost = ""

    async def server(self) -> Row:
        """Return what the server says of itself."""
        (row,) = await self._rows(SERVER)
        return row

    async def answer(self, query: Query, server: Row) -> Rows | str:
        """Return a query's rows, or why there are none."""
        if reason := self._lost or _unfit(query, server):
            return reason
        if time.monotonic() > self._until:
            return f"the {LONGEST:g} s for all checks were over"
        try:
            return await self._rows(query)
        except asyncpg.QueryCanceledError:
            reason = f"the query took longer than {LONGEST_QUERY:g} s"
        except asyncpg.PostgresError as error:
            reason = _refused(error, query, server)
        except (TimeoutError, OSError, asyncpg.InterfaceError) as error:
            self._lost = f"the server did not answer: {_said(error)}"
            self._connection.terminate()
            return self._lost
        self._is_open = False
        return reason

    async def slow_routes(self, uses: Sequence[SlowUse], statements: Rows | str) -> Rows | str:
        """Return the slow statements of a service, each with the indexes that its plan lacks."""
        if isinstance(statements, str):
            return statements
        return [
            {
                "route": use.route,
                "statement": use.statement,
                "calls": use.calls,
                "seconds": use.seconds,
                "server_calls": row["calls"],
                "server_mean": row["mean_seconds"],
                "indexes": await self._missing_indexes(row["query"]),
            }
            for use, row in matched(uses, statements)
        ]

    async def _missing_indexes(self, statement: str) -> list[str]:
        if self._lost or time.monotonic() > self._until:
            return []
        try:
            await self._begin()
            await self._run(self._connection.fetch(f"PREPARE {_PREPARED} AS {statement}"))
            plan = await self._generic_plan()
            return [
                f"{relation} ({', '.join(columns)})"
                for relation, columns in scans(plan)
                if await self._run(self._connection.fetchval(_ROWS, relation)) >= LARGE_TABLE
            ]
        except (asyncpg.PostgresError, TimeoutError):
            # No right on its tables, or a text that was cut: nothing is said of its plan.
            self._is_open = False
            return []

    async def _generic_plan(self) -> Mapping[str, Any]:
        """Return the plan for any values, which EXECUTE takes with NULLs as well; nothing runs."""
        await self._run(self._connection.execute(_BEFORE_PLAN))
        try:
            count = await self._run(self._connection.fetchval(_PARAMETERS, _PREPARED))
            values = f"({', '.join(['NULL'] * count)})" if count else ""
            explain = f"EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE {_PREPARED}{values}"
            (said,) = await self._run(self._connection.fetchval(explain))
        finally:
            # The statement outlives the transaction, and behind a pooler the connection.
            await self._run(self._connection.execute(_AFTER_PLAN))
        plan: Mapping[str, Any] = said["Plan"]
        return plan

    async def _rows(self, query: Query) -> Rows:
        await self._begin()
        return [dict(row) for row in await self._run(self._connection.fetch(query.sql))]

    async def _begin(self) -> None:
        if not self._is_open:
            await self._run(self._connection.execute(f"ROLLBACK; {_BEGIN}"))
            self._is_open = True

    async def _run(self, answer: Any) -> Any:
        async with asyncio.timeout(LONGEST_SILENCE):
            return await answer


def _unfit(query: Query, server: Row) -> str:
    if server["version"] < query.since * 10000:
        return f"PostgreSQL {query.since} or later can tell"
    if query.on_replica is not None and query.on_replica != server["is_replica"]:
        return f"only a {'replica' if query.on_replica else 'primary'} can tell"
    return ""


def _refused(error: asyncpg.PostgresError, query: Query, server: Row) -> str:
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return f"the role {server['role']} may not read it; a superuser may"
    if isinstance(error, asyncpg.LockNotAvailableError):
        return f"a lock was not free within {LONGEST_LOCK_WAIT:g} s"
    if query.extension and isinstance(error, _WITHOUT_EXTENSION):
        return (
            f"the extension {query.extension} is not installed and loaded, is older than 1.9, or "
            "not on this role's search_path"
        )
    return f"the server refused the query: {_said(error)}"


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
