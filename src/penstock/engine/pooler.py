"""What stands between a new connection and PostgreSQL, and whether the settings suit it."""

import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.base_error import SettingsError
from penstock.findings import Finding, Severity
from penstock.settings import DatabaseSettings

_logger = logging.getLogger("penstock.engine")


@dataclass(frozen=True, slots=True)
class Pooler:
    """A pooler, by what it says of itself and by how it behaves.

    Args:
        version: PgBouncer's, which it tells since 1.26; None for another or an older one.
        pool_mode: ``session`` or ``transaction``; None where it is not known.
    """

    version: str | None = None
    pool_mode: str | None = None

    def __str__(self) -> str:
        """Return a name for messages, such as ``PgBouncer 1.26.1 (pool_mode=transaction)``."""
        name = "a pooler" if self.version is None else f"PgBouncer {self.version}"
        return name if self.pool_mode is None else f"{name} (pool_mode={self.pool_mode})"


async def find_pooler(connection: Any, settings: DatabaseSettings) -> Pooler | None:
    """Find out what a new connection of asyncpg's or psycopg's leads through.

    Args:
        connection: The driver's, in no transaction.
        settings: Of its database.

    Returns:
        None where PostgreSQL itself answers. The mode is the one that the pooler tells.

    Raises:
        SettingsError: No transaction can begin.
    """
    async with _SESSIONS[settings.driver](connection) as session:
        if await session.count(f"SELECT 1 WHERE pg_backend_pid() = {session.pid}"):
            return None
        return Pooler(session.told("pgbouncer.version"), await _pool_mode(session))


async def check_settings(connection: Any, pooler: Pooler, settings: DatabaseSettings) -> None:
    """Check the settings against a pooler.

    Args:
        connection: A driver's, through it, in no transaction.
        pooler: With its mode, as far as it was told or seen.
        settings: Of its database.

    Raises:
        SettingsError: Through the pooler a setting is not in force, or statements that are kept
            prepared could fail or return another statement's rows.
    """
    async with _SESSIONS[settings.driver](connection) as session:
        if settings.statement_cache_size and not _keeps_sessions(pooler, settings):
            _check_statements(pooler, settings, follows=await _follows_statements(session))
        await _check_parameters(session, pooler, settings)


def pooler_finding(pooler: Pooler | None, settings: DatabaseSettings) -> Finding | None:
    """Return a finding where the settings of the pool do not suit a pooler.

    Args:
        pooler: What the first connection leads through; None for nothing, or before it.
        settings: The ``proxy`` in them may name what is not found.
    """
    most = f"pool_size={settings.pool_size} and max_overflow={settings.max_overflow}"
    if pooler is not None and not settings.poolers:
        return Finding(
            id="unnamed-pooler",
            severity=Severity.WARNING,
            evidence=(
                f"A pooler stands between this service and PostgreSQL ({pooler}), and the setting "
                f"proxy does not say so; each worker has {most}."
            ),
            remedy=(
                "Set proxy (proxy='pgbouncer', ...), for the settings that suit it: a small pool "
                "and max_overflow=0 among them."
            ),
        )
    if pooler is not None and _is_misnamed(pooler, settings):
        return Finding(
            id="misnamed-pooler",
            severity=Severity.WARNING,
            evidence=f"{_claim(settings)}, and {pooler} gives it to others between transactions.",
            remedy=(
                "Set proxy to what stands there (proxy='pgbouncer', ...). What needs a session of "
                "its own is refused until one is kept."
            ),
        )
    if settings.poolers and settings.max_overflow and settings.keeps_connections:
        return Finding(
            id="overflow-behind-pooler",
            severity=Severity.WARNING,
            evidence=f"Behind {', '.join(settings.poolers)}, each worker has {most}.",
            remedy=(
                "Set max_overflow=0: the pooler absorbs the bursts, and connections that come and "
                "go with them cost it a login each."
            ),
        )
    return None


