"""A statement compiled for one dialect: its SQL, its parameters, and the shape of its result."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Protocol, Self

from sqlalchemy import Float, Insert, Numeric
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import CompositeProperty, Mapper
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter
from typing_extensions import override

from penstock.drivers import sqlalchemy_internals as internals
from penstock.drivers.effects import AFTER_TRANSACTION, Effect, effects_of
from penstock.express.errors import ParameterError, QueryRefused, shortened
from penstock.express.orm import Description
from penstock.express.pace import Pace
from penstock.express.rows import Shape, expected_shape, may_share, shape_of

_Spread = Callable[[dict[str, Any], Any], None]
"""Adds to a row's values what one value stands for."""


class Attributes:
    """What values can be given for.

    Args:
        table: The table that is written.
        mapper: Of the class that is written; None for a table alone.
        is_insert: Whether rows are added, for which a hybrid may define its ``bulk_dml()``.

    Attributes:
        columns: The keys of the columns by name.
        names: All that are known: those, composites, hybrids.
    """

    def __init__(self, table: Any, mapper: Mapper[Any] | None = None, *, is_insert: bool) -> None:
        self.columns: Mapping[str, str] = {column.key: column.key for column in table.columns}
        self._spread: dict[str, _Spread] = {}
        if mapper is not None:
            self.columns = _columns(mapper)
            self._spread = {c.key: partial(_spread_composite, c) for c in mapper.composites}
            if is_insert:
                self._spread |= _hybrids(mapper)
        self.names = frozenset({*self.columns, *self._spread})

    @classmethod
    def of(cls, statement: Any) -> Self:
        """Return those of an ``insert()`` or ``update()``."""
        mapper = getattr(statement.entity_description.get("entity"), "__mapper__", None)
        return cls(statement.table, mapper, is_insert=isinstance(statement, Insert))

    def spread(
        self, values: Mapping[str, Any], parameters: Collection[str] = ()
    ) -> Mapping[str, Any]:
        """Return values of which each is for one column, as a composite's is not.

        Args:
            values: By name.
            parameters: Names that stand for something else.

        Raises:
            ParameterError: A value is none of the composite's class.
        """
        found = self._spread.keys() & values.keys()
        found.difference_update(parameters)
        if not found:
            return values
        spread = dict(values)
        for name in found:
            self._spread[name](spread, spread.pop(name))
        return spread


def _columns(mapper: Mapper[Any]) -> dict[str, str]:
    return {
        attribute.key: attribute.columns[0].key
        for attribute in mapper.column_attrs
        if getattr(attribute.columns[0], "table", None) is mapper.local_table
    }


def _spread_composite(
    composite: CompositeProperty[Any], values: dict[str, Any], value: Any
) -> None:
    made = composite.composite_class
    parts: Sequence[Any] = [None] * len(composite.props)
    if isinstance(made, type) and not isinstance(value, made | None):
        raise ParameterError(f"{composite.key}: {type(value).__name__} is no {made.__name__}")
    if value is not None:
        parts = internals.composite_values(composite, value)
    values.update(zip((prop.key for prop in composite.props), parts, strict=True))


def _hybrids(mapper: Mapper[Any]) -> dict[str, _Spread]:
    setters = {
        name: getattr(descriptor, "bulk_dml_setter", None)
        for name, descriptor in mapper.all_orm_descriptors.items()
    }
    return {
        name: partial(setter, mapper.class_)
        for name, setter in setters.items()
        if setter is not None
    }


class Defaults:
    """What a session would fill in for ``default=`` and ``onupdate=``.

    Args:
        compiled: The statement.

    Raises:
        QueryRefused: A default takes a separate statement to fetch it.
    """

    def __init__(self, compiled: SQLCompiler) -> None:
        self._state: Any = compiled.compile_state
        self._columns = internals.default_columns(compiled)
        for column, _, _, is_scalar, is_callable in self._columns:
            if not is_scalar and not is_callable:
                raise QueryRefused(
                    f"The default of {column} takes a separate statement to fetch: give the "
                    "column a server_default, or write by a session."
                )

    def add_to(self, bound: dict[str, Any]) -> None:
        """Add the defaults to the values of one row."""
        for column, key, default, is_scalar, _ in self._columns:
            bound[key] = default if is_scalar else default(OtherValues(bound, column, self._state))


