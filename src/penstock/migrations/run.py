"""What an ``env.py`` of Alembic's calls."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from logging.config import fileConfig
from math import inf
from typing import Any

from alembic import context
from sqlalchemy import Connection, MetaData, event
from sqlalchemy.schema import CreateSchema

from penstock.base_error import SettingsError
from penstock.migrations.session import MigrationFailed, migration_session
from penstock.pool import ConnectFailed
from penstock.settings import DatabaseSettings, settings_from_environment

__all__ = ["MigrationFailed", "run"]


def run(
    metadata: MetaData | Sequence[MetaData],
    settings: DatabaseSettings | None = None,
    *,
    lock_timeout: float = 5.0,
    retry_for: float = 60.0,
    wait_for_others: float = 600.0,
    **options: Any,
) -> None:
    """Run what Alembic was called for: the whole of an ``env.py``.

    Each migration is a transaction, unless ``transaction_per_migration=False``. What waits for a
    lock longer than ``lock_timeout`` is rolled back, so that the service's statements do not queue
    up behind it, and attempted again.

    Args:
        metadata: The models' tables, for ``--autogenerate`` and ``alembic check``. Where they are
            in schemas, those schemas are compared, and no others.
        settings: Of the database; None for the environment's. Those that a caller of Alembic has
            put into ``config.attributes["settings"]`` outrank them. ``migrations_url`` is where
            they connect, if it is set.
        lock_timeout: Seconds that a statement waits for a lock.
        retry_for: Seconds after which no attempt begins anew.
        wait_for_others: Seconds for a run that is in progress elsewhere to end.
        **options: Of Alembic's ``context.configure``, such as ``version_table_schema``.

    Raises:
        MigrationFailed: An argument is something else, the environment has no database, the server
            cannot be reached, a lock was not to be had, another run has not ended, or a pooler
            shares the server connection.
        sqlalchemy.exc.DBAPIError: The server refused a statement; its migration is rolled back.
    """
    each = _checked(metadata)
    _refuse_seconds("lock_timeout", lock_timeout, _SHORTEST_LOCK, _LONGEST_LOCK)
    _refuse_seconds("retry_for", retry_for)
    _refuse_seconds("wait_for_others", wait_for_others)
    options = {"target_metadata": metadata, "transaction_per_migration": True, **options}
    _name_schemas(each, options)
    _set_up_logging()
    if context.is_offline_mode():
        _write_sql(options, lock_timeout)
        return
    given = context.config.attributes.get("settings") or settings
    with _told_in_a_line():
        settings = given or settings_from_environment()
        _finish(_migrate(settings, options, lock_timeout, retry_for, wait_for_others))


@contextmanager
def _told_in_a_line() -> Iterator[None]:
    """Raise what Alembic's program prints, where its traceback would say nothing more."""
    try:
        yield
    except (ConnectFailed, SettingsError) as error:
        raise MigrationFailed(str(error)) from error


def _checked(metadata: object) -> Sequence[MetaData]:
    each = [metadata] if isinstance(metadata, MetaData) else metadata
    if isinstance(each, Sequence) and all(isinstance(one, MetaData) for one in each):
        return each
    raise MigrationFailed(
        f"run({metadata!r}): a MetaData, such as Base.metadata, or a list of them is accepted."
    )


_SHORTEST_LOCK, _LONGEST_LOCK = 0.001, 2_000_000.0
"""Seconds: PostgreSQL counts thousandths, up to 24 days, and takes 0 for no limit."""


def _refuse_seconds(name: str, given: object, least: float = 0, most: float = inf) -> None:
    if not (isinstance(given, int | float) and least <= given <= most):
        raise MigrationFailed(f"run({name}={given!r}): {least:g} to {most:g} seconds are accepted.")


def _name_schemas(each: Iterable[MetaData], options: dict[str, Any]) -> None:
    schemas = {table.schema for one in each for table in one.tables.values()}
    if schemas - {None}:
        options.setdefault("include_schemas", True)
        options.setdefault(
            "include_name", lambda name, kind, _: kind != "schema" or name in schemas
        )


def _set_up_logging() -> None:
    config = context.config
    path = config.config_file_name
    if path and config.cmd_opts is not None and config.file_config.has_section("loggers"):
        fileConfig(path, disable_existing_loggers=False)


def _write_sql(options: dict[str, Any], lock_timeout: float) -> None:
    context.configure(
        dialect_name="postgresql",
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
        **options,
    )
    context.get_context().impl.static_output(f"SET lock_timeout = '{lock_timeout * 1000:.0f}ms';")
    with context.begin_transaction():
        context.run_migrations()


def _finish(work: Any) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
    else:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, work).result()


async def _migrate(
    settings: DatabaseSettings,
    options: dict[str, Any],
    lock_timeout: float,
    retry_for: float,
    wait_for_others: float,
) -> None:
    async with migration_session(settings, lock_timeout) as session:
        connection = session.connection
        migrations = _Migrations(options)
        if connection.dialect.name != "postgresql" or not _changes_the_database():
            await connection.run_sync(migrations)
            await connection.commit()  # of what Alembic does without a transaction, as on SQLite
            return
        await session.prepare(f"penstock.migrations {options.get('version_table_schema', '')}")
        await session.wait_for_others(wait_for_others)
        event.listen(connection.sync_engine, "set_connection_execution_options", migrations.leaves)
        await session.retry(
            lambda: connection.run_sync(migrations), lambda: not migrations.is_in_part, retry_for
        )


def _changes_the_database() -> bool:
    try:
        context.get_revision_argument()
    except KeyError:  # of commands that only look: check, current, revision
        return False
    return True


class _Migrations:
    """Alembic's own part of a run, which may be repeated.

    Args:
        options: Of ``context.configure``.

    Attributes:
        is_in_part: Whether a migration has left its transaction and not ended.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.is_in_part = False
        self._options = options
        given = options.pop("on_version_apply", ())
        self._callbacks = [given] if callable(given) else list(given)

    def __call__(self, connection: Connection) -> None:
        context.configure(
            connection=connection,
            on_version_apply=[*self._callbacks, self._applied],  # type: ignore[arg-type]  # or several
            **self._options,
        )
        with context.begin_transaction():
            self._make_schema(connection)
            context.run_migrations()

    def leaves(self, _: Connection, options: dict[str, Any]) -> None:
        if options.get("isolation_level") == "AUTOCOMMIT":
            self.is_in_part = True

    def _applied(self, **_: Any) -> None:
        if self._options["transaction_per_migration"]:
            self.is_in_part = False

    def _make_schema(self, connection: Connection) -> None:
        schema = self._options.get("version_table_schema")
        if schema and not connection.dialect.has_schema(connection, schema):
            connection.execute(CreateSchema(schema))