async def share_server(connection: Any, other: Any, settings: DatabaseSettings) -> bool:
    """Return whether two idle connections are seen to use the same server connection in turn.

    They do where a pooler gives it to others after each transaction, whatever state the other one
    has left there: it leaves what makes RDS Proxy pin it. That it is not seen proves nothing: other
    clients may have been quicker.

    Args:
        connection: A driver's, through a pooler.
        other: Another, which is open at the same time and closed afterwards.
        settings: Of both.
    """
    open_session = _SESSIONS[settings.driver]
    async with open_session(connection) as session, open_session(other) as pinned:
        name = f"{_NAME}{secrets.token_hex(4)}"
        async with pinned.transaction():
            await pinned.count(f"PREPARE {name} AS SELECT 1")
            await pinned.count(f"DEALLOCATE {name}")
        process = await pinned.backend_pid()
        for _ in range(_TURNS):
            if await session.count(f"SELECT 1 WHERE pg_backend_pid() = {process}"):
                return True
            before, process = process, await pinned.backend_pid()
            if process != before:
                return True
    return False


_TURNS = 3


def close_at_once(connection: Any, settings: DatabaseSettings) -> None:
    """Close a connection of asyncpg's or psycopg's without a farewell, which could wait.

    Args:
        connection: The driver's.
        settings: Of its database.
    """
    if settings.driver == "asyncpg":
        connection.terminate()
    else:
        connection.pgconn.finish()


class _Session(Protocol):
    """A driver's connection, asked by the simple protocol: nothing is prepared for that."""

    pid: int
    """The server's process as it was named at login."""

    def told(self, name: str) -> str | None:
        """Return a value that was told at login."""

    async def count(self, sql: str) -> int:
        """Run a statement and return the number of its rows."""

    async def backend_pid(self) -> int:
        """Return the process that answers."""

    async def prepare(self, sql: str) -> None:
        """Prepare a statement by a name."""

    def transaction(self) -> Any:
        """Return a block whose statements go to one server connection."""


class _AsyncpgSession:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.pid: int = connection.get_server_pid()
        self.transaction = connection.transaction

    def told(self, name: str) -> str | None:
        return getattr(self._connection.get_settings(), name, None)

    async def count(self, sql: str) -> int:
        status: str = await self._connection.execute(sql)
        last = status.split()[-1:]
        return int(last[0]) if last and last[0].isdecimal() else 0

    async def backend_pid(self) -> int:
        async with self.transaction():
            unnamed = await self._connection.prepare("SELECT pg_backend_pid()", name="")
            process: int = await unnamed.fetchval()
        return process

    async def prepare(self, sql: str) -> None:
        await self._connection.prepare(sql, name=f"{_NAME}{secrets.token_hex(4)}")


class _PsycopgSession:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.pid: int = connection.info.backend_pid
        self.transaction = connection.transaction

    def told(self, name: str) -> str | None:
        value: str | None = self._connection.info.parameter_status(name)
        return value

    async def count(self, sql: str) -> int:
        cursor = await self._connection.execute(sql, prepare=False)
        rows: int = cursor.rowcount
        return max(0, rows)

    async def backend_pid(self) -> int:
        cursor = await self._connection.execute("SELECT pg_backend_pid()", prepare=False)
        process: int = (await cursor.fetchone())[0]
        return process

    async def prepare(self, sql: str) -> None:
        await self._connection.execute(sql, prepare=True)


@asynccontextmanager
async def _asyncpg_session(connection: Any) -> AsyncIterator[_Session]:
    yield _AsyncpgSession(connection)


@asynccontextmanager
async def _psycopg_session(connection: Any) -> AsyncIterator[_Session]:
    before = connection.autocommit
    await connection.set_autocommit(True)  # or each question begins a transaction
    yield _PsycopgSession(connection)
    await connection.set_autocommit(before)


_SESSIONS: dict[str, Callable[[Any], Any]] = {
    "asyncpg": _asyncpg_session,
    "psycopg": _psycopg_session,
}


async def _pool_mode(session: _Session) -> str | None:
    """Return the mode that is told, or shown by what the pooler refuses.

    Raises:
        SettingsError: No transaction can begin.
    """
    mode = session.told("pgbouncer.pool_mode")
    if mode in {"session", "transaction"}:
        return mode
    try:
        async with session.transaction():
            return mode
    except Exception as error:
        if mode != "statement" and "statement pooling mode" not in str(error):
            raise
        raise SettingsError(
            "url: it leads to a pooler with pool_mode=statement, where no transaction can begin; "
            "pool_mode=transaction or session is needed for this database and role"
        ) from error


