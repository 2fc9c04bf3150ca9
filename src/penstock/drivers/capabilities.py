"""The driver behind a dialect, and what is relied on of the private parts of libraries.

A version of asyncpg, psycopg or SQLAlchemy that lacks one of them is used by its public parts
alone: slower, and with less of what a pool can do, but not wrongly.
"""

import inspect
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from penstock.drivers.driver import Driver

_logger = logging.getLogger("penstock.drivers.requirements")


@dataclass(frozen=True, slots=True)
class Part:
    """Names that a class has to have.

    Args:
        module: Where the class is.
        owner: The class.
        names: Of its attributes, separated by spaces.
        takes: Parameters of each of these that is called with them by name or place.
    """

    module: str
    owner: str
    names: str
    takes: str = ""

    def missing(self) -> Iterator[str]:
        """Give what the installed version lacks."""
        try:
            owner: Any = import_module(self.module)
        except ImportError:
            yield self.module
            return
        if (owner := getattr(owner, self.owner, None)) is None:
            yield f"{self.module}.{self.owner}"
            return
        for name in self.names.split():
            place = f"{self.owner}.{name}"
            if not (hasattr(owner, name) or name in _set_on_instances(owner)):
                yield place
            elif self.takes:
                known = inspect.signature(getattr(owner, name)).parameters
                yield from (f"{place}({name})" for name in self.takes.split() if name not in known)


def _set_on_instances(owner: type) -> set[str]:
    """Return the attributes that a class declares, or that its ``__init__`` names."""
    names: set[str] = set()
    for base in owner.__mro__:
        names.update(inspect.get_annotations(base))
        code = getattr(vars(base).get("__init__"), "__code__", None)
        names.update(getattr(code, "co_names", ()))
    return names


_ASYNCPG_CONNECTION = (
    "_aborted _config _drop_local_statement_cache _listeners _log_listeners _protocol "
    "_query_loggers _stmt_cache _top_xact _transport"
)
_ASYNCPG_PROTOCOL = (
    "_is_cancelling _on_waiter_completed _wait_for_cancellation data_received get_record_class "
    "get_settings queries_count"
)
_ADAPTER = "sqlalchemy.dialects.postgresql.asyncpg"
ASYNCPG = (
    Part("asyncpg.connection", "Connection", _ASYNCPG_CONNECTION),
    Part("asyncpg.connection", "Connection", "_execute", "query args limit timeout return_status"),
    Part("asyncpg.connection", "Connection", "_get_statement", "query timeout"),
    Part("asyncpg.connection", "_StatementCache", "get", "query"),
    Part("asyncpg.connection", "_StatementCache", "get_max_size iter_statements"),
    Part("asyncpg.connect_utils", "_ClientConfiguration", "_replace command_timeout"),
    Part("asyncpg.transaction", "Transaction", "_deferrable _isolation _readonly _state"),
    Part("asyncpg.transaction", "TransactionState", "ROLLEDBACK STARTED"),
    Part("asyncpg.protocol.protocol", "BaseProtocol", _ASYNCPG_PROTOCOL),
    Part("asyncpg.protocol.protocol", "BaseProtocol", "query", "query timeout"),
    Part(
        "asyncpg.protocol.protocol",
        "BaseProtocol",
        "bind_execute",
        "state args portal_name limit return_extra timeout",
    ),
    Part(
        "asyncpg.protocol.protocol",
        "BaseProtocol",
        "bind_execute_many",
        "state args portal_name timeout return_rows",
    ),
    Part("asyncpg.protocol.protocol", "PreparedStatementState", "_get_attributes query"),
    Part(
        _ADAPTER,
        "AsyncAdapt_asyncpg_connection",
        "_connection _cursor_cls _execute_mutex _handle_exception _prepared_statement_cache "
        "_ss_cursor_cls _start_transaction _transaction deferrable isolation_level readonly",
    ),
    Part(_ADAPTER, "AsyncAdapt_asyncpg_connection", "_prepare", "operation invalidate_timestamp"),
    Part(_ADAPTER, "AsyncAdapt_asyncpg_cursor", "_prepare_and_execute", "operation parameters"),
    Part(_ADAPTER, "AsyncAdapt_asyncpg_cursor", "_executemany", "operation seq_of_parameters"),
    Part(_ADAPTER, "AsyncAdapt_asyncpg_ss_cursor", "_adapt_connection _cursor"),
    Part(_ADAPTER, "PGDialect_asyncpg", "_invalidate_schema_cache_asof"),
    Part("sqlalchemy.util", "LRUCache", "_data"),
)
"""For transactions that begin and end without a wait, and for recovering a connection."""