class OtherValues:
    """What a default that reads the row's other values is given.

    Args:
        parameters: The values, by the keys of their columns.
        column: Whose default it is.
        state: What SQLAlchemy knows of the statement; None where it has but one row.
    """

    def __init__(self, parameters: dict[str, Any], column: Any = None, state: Any = None) -> None:
        self.current_parameters = parameters
        self.current_column = column
        self._keys = internals.row_keys(state)

    def get_current_parameters(self, isolate_multiinsert_groups: bool = True) -> dict[str, Any]:
        """Return the values: of the same row alone, where the statement has several."""
        if not (self._keys and isolate_multiinsert_groups):
            return self.current_parameters
        column = self.current_column
        row = column.index + 1 if internals.is_column_of_rows(column) else 0
        values = {key: self.current_parameters.get(f"{key}_m{row}") for key in map(str, self._keys)}
        return {key: value for key, value in values.items() if key != str(column.key)}


_Processor = Callable[[Any], Any]


class Parameters(Protocol):
    """What makes values into arguments."""

    def bind(self, values: Mapping[str, Any], /) -> tuple[str, Sequence[Any]]:
        """Return the SQL and its arguments.

        Args:
            values: Of the named parameters, by name, complete and without others.

        Raises:
            KeyError: A value is missing.
        """
        ...


class FixedParameters(Parameters):
    """Those of a statement whose text is always the same.

    Args:
        compiled: The statement.
    """

    def __init__(self, compiled: SQLCompiler) -> None:
        self._sql = compiled.string
        constants = compiled.construct_params(escape_names=False, _check=False)
        processors: Mapping[str, _Processor] = internals.bind_converters(compiled)
        given = {name: bind.key for bind, name in compiled.bind_names.items() if not bind.unique}
        self._template: list[Any] = []
        self._constants: list[tuple[int, Any, _Processor]] = []
        """Those that their types convert: at each call, as a type may look at who calls."""
        self._given: list[tuple[int, str, _Processor | None]] = []
        self._optional: list[tuple[int, str, _Processor | None]] = []
        for position, name in enumerate(compiled.positiontup or ()):
            processor = processors.get(name)
            bind = compiled.binds[name]
            self._template.append(constants[name])
            if processor is not None and not bind.required:
                self._constants.append((position, constants[name], processor))
            if name in given:
                place = (position, given[name], processor)
                (self._given if bind.required else self._optional).append(place)

    @override
    def bind(self, values: Mapping[str, Any], /) -> tuple[str, Sequence[Any]]:
        arguments = self._template.copy()
        for position, value, convert in self._constants:
            arguments[position] = convert(value)
        for position, name, processor in self._given:
            value = values[name]
            arguments[position] = value if processor is None else processor(value)
        for position, name, processor in self._optional:
            if name in values:
                value = values[name]
                arguments[position] = value if processor is None else processor(value)
        return self._sql, arguments


class VaryingParameters(Parameters):
    """Those of a statement whose text or arguments depend on the values: lists, defaults.

    Args:
        compiled: The statement.
    """

    def __init__(self, compiled: SQLCompiler) -> None:
        self._compiled = compiled
        self._processors: Mapping[str, Any] = internals.bind_converters(compiled)
        self._defaults = Defaults(compiled)
        self._is_expanded = bool(compiled.post_compile_params or compiled.literal_execute_params)

    def bind(
        self, values: Mapping[str, Any], extracted: Sequence[BindParameter[Any]] | None = None, /
    ) -> tuple[str, Sequence[Any]]:
        """Return the SQL and its arguments.

        Args:
            values: Of the named parameters, by name, complete and without others.
            extracted: The constants of a statement of the same form, by their own parameters; None
                for those of the statement that was compiled.

        Raises:
            KeyError: A value is missing.
        """
        compiled = self._compiled
        bound = dict(
            compiled.construct_params(
                dict(values), extracted_parameters=extracted, escape_names=False
            )
        )
        self._defaults.add_to(bound)
        if not self._is_expanded:
            names = compiled.positiontup or ()
            return compiled.string, [_processed(self._processors, n, bound[n]) for n in names]
        # By the names of the compiled statement, which are found first.
        state = compiled.construct_expanded_state(bound, escape_names=False)
        everything = {**bound, **state.parameters}
        processors = {**self._processors, **state.processors}
        positions = state.positiontup or ()
        return state.statement, [_processed(processors, n, everything[n]) for n in positions]


def _processed(processors: Mapping[str, Any], name: str, value: Any) -> Any:
    processor = processors.get(name)
    return value if processor is None else processor(value)


