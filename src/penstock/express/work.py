"""One statement's work on a connection: what is sent, what its results take, what is done again."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, NoReturn, TypeVar

from asyncpg.exceptions import DataError, InternalClientError
from sqlalchemy import UpdateBase
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.util import await_, greenlet_spawn

from penstock.context import Settings
from penstock.drivers import asyncpg
from penstock.drivers import sqlalchemy_internals as internals
from penstock.express.compiled import SCHEMAS, Plan, schemas_of
from penstock.express.errors import ExpressError, is_outdated, is_shutdown, not_converted
from penstock.express.lane import Copy
from penstock.express.orm import Cursor, Description, Origin, UnboundSession
from penstock.express.query import Call
from penstock.express.rows import Shape
from penstock.pool import PenstockPool

T = TypeVar("T")

Use = Callable[[Any, Any, str, Any], Coroutine[Any, Any, Any]]
"""Speaks to the server: given asyncpg's connection, the plan, the SQL and its values."""
Fetch = Callable[[Plan, str, Sequence[Any]], Awaitable[Any]]
"""Runs a further statement in the same transaction, and returns its answer."""
Then = Callable[[Fetch, Any], Awaitable[Any]]
"""Makes results of an answer by further statements; given what runs them, and the answer."""

_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Seconds before each further try: none first, and then what a server needs to announce its
shutdown on all connections."""


@dataclass(frozen=True)
class Work:
    """One statement, and what its results take.

    Args:
        use: Sends the statement and returns the answer.
        plan: Passed on to ``use``.
        sql: The statement, for the log and an error's text.
        arguments: Its values.
        writes: Whether the server is to let it write.
        settings: Server settings, for this statement alone.
        asked_at: When the connection counts as requested; None for now.
        then: What makes the results by further statements; None where the answer is all.
    """

    use: Use
    plan: Any
    sql: str
    arguments: Sequence[Any]
    writes: bool
    settings: Settings = field(default=(), repr=False)
    asked_at: float | None = None
    then: Then | None = None

    def on(self, driver: Any) -> Coroutine[Any, Any, Any]:
        """Send the statement.

        Args:
            driver: asyncpg's connection.
        """
        return self.use(driver, self.plan, self.sql, self.arguments)

    def may_be_sent_again(self, driver: Any, error: BaseException) -> bool:
        """Return whether an error came from an outdated plan, and nothing was written.

        Args:
            driver: asyncpg's connection.
            error: What it raised.
        """
        # Not a copy, some of whose rows were taken already.
        writes = self.writes and self.then is None  # else it was rolled back
        return isinstance(self.plan, Plan) and is_outdated(driver, error, writes=writes)


class ResultsFailed:
    """Stands for results that could not be made of an answer.

    Args:
        error: What was raised: no error of the driver, whatever its class.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error


class ConnectionLost(Exception):  # noqa: N818 - it says what happened
    """A connection ended before the server had answered.

    Args:
        error: What a session would raise.
        waited: Seconds for which the connection was waited for.
        pool: Whose connection it was.
    """

    def __init__(self, error: BaseException, waited: float, pool: PenstockPool) -> None:
        super().__init__(str(error))
        self.error = error
        self.waited = waited
        self.pool = pool


async def repeated(lost: ConnectionLost, attempt: Callable[..., Awaitable[T]]) -> T:
    """Repeat on another connection what the first one ended without an answer.

    It is repeated once, and again as long as the server says that it shuts down: then on a
    connection that is opened after that. All waits for a connection together are bounded by
    ``pool_timeout``.

    Args:
        lost: How the first attempt ended.
        attempt: Does it; takes ``asked_at``, when its connection counts as requested.

    Returns:
        What the attempt returns.

    Raises:
        sqlalchemy.exc.DBAPIError: As a session would raise it.
    """
    waited = 0.0
    for pause in _PAUSES:
        if pause:  # one connection may be ended alone, two are no chance
            if not is_shutdown(lost.error):
                break
            lost.pool.evict_all()
        await asyncio.sleep(pause)
        waited = max(waited, lost.waited) + pause
        try:
            return await attempt(asked_at=monotonic() - waited)
        except ConnectionLost as again:
            lost = again
    raise lost.error from lost


async def read_alone(send: Callable[..., Awaitable[T]]) -> T:
    """Send a statement that reads; again where the connection ended without an answer.

    Args:
        send: Sends it; takes ``asked_at``, when its connection counts as requested.

    Raises:
        sqlalchemy.exc.DBAPIError: As a session would raise it.
    """
    try:
        return await send()
    except ConnectionLost as lost:
        return await repeated(lost, send)