_PSYCOPG_ADAPTER = "sqlalchemy.dialects.postgresql.psycopg"
PSYCOPG = (
    Part("psycopg", "AsyncConnection", "closed fileno info"),
    Part("psycopg", "AsyncConnection", "_notify_handlers _pipeline pgconn"),
    Part(_PSYCOPG_ADAPTER, "AsyncAdapt_psycopg_connection", "_connection"),
    Part(_PSYCOPG_ADAPTER, "AsyncAdapt_psycopg_cursor", "_execute_async", "operation parameters"),
    Part(
        _PSYCOPG_ADAPTER,
        "AsyncAdapt_psycopg_cursor",
        "_executemany_async",
        "operation seq_of_parameters",
    ),
    Part(_PSYCOPG_ADAPTER, "AsyncAdapt_psycopg_cursor", "_adapt_connection"),
    Part(_PSYCOPG_ADAPTER, "AsyncAdapt_psycopg_ss_cursor", "_adapt_connection"),
)
"""For the context of transactions, and for recovering a connection."""

EXPRESS = (
    Part("sqlalchemy", "Select", "_all_selected_columns _generate_cache_key _propagate_attrs"),
    Part("sqlalchemy", "Select", "_raw_columns _where_criteria _with_options"),
    Part("sqlalchemy", "Insert", "_annotate _multi_values _returning _values"),
    Part("sqlalchemy", "Update", "_returning _values _where_criteria"),
    Part("sqlalchemy", "Delete", "_returning _where_criteria"),
    Part("sqlalchemy", "Column", "_default_description_tuple _onupdate_description_tuple"),
    Part(
        "sqlalchemy.types",
        "TypeEngine",
        "_cached_bind_processor _cached_result_processor _has_bind_expression",
    ),
    Part(
        "sqlalchemy.sql.compiler",
        "SQLCompiler",
        "_ad_hoc_textual _bind_processors _loose_column_name_matching _ordered_columns "
        "_result_columns _textual_ordered_columns _within_exec_param_key_getter",
    ),
    Part("sqlalchemy.sql.base", "CompileState", "_get_plugin_class_for_plugin"),
    Part("sqlalchemy.sql.dml", "InsertDMLState", "_dict_parameters _has_multi_parameters"),
    Part("sqlalchemy", "Row", "_data _key_to_index _parent"),
    Part(
        "sqlalchemy.engine.cursor",
        "CursorResultMetaData",
        "_key_to_index _processors _safe_for_cache",
    ),
    Part("sqlalchemy", "Result", "_attributes _unique_filter_state"),
    Part("sqlalchemy.orm.context", "_ORMCompileState", "_entities"),
    Part("sqlalchemy.orm", "ORMExecuteState", "_starting_event_idx _update_execution_options"),
    Part("sqlalchemy.orm", "Mapper", "_identity_class"),
    Part("sqlalchemy.orm", "CompositeProperty", "_composite_values_from_instance"),
)
"""For the express lane, which compiles a statement once and makes its results itself."""


def missing(parts: Iterable[Part]) -> list[str]:
    """Return what the installed versions lack.

    Args:
        parts: What is relied on.
    """
    return [name for part in parts for name in part.missing()]


def is_met(package: str, parts: Iterable[Part], without: str) -> bool:
    """Return whether everything is there; log one warning where it is not.

    Args:
        package: Whose parts they are, for the warning.
        parts: What is relied on.
        without: What is done instead.
    """
    if not (lacking := missing(parts)):
        return True
    try:
        installed = version(package)
    except PackageNotFoundError:
        return False  # and not in use
    _logger.warning(
        "%s %s lacks %s, on which Penstock relies: %s. Install a version that Penstock supports.",
        package,
        installed,
        ", ".join(lacking),
        without,
    )
    return False


_DRIVERS = {
    "aiomysql": ("mysql", "Mysql"),
    "aiosqlite": ("aiosqlite", "Aiosqlite"),
    "asyncmy": ("mysql", "Mysql"),
    "asyncpg": ("asyncpg", "Asyncpg"),
    "psycopg": ("psycopg", "Psycopg"),
    "psycopg_async": ("psycopg", "Psycopg"),
}
"""Module and class; a service imports those of its own driver."""
_REQUIREMENTS = {"asyncpg": ASYNCPG, "psycopg": PSYCOPG, "psycopg_async": PSYCOPG}


def driver_of(dialect: Any) -> Driver:
    """Return what is known of the driver behind a dialect.

    Args:
        dialect: SQLAlchemy's, or what stands for it in a pool without an engine.

    Returns:
        What is known of any driver, where the installed version lacks what Penstock relies on.
    """
    return _kind_of(getattr(dialect, "driver", ""))()


@cache
def _kind_of(name: str) -> type[Driver]:
    without = "it is used like an unknown driver, with more round trips"
    if is_met(name.removesuffix("_async"), _REQUIREMENTS.get(name, ()), without):
        return _known(name)
    return Driver


def _known(name: str) -> type[Driver]:
    if name not in _DRIVERS:
        return Driver
    module, kind = _DRIVERS[name]
    known: type[Driver] = getattr(import_module(f"penstock.drivers.{module}"), kind)
    return known


def runs_express(dialect: Any) -> bool:
    """Return whether the express lane runs on a dialect's driver, or has to run in sessions.

    Args:
        dialect: SQLAlchemy's.
    """
    return driver_of(dialect).is_pipelined and _has_internals()


@cache
def _has_internals() -> bool:
    return is_met("sqlalchemy", EXPRESS, "the express lane runs in sessions")