SCHEMAS = "schema_translate_map"
"""The execution option that names other schemas than the tables do."""


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
        leaves_nothing: Whether it leaves nothing to what follows in its transaction, either.
        reads: Whether it may run where only reads are allowed.
        pace: How fast it is answered.

    Raises:
        QueryRefused: It controls a transaction, or is several statements.
    """

    def __init__(
        self, statement: Any, dialect: Dialect, columns: Mapping[str, str] | None = None
    ) -> None:
        self.statement = statement = _as_the_orm_runs_it(statement)
        self.dialect = dialect
        self.schemas: Mapping[str | None, str | None] | None = _options_of(statement).get(SCHEMAS)
        self._cache_key = internals.cache_key(statement)
        self._renamed: Mapping[str, str] = columns or {}
        self._added = discriminator(_mapper_of(statement)) if _is_of_named(statement) else {}
        keys = list(dict.fromkeys([*self._renamed.values(), *self._added]))
        self._keys = keys if keys or columns is not None else None
        self.compiled = self._compile(self._keys)
        is_known = dialect.name == "postgresql"
        effects = effects_of(self.compiled.string) if is_known else Effect.READS
        refuse_control(effects, self.compiled.string)
        self.effects = effects & AFTER_TRANSACTION
        self.leaves_nothing = effects == Effect.READS
        self.reads = bool(effects & Effect.READS)
        self.parameters: Parameters = _parameters(self.compiled)
        self.bind = self._bind_renamed if keys else self.parameters.bind
        self._varying: VaryingParameters | None = None
        self.shape: Shape | None = None
        self.further: dict[Any, Plan] = {}
        self.is_fixed = False
        self.pace = Pace()

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
    def expected(self) -> Shape:
        """What the results would be, without a server."""
        return expected_shape(self.statement, self.compiled, partial(self._compile, self._keys))

    @cached_property
    def may_share(self) -> bool:
        """Whether callers who give equal values may have the same records."""
        columns = internals.result_columns(self.compiled)
        return may_share(self.compiled.string, [column.type for column in columns])

    @cached_property
    def takes_statements(self) -> bool:
        """Whether its results may be loaded with further ones, as ``selectinload()`` asks for."""
        return self.expected.takes_statements

    @cached_property
    def may_fail(self) -> bool:
        """Whether Python may refuse what the statement returns, as its own types and classes do."""
        types = [column.type for column in internals.result_columns(self.compiled)]
        if any(_converts(each, self.dialect) for each in types):
            return True
        return bool(types) and self.expected.may_fail


def schemas_of(statement: Any) -> tuple[Any, ...]:
    """Return which schemas a statement names otherwise, as a key: they are no part of its form."""
    return tuple((_options_of(statement).get(SCHEMAS) or {}).items())


def _options_of(statement: Any) -> Mapping[str, Any]:
    options: Mapping[str, Any] = statement.get_execution_options()
    return options


def refuse_control(effects: Effect, sql: str) -> None:
    """Refuse what would not be one statement in one transaction.

    Args:
        effects: Of the statement.
        sql: For the message.

    Raises:
        QueryRefused: It begins or ends a transaction, or is several statements.
    """
    if effects & Effect.CONTROL:
        raise QueryRefused(
            "Each statement of the express lane is one transaction, so it runs no "
            f"transaction control: use a session. {shortened(sql)}"
        )
    if effects & Effect.SEVERAL:
        raise QueryRefused(
            f"The express lane runs one statement at a time, and this is several: {shortened(sql)}"
        )


def _converts(kind: Any, dialect: Dialect) -> bool:
    try:
        return internals.result_converter(kind, dialect) is not None
    except Exception:  # noqa: BLE001 - of a number, of which the server alone says what it sends
        return not isinstance(kind, Numeric | Float)


def _as_the_orm_runs_it(statement: Any) -> Any:
    if isinstance(statement, Insert) and internals.runs_by_orm(statement):
        return internals.annotated_for_orm(statement)
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

    To such a row a session adds the discriminator of its class.
    """
    if not isinstance(statement, Insert) or statement.select is not None:
        return False
    if internals.all_row_values(statement):
        return False
    given = internals.values(statement)
    binds = (value for value in (given or {}).values() if isinstance(value, BindParameter))
    return not given or any(not bind.unique for bind in binds)


def discriminator(mapper: Any) -> dict[str, Any]:
    """Return the discriminator of a mapped class, by the column's key.

    A session's INSERT adds it where the values do not have it.
    """
    column = None if mapper is None else mapper.polymorphic_on
    if column is None or mapper.polymorphic_identity is None:
        return {}
    is_stored = getattr(column, "table", None) is mapper.local_table  # and no expression
    return {column.key: mapper.polymorphic_identity} if is_stored else {}


def _mapper_of(statement: Any) -> Any:
    return getattr(statement.entity_description.get("entity"), "__mapper__", None)