# A pooler that follows statements gives each a name of its own on the server: PgBouncer calls them
# PGBOUNCER_1, PGBOUNCER_2 ... One that passes the client's name on has clients of the same name.
_NAME = "penstock_"
_FOLLOWED = "SELECT FROM pg_prepared_statements WHERE statement = '{0}' AND name !~ '^({1}|_pg3_)'"
_DEALLOCATE = """DO $$
DECLARE kept text;
BEGIN
    FOR kept IN SELECT name FROM pg_prepared_statements WHERE statement = '{0}' LOOP
        EXECUTE format('DEALLOCATE %I', kept);
    END LOOP;
END $$"""


async def _follows_statements(session: _Session) -> bool:
    most = session.told("pgbouncer.max_prepared_statements")
    if most is not None:
        return int(most) > 0
    statement = f"SELECT 1 AS probe_{secrets.token_hex(8)}"
    try:
        async with session.transaction():
            await session.prepare(statement)
            if await session.count(_FOLLOWED.format(statement, _NAME)):
                return True
            await session.count(_DEALLOCATE.format(statement))
    except Exception as error:  # noqa: BLE001 - such as that another client has a name already
        _logger.debug("No prepared statement could be followed: %s", error)
    return False


def _keeps_sessions(pooler: Pooler, settings: DatabaseSettings) -> bool:
    """Return whether a client that has prepared something keeps its server connection.

    What is told or seen counts for more than a name.
    """
    if pooler.pool_mode is None:
        return settings.keeps_server_sessions
    return pooler.pool_mode == "session"


def _is_misnamed(pooler: Pooler, settings: DatabaseSettings) -> bool:
    return settings.keeps_server_sessions and pooler.pool_mode == "transaction"


def _claim(settings: DatabaseSettings) -> str:
    named = ",".join(settings.poolers)
    return f"proxy={named!r} stands for a pooler that leaves a client its server connection"


def _check_statements(pooler: Pooler, settings: DatabaseSettings, *, follows: bool) -> None:
    given = f"statement_cache_size={settings.statement_cache_size}"
    default = "" if settings.poolers else ", which is the default with proxy='pgbouncer'"
    remedy = f"set statement_cache_size=0{default}"
    if not follows:
        why = "does not follow prepared statements, so that one may fail or return another's rows"
        claim = ""
        if _is_misnamed(pooler, settings):
            claim, remedy = f" ({_claim(settings)})", f"correct proxy, and {remedy}"
        raise SettingsError(
            f"{given}: {pooler} stands between this service and PostgreSQL{claim} and {why}; "
            f"{remedy}, or max_prepared_statements above 0 in a PgBouncer since 1.21"
        )
    if settings.driver == "psycopg" and not _closes_statements():
        raise SettingsError(
            f"{given}: {pooler} stands between this service and PostgreSQL, and psycopg can close "
            f"a prepared statement there with libpq 17 or newer only; {remedy}"
        )


def _closes_statements() -> bool:
    from psycopg import capabilities  # noqa: PLC0415 - the driver of this connection alone

    return capabilities.has_send_close_prepared()


# Those of the role and the database are the administrator's, and the remedy.
_NOT_IN_FORCE = """
SELECT WHERE current_setting('{name}', true) IS DISTINCT FROM '{value}' AND NOT EXISTS (
    SELECT FROM pg_settings WHERE lower(name) = lower('{name}')
    AND source IN ('client', 'session', 'user', 'database', 'database user'))"""
_OTHER_ISOLATION = "SELECT WHERE current_setting('default_transaction_isolation') <> '{value}'"


async def _check_parameters(session: _Session, pooler: Pooler, settings: DatabaseSettings) -> None:
    """Refuse what the pooler has dropped in silence, as ``ignore_startup_parameters`` has it do."""
    level = settings.isolation_level
    if level is not None and await session.count(
        _OTHER_ISOLATION.format(value=level.value.lower())
    ):
        raise SettingsError(
            f"isolation_level={level.value!r}: {pooler} has not passed it on, and it is not in "
            "force; ALTER ROLE ... SET default_transaction_isolation, and leave it out here"
        )
    for name, value in settings.server_settings.items():
        text = value.replace("'", "''")
        if await session.count(_NOT_IN_FORCE.format(name=name, value=text)):
            raise SettingsError(
                f"server_settings: {pooler} has not passed on {name}, and it is not in force; "
                f"ALTER ROLE ... SET {name}, and leave it out here"
            )
