"""Reading only: the type that has no way to write, and the server's refusal behind it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    NoReturn,
    Protocol,
    TypeAlias,
    TypeVar,
    TypeVarTuple,
    overload,
)

from sqlalchemy import (
    CompoundSelect,
    Connection,
    Result,
    ScalarResult,
    Select,
    TextClause,
    TextualSelect,
    event,
)
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncResult, AsyncScalarResult, AsyncSession
from sqlalchemy.orm import SessionTransaction

from penstock.database.session import UnitSyncSession
from penstock.drivers.capabilities import driver_of
from penstock.pool import PenstockPool

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_Parameters: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]
_Reads: TypeAlias = (
    Select[*tuple[Any, ...]] | CompoundSelect[*tuple[Any, ...]] | TextualSelect | TextClause
)
"""What can only read; a text clause is for the server to judge."""


class ReadOnlySession(Protocol):
    """What a read-only session can do: SQLAlchemy's ``AsyncSession`` without its writing side.

    An ``AsyncSession`` fits wherever this type is expected, so that one function that reads
    serves both kinds of session. A type checker refuses ``add``, ``commit`` and an
    ``insert()``; whatever gets past it, the server refuses.
    """

    @overload
    async def execute(
        self, statement: Select[*_Ts], params: _Parameters | None = None
    ) -> Result[*_Ts]: ...
    @overload
    async def execute(
        self, statement: _Reads, params: _Parameters | None = None
    ) -> Result[*tuple[Any, ...]]: ...

    @overload
    async def scalar(
        self, statement: Select[_T], params: Mapping[str, Any] | None = None
    ) -> _T | None: ...
    @overload
    async def scalar(self, statement: _Reads, params: Mapping[str, Any] | None = None) -> Any: ...

    @overload
    async def scalars(
        self, statement: Select[_T], params: _Parameters | None = None
    ) -> ScalarResult[_T]: ...
    @overload
    async def scalars(
        self, statement: _Reads, params: _Parameters | None = None
    ) -> ScalarResult[Any]: ...

    @overload
    async def stream(
        self, statement: Select[*_Ts], params: _Parameters | None = None
    ) -> AsyncResult[*_Ts]: ...
    @overload
    async def stream(
        self, statement: _Reads, params: _Parameters | None = None
    ) -> AsyncResult[*tuple[Any, ...]]: ...

    @overload
    async def stream_scalars(
        self, statement: Select[_T], params: _Parameters | None = None
    ) -> AsyncScalarResult[_T]: ...
    @overload
    async def stream_scalars(
        self, statement: _Reads, params: _Parameters | None = None
    ) -> AsyncScalarResult[Any]: ...

    async def get(
        self, entity: type[_T], ident: Any, *, options: Sequence[Any] | None = None
    ) -> _T | None:
        """Return the object with this primary key, or None."""
        ...

    async def get_one(
        self, entity: type[_T], ident: Any, *, options: Sequence[Any] | None = None
    ) -> _T:
        """Return the object with this primary key, or raise ``NoResultFound``."""
        ...

    async def refresh(self, instance: object, attribute_names: Iterable[str] | None = None) -> None:
        """Load the object's attributes anew."""
        ...

    def expunge(self, instance: object) -> None:
        """Detach the object, so that it may be changed for the caller's own purposes."""
        ...


if TYPE_CHECKING:

    class _WritingSession:
        """What a read-only session is not: its writing methods ask for one."""

    class ReadOnlyAsyncSession(ReadOnlySession, AsyncSession):  # type: ignore[misc]  # fewer statements
        """A read-only session as existing code takes it: as an ``AsyncSession``.

        By this type a checker refuses to write; by that of an ``AsyncSession``, as which it may be
        handed on, the server alone.
        """

        def _refused(self: _WritingSession, *_: Any, **__: Any) -> NoReturn: ...  # type: ignore[misc]  # so it is refused

        add = add_all = delete = delete_all = merge = merge_all = _refused
        commit = flush = _refused

else:
    ReadOnlyAsyncSession = AsyncSession


class ReadOnlySyncSession(UnitSyncSession):
    """The session below a reading session: each of its transactions is made read-only.

    Attributes:
        within: The driver's connection on which it reads in a transaction that is not its own.
    """

    within: Any = None


@event.listens_for(ReadOnlySyncSession, "after_begin")
def _make_read_only(
    session: ReadOnlySyncSession,
    transaction: SessionTransaction,  # noqa: ARG001 - the event's signature
    connection: Connection,
) -> None:
    match connection.dialect.name:
        case "postgresql" if connection.in_nested_transaction():
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            _keep_read_only(session, connection)
        case "mysql" | "mariadb" if not connection.in_nested_transaction():
            connection.exec_driver_sql("START TRANSACTION READ ONLY")
        case "sqlite" if not connection.in_nested_transaction():
            connection.exec_driver_sql("PRAGMA query_only = ON")


def _keep_read_only(session: ReadOnlySyncSession, connection: Connection) -> None:
    # A statement may end the savepoint or the transaction around it.
    adapter: Any = connection.connection.dbapi_connection
    if hasattr(adapter, "read_within"):
        adapter.read_within(begins=True)
        session.within = adapter


@event.listens_for(ReadOnlySyncSession, "after_transaction_end")
def _end_within(session: ReadOnlySyncSession, transaction: SessionTransaction) -> None:
    if session.within is not None and transaction.parent is None:
        session.within.read_within(begins=False)
        session.within = None


def reading_engine(engine: AsyncEngine) -> AsyncEngine:
    """Return ``engine``, over the same pool, with transactions that begin read-only.

    PostgreSQL gets ``BEGIN READ ONLY``; on a :class:`PenstockPool` each session sends it to asyncpg
    with its first statement. MySQL and MariaDB begin such a transaction by a separate statement,
    SQLite switches the connection to
    ``query_only`` until it is returned. Inside the writing session's open transaction
    PostgreSQL reads in a read-only savepoint; the others know nothing of the kind.
    """
    if engine.dialect.name == "sqlite":
        _lift_query_only_on_return(engine)
    if driver_of(engine.dialect).is_pipelined and isinstance(engine.pool, PenstockPool):
        return engine
    return engine.execution_options(postgresql_readonly=True)


def _lift_query_only_on_return(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "reset")
    def lift(dbapi_connection: Any, *_: object) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA query_only = OFF")
        cursor.close()
