"""A statement compiled for one dialect: its SQL, its parameters, and the shape of its result."""

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from sqlalchemy import Float, Insert, Numeric
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter

from penstock.drivers.driver import left_by
from penstock.drivers.effects import Effect, effects_of
from penstock.express.cursor import Description
from penstock.express.errors import QueryRefused
from penstock.express.parameters import FixedParameters, Parameters, VaryingParameters
from penstock.express.shape import Shape, expected_shape, shape_of

__all__ = ["SCHEMAS", "Plan", "discriminator", "refuse_control", "schemas_of"]

SCHEMAS = "schema_translate_map"
"""The execution option that names other schemas than the tables do."""

LONGEST_SHOWN = 200
"""Characters of a statement that an error's message has."""


class Plan:
    """What is done each time that a statement runs on one kind of database.

    Args:
        statement: What is to be run.
        dialect: Whose SQL it is to be.
        columns: The keys of the columns that an ``insert()`` or ``update()`` without values sets,
            by the names of their values; None for any other.

    Attributes:
        compiled: SQLAlchemy's compiled form.
        parameters: What makes a call's values into the driver's.
        bind: Gives the SQL and the driver's arguments for the values of one call, by name.
        shape: What makes the driver's rows into results; None until the statement has run once,
            for only the server knows the types of its columns.
        schemas: Which schemas it names otherwise than its tables do; None for none.
        further: Plans of the statements that its results are loaded with, by their form.
        is_fixed: Whether that will do for every answer to come.
        effects: What it may leave on the server's session.
        reads: Whether it may run where only reads are allowed.

    Raises:
        QueryRefused: It controls a transaction, or is several statements.
    """

    def __init__(
        self, statement: Any, dialect: Dialect, columns: Mapping[str, str] | None = None
    ) -> None:
        self.statement = statement = _as_the_orm_runs_it(statement)
        self.dialect = dialect
        self.schemas: Mapping[str | None, str | None] | None = _options_of(statement).get(SCHEMAS)
        self._cache_key = statement._generate_cache_key()  # noqa: SLF001 - as SQLAlchemy's own cache
        self._renamed: Mapping[str, str] = columns or {}
        self._added = discriminator(_mapper_of(statement)) if _is_of_named(statement) else {}
        keys = list(dict.fromkeys([*self._renamed.values(), *self._added]))
        self._keys = keys if keys or columns is not None else None
        self.compiled = self._compile(self._keys)
        is_known = dialect.name == "postgresql"
        effects = effects_of(self.compiled.string) if is_known else Effect.READS
        refuse_control(effects, self.compiled.string)
        self.effects = left_by(effects)
        self.reads = bool(effects & Effect.READS)
        self.parameters: Parameters = _parameters(self.compiled)
        self.bind = self._bind_renamed if keys else self.parameters.bind
        self._varying: VaryingParameters | None = None
        self.shape: Shape | None = None
        self.further: dict[Any, Plan] = {}
        self.is_fixed = False

    def _compile(self, column_keys: Sequence[str] | None) -> SQLCompiler:
        translated = {SCHEMAS: self.schemas, "render_schema_translate": True}
        compiled: SQLCompiler = self.statement.compile(
            dialect=self.dialect,
            cache_key=self._cache_key,
            column_keys=column_keys,
            **(translated if self.schemas else {}),
        )
        return compiled

    def _bind_renamed(self, values: Mapping[str, Any]) -> tuple[str, Sequence[Any]]:
        return self.parameters.bind(self._with_keys(values))

    def _with_keys(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {**self._added, **{self._renamed.get(n, n): v for n, v in values.items()}}

    def bind_adhoc(
        self, values: Mapping[str, Any], extracted: Sequence[BindParameter[Any]]
    ) -> tuple[str, Sequence[Any]]:
        """Return the SQL and the arguments for another statement of the same form.

        Args:
            values: Of its named parameters, by name.
            extracted: Its bound values.
        """
        if self._varying is None:
            self._varying = VaryingParameters(self.compiled)
        return self._varying.bind(self._with_keys(values), extracted)

    def learn(self, attributes: Sequence[Any]) -> Shape:
        """Remember what the server says of the result's columns.

        Args:
            attributes: asyncpg's, each with a name and a type.
        """
        description = [(a.name, a.type.oid, None, None, None, None, None) for a in attributes]
        self.shape = shape = self._shaped(description)
        self.is_fixed = shape.cursor.is_fixed
        return shape

    def _shaped(self, description: Description) -> Shape:
        return shape_of(self.statement, self.compiled, description)

    @cached_property
    def _expected(self) -> Shape:
        """What the results would be, without a server."""
        return expected_shape(self.statement, self.compiled, partial(self._compile, self._keys))

    @cached_property
    def takes_statements(self) -> bool:
        """Whether its results may be loaded with further ones, as ``selectinload()`` asks for."""
        return self._expected.takes_statements

    @cached_property
    def may_fail(self) -> bool:
        """Whether Python may refuse what the statement returns, as its own types and classes do."""
        types = [column.type for column in self.compiled._result_columns]  # noqa: SLF001 - no public way to them
        if any(_converts(each, self.dialect) for each in types):
            return True
        return bool(types) and self._expected.may_fail


def schemas_of(statement: Any) -> tuple[Any, ...]:
    """Return which schemas a statement names otherwise, as a key: they are no part of its form."""
    return tuple((_options_of(statement).get(SCHEMAS) or {}).items())


def _options_of(statement: Any) -> Mapping[str, Any]:
    options: Mapping[str, Any] = statement.get_execution_options()
    return options


def refuse_control(effects: Effect, sql: str) -> None:
    """Refuse what would not be one statement in a transaction of its own.

    Args:
        effects: Of the statement.
        sql: For the message.

    Raises:
        QueryRefused: It begins or ends a transaction, or is several statements.
    """
    if effects & Effect.CONTROL:
        raise QueryRefused(
            "Each statement of the express lane is a transaction of its own, so it runs no "
            f"transaction control: use a session. {_shortened(sql)}"
        )
    if effects & Effect.SEVERAL:
        raise QueryRefused(
            f"The express lane runs one statement at a time, and this is several: {_shortened(sql)}"
        )


def _converts(kind: Any, dialect: Dialect) -> bool:
    try:
        return kind._cached_result_processor(dialect, None) is not None  # noqa: SLF001 - as SQLAlchemy's own execution
    except Exception:  # noqa: BLE001 - of a number, of which the server alone says what it sends
        return not isinstance(kind, Numeric | Float)


def _shortened(sql: str) -> str:
    return " ".join(sql[:LONGEST_SHOWN].split())


def _as_the_orm_runs_it(statement: Any) -> Any:
    plugin = statement._propagate_attrs.get("compile_state_plugin")  # noqa: SLF001 - as a session asks
    if plugin == "orm" and isinstance(statement, Insert):
        return statement._annotate({"dml_strategy": "orm"})  # noqa: SLF001 - as above
    return statement


def _parameters(compiled: SQLCompiler) -> Parameters:
    varies = (
        compiled.post_compile_params
        or compiled.literal_execute_params
        or compiled.insert_prefetch
        or compiled.update_prefetch
        or any(bind.callable for bind in compiled.bind_names)
    )
    return VaryingParameters(compiled) if varies else FixedParameters(compiled)


def _is_of_named(statement: Any) -> bool:
    """Return whether it is an INSERT of one row that takes values by name.

    To such a row a session adds what tells its class from others in the table.
    """
    if not isinstance(statement, Insert) or statement._multi_values or statement.select is not None:  # noqa: SLF001 - no public way to ask
        return False
    given = statement._values  # noqa: SLF001 - as above
    binds = (value for value in (given or {}).values() if isinstance(value, BindParameter))
    return not given or any(not bind.unique for bind in binds)


def discriminator(mapper: Any) -> dict[str, Any]:
    """Return what tells a mapped class in its table from others, by the column's key.

    A session's INSERT adds it where the values do not have it.
    """
    column = None if mapper is None else mapper.polymorphic_on
    if column is None or mapper.polymorphic_identity is None:
        return {}
    is_stored = getattr(column, "table", None) is mapper.local_table  # and no expression
    return {column.key: mapper.polymorphic_identity} if is_stored else {}


def _mapper_of(statement: Any) -> Any:
    return getattr(statement.entity_description.get("entity"), "__mapper__", None)
