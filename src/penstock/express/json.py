"""A list as JSON that PostgreSQL writes: the bytes that the response model would have made."""

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter
from sqlalchemy.engine import Dialect
from typing_extensions import override

from penstock.express.compiled import Plan
from penstock.express.errors import QueryRefused, shortened
from penstock.express.json_sql import JsonSql
from penstock.express.query import Query, Statement, as_query
from penstock.express.rows import Shape
from penstock.log_limit import LogLimit

_logger = logging.getLogger(__name__)


class JsonQuery:
    """A ``select()`` whose rows PostgreSQL writes as the JSON of a response model's list.

    The bytes are those of a route with ``response_model=list[model]``. A list with a value that
    PostgreSQL writes otherwise (an infinite date, a NULL in a required field) is read again as
    rows, of which the model makes what it would have; so is, at once, what another driver than
    asyncpg reads.

    Args:
        statement: A ``select()`` or ``union()``, or what ``query()`` made of one.
        model: The response model of one row.

    Attributes:
        rows: The query for the rows themselves.
        model: As it was given.

    Raises:
        QueryRefused: It is not known that PostgreSQL writes the same as the model; the message
            names the field and why.
    """

    def __init__(self, statement: Query[Any] | Statement, model: type[BaseModel]) -> None:
        self.rows = as_query(statement)
        self.model = model
        self._written = _WrittenQuery(self.rows, model)
        self._adapter: TypeAdapter[Any] = TypeAdapter(list[model])  # type: ignore[valid-type]  # the caller's
        self._log_limit = LogLimit()

    def __repr__(self) -> str:
        return f"JsonQuery({self.rows!r}, {self.model.__name__})"

    async def read(
        self,
        ask: Callable[..., Coroutine[Any, Any, "_Written"]],
        values: Any,
        named: dict[str, Any],
    ) -> bytes:
        """Return the JSON of a call's results.

        Args:
            ask: The reader's; given a query, the values, and what makes bytes of results.
            values: Of the statement's named parameters, as a mapping or None.
            named: The same as keywords.

        Raises:
            pydantic.ValidationError: A row is none of the model's.
        """
        written = await ask(self._written, values, named, self._extract)
        if written.unlike is None:
            return written.json
        left_out = self._log_limit.passes()
        if left_out is not None:
            _logger.warning(
                "PostgreSQL does not write %s as %s does, and rows are read a second time (%d more "
                "lines left out): %s",
                written.unlike,
                self.model.__name__,
                left_out,
                shortened(repr(self.rows)),
            )
        return (await ask(self.rows, values, named, self._extract)).json

    def _extract(self, results: Sequence[Any]) -> "_Written":
        if results and results[0].__class__ is _Written:
            return results[0]
        # Rows: they were asked for, or are all that a session reads, or that a listener leaves.
        models = self._adapter.validate_python(results, from_attributes=True)
        return _Written(self._adapter.dump_json(models, by_alias=True), None)


class _Written(NamedTuple):
    json: bytes
    unlike: str | None
    """What the response model would have written otherwise."""


def json_of(query: Query[Any] | JsonQuery, model: type[BaseModel] | None) -> JsonQuery:
    """Return the query for the JSON of another's rows; it is made once for each model.

    Args:
        query: What ``query()`` made, or the query for JSON itself.
        model: The response model of one row; None where the query has it.

    Raises:
        QueryRefused: It is not known that PostgreSQL writes the same, or these are not a query that
            was prepared and a model.
    """
    if isinstance(query, JsonQuery) and model in (None, query.model):
        return query
    if not isinstance(query, Query) or not isinstance(model, type):
        raise QueryRefused(
            "json() takes what query() made and a response model, or a JsonQuery alone: to look at "
            "a statement costs as much as to read its rows."
        )
    known = query.json.get(model)
    if known is None:
        known = query.json[model] = JsonQuery(query, model)
    return known


class _WrittenQuery(Query[bytes]):
    def __init__(self, rows: Query[Any], model: type[BaseModel]) -> None:
        super().__init__(rows.statement, batch=rows.batch)
        self._sql = JsonSql(rows.statement, model)

    @override
    def plan(self, dialect: Dialect, names: Any = ()) -> Plan:
        plan = self.plans.get(dialect)
        if plan is None:
            plan = self.plans[dialect] = _JsonPlan(self.statement, dialect, self._sql)
        return plan


class _JsonPlan(Plan):
    """Of a statement with the SQL around it that writes its rows.

    Args:
        statement: What gives the rows.
        dialect: Whose SQL it is to be.
        sql: What is around it.
    """

    takes_statements = may_fail = False

    def __init__(self, statement: Any, dialect: Dialect, sql: JsonSql) -> None:
        super().__init__(statement, dialect)
        self._sql = sql
        self._bind_rows = self.bind
        self._last = ("", "")
        self.bind = self._bind
        self.shape = _JsonShape(sql)
        self.is_fixed = True

    def _bind(self, values: Mapping[str, Any]) -> tuple[str, Sequence[Any]]:
        sql, arguments = self._bind_rows(values)
        if self._last[0] is not sql:
            self._last = (sql, self._sql.around(sql))
        return self._last[1], arguments


class _JsonShape(Shape):
    is_single = True
    is_collected = takes_statements = may_fail = False
    cursor: Any = None

    def __init__(self, sql: JsonSql) -> None:
        self._sql = sql

    @override
    def results(self, records: Sequence[Any], statement: Any, origin: Any = None) -> list[Any]:
        ((types, written),) = records
        return [_Written(written, self._sql.unlike(types, written))]