class Answer:
    """Records and their shape, where the next answer to the same statement may have another.

    Args:
        shape: What makes results of them.
        records: asyncpg's.
    """

    def __init__(self, shape: Shape, records: Sequence[Any]) -> None:
        self.shape = shape
        self.records = records


def answered(plan: Plan, answer: Any) -> tuple[Shape, Sequence[Any]]:
    """Return the records that an answer to :func:`fetch` holds, and their shape."""
    if answer.__class__ is Answer:
        return answer.shape, answer.records
    return plan.shape, answer  # type: ignore[return-value]  # learnt by fetch()


def fetch(driver: Any, plan: Plan, sql: str, arguments: Sequence[Any]) -> Coroutine[Any, Any, Any]:
    """Run a statement and return its records.

    Where what asyncpg knows is outdated, it raises; ``Connections`` sends the statement again.
    """
    if plan.is_fixed:
        return asyncpg.fetch(driver, sql, arguments)
    return _fetch_and_look(driver, plan, sql, arguments)


async def _fetch_and_look(driver: Any, plan: Plan, sql: str, arguments: Sequence[Any]) -> Answer:
    shape: Shape = plan.shape or await learn(driver, plan, sql, ())
    records = await asyncpg.fetch_in_any_shape(driver, sql, arguments)
    if records and tuple(records[0].keys()) != shape.cursor.names:
        # The table has changed, and asyncpg has prepared the statement anew. Where it keeps none,
        # this asks the server again, which goes on waiting for a statement until it is given one.
        shape = await learn(driver, plan, sql, ())
        await driver.execute("SELECT")
    return Answer(shape, records)


async def execute(driver: Any, _: Plan, sql: str, arguments: Sequence[Any]) -> str:
    """Run a statement and return the command's tag."""
    return await asyncpg.execute(driver, sql, arguments)


async def execute_many(driver: Any, _: Plan, sql: str, arguments: Sequence[Any]) -> None:
    """Run a statement for each of several rows of values, as one transaction."""
    await asyncpg.execute_many(driver, sql, arguments)


async def fetch_many(driver: Any, plan: Plan, sql: str, arguments: Sequence[Any]) -> Answer:
    """Do the same and return what each of them returns, in their order."""
    shape = plan.shape or await learn(driver, plan, sql, ())
    return Answer(shape, await asyncpg.fetch_many(driver, sql, arguments))


async def send_copy(dialect: Dialect, driver: Any, rows: Copy, _: str, __: Sequence[Any]) -> Any:
    """Write rows by COPY and return the command's tag."""
    table = rows.table
    try:
        return await driver.copy_records_to_table(
            table.name,
            schema_name=table.schema,
            columns=[table.c[key].name for key in rows.columns],
            records=rows.records(dialect),
        )
    except InternalClientError as error:
        if "no binary format" not in str(error):
            raise
        raise ExpressError(
            f"COPY into {table}: asyncpg has {error}; write the rows by execute_many()"
        ) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if not rows.taken:
            raise  # from where the rows come, and not from what became of one
        raise DataError(f"invalid input in row {rows.taken}: {error}") from error


async def learn(driver: Any, plan: Plan, sql: str, _: Sequence[Any]) -> Shape:
    """Have the server describe a statement's columns, and return what becomes of them."""
    return plan.learn(asyncpg.attributes(await asyncpg.prepare(driver, sql)))


async def open_cursor(driver: Any, _: Plan, sql: str, arguments: Sequence[Any]) -> Any:
    """Open a cursor of the server's, within a transaction."""
    return await asyncpg.open_cursor(driver, sql, arguments)


async def fetch_more(_: Any, cursor: Any, __: str, count: Sequence[int]) -> Any:
    """Return the next records of a cursor, so many as the one value says."""
    return await cursor.fetch(*count)


def count(status: str) -> int:
    """Return the number at the end of a command's tag, such as ``INSERT 0 1``; 0 without one."""
    number = status.rpartition(" ")[2]
    return int(number) if number.isdigit() else 0


def rows_of(answer: Any) -> int:
    """Return the rows that a statement has returned or changed; 0 where the answer does not say.

    Args:
        answer: Records, what holds ``records``, a command's tag, or anything else.
    """
    if isinstance(answer, str):
        return count(answer)
    records = getattr(answer, "records", answer)
    return len(records) if isinstance(records, list) else 0


