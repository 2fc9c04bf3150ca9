"""Related objects that further statements load: ``selectinload()`` and its kind.

SQLAlchemy's loaders ask a session for them. Theirs runs them where the first statement ran, in the
same transaction, compiled once for each form.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from sqlalchemy import UpdateBase
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.util import await_, greenlet_spawn

from penstock.drivers import sqlalchemy_internals as internals
from penstock.express.compiled import SCHEMAS, Plan, schemas_of
from penstock.express.lane import Call
from penstock.express.orm import Cursor, Description, Origin, UnboundSession
from penstock.express.protocol import answered
from penstock.express.rows import Shape
from penstock.express.translation import not_converted
from penstock.express.work import Fetch, Then

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