_KEYS = "primary_keys"
"""The loaders' parameter for the rows that something is loaded for."""
_MOST_KEPT = 200
"""Forms of further statements that are kept of one statement."""
_LONGEST_PADDED = 512
"""The power of two above the 500 keys for which a loader asks at once."""


def loads_related(plan: Plan, call: Call, dispatch: Any) -> Then | None:
    """Return what makes a call's results by further statements; None where it takes none.

    Args:
        plan: The call's.
        call: The statement and its values.
        dispatch: Of the listeners to sessions.
    """
    return partial(_load, plan, call, dispatch) if plan.takes_statements else None


async def _load(plan: Plan, call: Call, dispatch: Any, fetch: Fetch, answer: Any) -> list[Any]:
    session = _RelatedSession(fetch, plan, call.values, dispatch)
    origin = Origin(session, call.values)
    shape, records = answered(plan, answer)
    results: list[Any] = await greenlet_spawn(shape.results, records, call.statement, origin)
    if session.refusal is not None:
        raise session.refusal
    return results


class _RelatedSession(UnboundSession):
    """The session that SQLAlchemy's loaders ask.

    Args:
        fetch: Runs a statement where the first one ran.
        plan: Of the first statement; keeps those of the others.
        values: Of the call's named parameters, which criteria of options may use as well.
        dispatch: Of the listeners that are called for further statements.
    """

    def __init__(self, fetch: Fetch, plan: Plan, values: Mapping[str, Any], dispatch: Any) -> None:
        super().__init__(dispatch)
        self._connection = _Connection(fetch, plan, values, self.refuse)

    def _connection_for_bind(self, *_: Any, **__: Any) -> Any:
        return self._connection


class _Connection:
    """What a session takes for its connection.

    Args:
        fetch: Runs a statement where the first one ran.
        plan: Of the first statement; keeps those of the others.
        values: Of the call's named parameters.
        refuse: Raises.
    """

    def __init__(
        self,
        fetch: Fetch,
        plan: Plan,
        values: Mapping[str, Any],
        refuse: Callable[[], NoReturn],
    ) -> None:
        self._fetch = fetch
        self._refuse = refuse
        self._plan = plan
        self._values = values

    def scalar(self, *what: Any, **options: Any) -> Any:
        return self.execute(*what, **options).scalar()

    def execute(
        self,
        statement: Any,
        parameters: Mapping[str, Any] | None,
        *,
        execution_options: Mapping[str, Any],
    ) -> Any:
        if isinstance(statement, UpdateBase):
            self._refuse()
        parameters = parameters or {}
        plan, extracted = self._further(statement, execution_options)
        values = {**self._values, **parameters}
        if keys := parameters.get(_KEYS):
            values[_KEYS] = _padded(keys)
        try:
            sql, arguments = plan.bind_adhoc(values, extracted)
        except SQLAlchemyError:
            raise
        except Exception as error:
            raise not_converted(error, plan.compiled.string, values) from error
        shape, records = answered(plan, await_(self._fetch(plan, sql, arguments)))
        return shape.cursor.result(map(tuple, records))

    def _further(self, statement: Any, options: Mapping[str, Any]) -> tuple[Plan, Any]:
        first = self._plan
        schemas = options.get(SCHEMAS, first.schemas)
        if schemas:
            statement = statement.execution_options(**{SCHEMAS: schemas})
        form = internals.cache_key(statement)
        if form is None:
            return _FurtherPlan(statement, first.dialect), None
        key = form.key, schemas_of(statement)
        plan = first.further.get(key)
        if plan is None:
            plan = _FurtherPlan(statement, first.dialect)
            if len(first.further) >= _MOST_KEPT:  # as listeners may make ever new ones
                first.further.clear()
            if options.get("compiled_cache", first) is not None:  # as the ORM asks where it is deep
                first.further[key] = plan
        return plan, form.bindparams


class _FurtherPlan(Plan):
    """A plan whose rows are SQLAlchemy's loaders' own."""

    def _shaped(self, description: Description) -> Shape:
        return _Columns(Cursor(self.compiled, description))


class _Columns:
    is_single = is_collected = takes_statements = False
    may_fail = True

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor

    def results(self, records: Sequence[Any], _: Any, __: Origin | None = None) -> list[Any]:
        """Return the records as they are: the loader's result converts them."""
        return list(records)


def _padded(keys: list[Any]) -> list[Any]:
    """Return keys with the last one repeated, so that few lengths make few statements."""
    if len(keys) > _LONGEST_PADDED:
        return keys
    length = 1 << (len(keys) - 1).bit_length()
    return [*keys, *keys[-1:] * (length - len(keys))]
