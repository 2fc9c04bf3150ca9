"""Instances of mapped classes, made by SQLAlchemy's own loader without a session."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, NoReturn, Self

from sqlalchemy.engine.cursor import CursorResultMetaData
from sqlalchemy.engine.result import IteratorResult
from sqlalchemy.orm import Mapper, Session, attributes, loading
from sqlalchemy.orm.context import QueryContext
from sqlalchemy.sql.compiler import SQLCompiler

from penstock.drivers import sqlalchemy_internals as internals
from penstock.express.errors import ExpressError


class UnboundSession(Session):
    """Holds the instances of one result while they are loaded, and refuses all else.

    Args:
        dispatch: SQLAlchemy's, of the listeners that are called; None for those of all sessions.

    Attributes:
        refusal: What was raised to a listener, which may have passed over it.
    """

    def __init__(self, dispatch: Any = None) -> None:
        super().__init__(autoflush=False)
        self.refusal: ExpressError | None = None
        if dispatch is not None:
            self.dispatch = dispatch

    @property
    def info(self) -> Any:
        """Raise: it would be empty, and a filter that reads it would let everything pass."""
        raise ExpressError(
            "A do_orm_execute listener asks for session.info, and the express lane has no session: "
            "take what it needs from a context variable, or run the statement in a session."
        )

    def refuse(self, *_: Any, **__: Any) -> NoReturn:
        """Raise: the transaction is the lane's, which writes by one statement."""
        self.refusal = ExpressError(
            "What listens to the load of instances writes, asks for the connection, or ends the "
            "transaction, for which it takes a session: run the statement in one."
        )
        raise self.refusal

    begin_nested = commit = connection = flush = rollback = refuse

    def get_bind(self, *_: Any, **__: Any) -> Any:
        """Return nothing: there is no other connection than the lane's."""

    def _connection_for_bind(self, *_: Any, **__: Any) -> Any:
        raise ExpressError(
            "What listens to do_orm_execute or to the load of instances runs statements itself, "
            "for which the express lane has no connection: run this in a session."
        )


Description = Sequence[tuple[Any, ...]]
"""The columns as PEP 249's ``cursor.description`` has them."""


class Cursor:
    """The columns of a statement's result, by SQLAlchemy's own rules.

    Args:
        compiled: The statement.
        description: Its columns, as the server names them.
        converts: Whether their values will be converted; False where only names matter.

    Attributes:
        metadata: Where each column is, by name and by object.
        names: As the server has them.
        is_fixed: Whether the statement itself says what its columns are; if not, as with
            ``SELECT *``, they are what the tables have at the moment.
        processors: What converts each of the driver's values; None where none has to be.
    """

    def __init__(
        self, compiled: SQLCompiler, description: Description, *, converts: bool = True
    ) -> None:
        self._context = _Context(compiled, converts)
        parent: Any = _Parent(self._context)
        self.metadata = CursorResultMetaData(parent, description)
        processors = internals.result_converters(self.metadata)
        self.processors = processors if any(processors) else None
        self.width = len(processors)
        self.names = tuple(column[0] for column in description)
        self.is_fixed = internals.safe_for_cache(self.metadata)

    def result(self, rows: Iterable[Sequence[Any]] = ()) -> Any:
        """Return a result over the driver's rows, which converts their values."""
        result: Any = IteratorResult(self.metadata, iter(rows))
        result.context = self._context  # the ORM's loader asks whether rows come from a cursor
        return result


class _Parent:
    def __init__(self, context: "_Context") -> None:
        self.context = context


class _Context:
    """What the metadata asks of an execution."""

    _is_server_side = False
    _translate_colname = None
    root_connection = None

    def __init__(self, compiled: SQLCompiler, converts: bool) -> None:
        self.compiled = compiled
        self.dialect = compiled.dialect
        self._converts = converts
        self.result_column_struct = internals.column_structure(compiled)

    def get_result_processor(self, kind: Any, _name: str, coltype: Any) -> Any:
        return internals.result_converter(kind, self.dialect, coltype) if self._converts else None


_FURTHER = frozenset({"selectin", "subquery", "immediate"})


def may_take_statements(state: Any) -> bool:
    """Return whether subclasses, or listeners to what is loaded, may take further statements.

    The ORM's loader looks at a subclass when its first instance comes, and a listener may do
    anything.

    Args:
        state: What the ORM found out as it compiled the statement.
    """
    options = [
        option
        for key, option in state.attributes.items()
        if isinstance(key, tuple) and key[0] == "loader"
    ]
    loaded = [entity.mapper for entity in internals.entities(state) if hasattr(entity, "path")]
    loaded += [mapper for option in options for mapper in _mappers_on(option.path)]
    reached = _reached(loaded)
    subclasses = [mapper for mapper in reached if mapper.inherits is not None]
    return (
        any(mapper.class_manager.dispatch.load for mapper in reached)
        or any(map(_takes_further, subclasses))
        or (bool(subclasses) and any(_is_further(option.strategy) for option in options))
    )


def _mappers_on(path: Any) -> Iterator[Mapper[Any]]:
    for element in path.path:
        mapper = getattr(element, "mapper", None)  # of a relationship, the target's
        if mapper is not None:
            yield mapper


def _reached(mappers: list[Mapper[Any]]) -> set[Mapper[Any]]:
    """Return the mappers of all that may be loaded: subclasses, and what is joined to them."""
    left, reached = list(mappers), set[Mapper[Any]]()
    while left:
        mapper = left.pop()
        if mapper not in reached:
            reached.add(mapper)
            left += mapper.self_and_descendants
            left += [r.mapper for r in mapper.relationships if _lazy(r.strategy_key) == "joined"]
    return reached


def _takes_further(mapper: Mapper[Any]) -> bool:
    return mapper.polymorphic_load == "selectin" or any(
        _lazy(relationship.strategy_key) in _FURTHER for relationship in mapper.relationships
    )


def _is_further(strategy: Any) -> bool:
    return _lazy(strategy) in _FURTHER or "selectinload_polymorphic" in dict(strategy or ())


def _lazy(strategy: Any) -> Any:
    return dict(strategy or ()).get("lazy")


class Origin(NamedTuple):
    """What further statements need to know of the call whose results are loaded."""

    session: Session
    """Runs them."""
    values: Mapping[str, Any]
    """Of its named parameters."""


class Loading:
    """How a statement's mapped classes are loaded.

    Args:
        statement: As it was given.
        state: What the ORM found out as it compiled the statement.
        selected: The statement that the ORM loads from.
        cursor: The columns of its result.

    Attributes:
        entities: What is selected: mapped classes, columns, bundles.
        mapped: The mapped classes among them.
        labels: Their names in a row.
        extra: Other keys by which a row finds them.
        getters: What makes each of them of one of the driver's rows; of no use for instances,
            which need a session.
    """

    def __init__(self, statement: Any, state: Any, selected: Any, cursor: Cursor) -> None:
        self.state = state
        self.cursor = cursor
        self.entities: Sequence[Any] = internals.entities(state)
        self.mapped = [entity for entity in self.entities if hasattr(entity, "path")]
        self._statement = statement
        self._selected = selected
        self.context = self._context(UnboundSession(), statement)
        # As the ORM's own loader begins.
        self.context.runid, self.context.post_load_paths = 0, {}
        made = [e.row_processor(self.context, cursor.result()) for e in self.entities]
        self.getters, labels, extra = zip(*made, strict=True)
        self.labels, self.extra = list(labels), list(extra)
        self.is_single = len(made) == 1 and self.entities[0].supports_single_entity
        self.is_collected = bool(state.multi_row_eager_loaders)

    @classmethod
    def of(cls, statement: Any, compiled: SQLCompiler, cursor: Cursor) -> Self | None:
        """Return how a statement is loaded; None where the ORM has no part in it."""
        state: Any = compiled.compile_state
        selected = getattr(state, "select_statement", statement)
        state = getattr(state, "from_statement_ctx", None) or state
        if not internals.entities(state) or internals.is_star(state):
            return None
        return cls(statement, state, selected, cursor)

    def adapter_of(self, entity: Any) -> Any:
        """Return what finds a mapped class's columns among those of the statement, or None."""
        own = internals.entity_columns(entity, self.state)
        joined = self.state.compound_eager_adapter
        return own.wrap(joined) if own and joined else own or joined

    def are_all_columns_in_order(self) -> bool:
        """Return whether the driver's rows are the results, value by value."""
        if any(not isinstance(getter, itemgetter) for getter in self.getters):
            return False
        positions = tuple(range(self.cursor.width))
        return tuple(getter(positions) for getter in self.getters) == positions

    @property
    def takes_all_rows(self) -> bool:
        """Whether no result is whole before the last row has come."""
        context: Any = self.context
        return bool(context.loaders_require_buffering or context.loaders_require_uniquing)

    def takes_statements(self) -> bool:
        """Return whether loading may take further statements, as ``selectinload()`` does."""
        context: Any = self.context
        # The ORM's loader knows by itself, but for what depends on the rows.
        return bool(
            context.post_load_paths
            or context.loaders_require_buffering
            or may_take_statements(self.state)
        )

    def load(
        self, records: Sequence[Sequence[Any]], statement: Any, origin: Origin | None = None
    ) -> list[Any]:
        """Return the results, detached, as a session would have loaded them.

        Args:
            records: The driver's rows; the loader itself converts their values.
            statement: As it was given to the call: of the same form, with its criteria.
            origin: Of which call they are, where loading them may take further statements.
        """
        session: Session = UnboundSession() if origin is None else origin.session
        context = self._context(session, statement, {} if origin is None else origin.values)
        result = loading.instances(self.cursor.result(records), context)
        if self.is_collected:
            result = result.unique()
        results = (result.scalars() if self.is_single else result).all()
        session.expunge_all()
        return list(results)

    def _context(
        self, session: Session, statement: Any, values: Mapping[str, Any] | None = None
    ) -> QueryContext:
        is_as_given = self._selected is self._statement
        return QueryContext(
            self.state,
            statement if is_as_given else self._selected,
            statement,
            values or {},
            session,
            QueryContext.default_load_options,
        )


_NOTHING = frozenset({None})

_Made = dict[tuple[Any, ...], Any]
"""The instances of one result by primary key: the same row twice is the same instance."""


class Entity:
    """A mapped class whose instances need nothing but the values of their columns.

    Args:
        mapper: Of the class.
        columns: Attribute names, and what takes each value from a row.
        key: What takes the primary key from a row.
        expired: Attributes that were not loaded, though nothing defers them.
    """

    def __init__(
        self,
        mapper: Any,
        columns: Sequence[tuple[str, Callable[[Any], Any]]],
        key: Callable[[Any], tuple[Any, ...]],
        expired: Sequence[str],
    ) -> None:
        self._names = tuple(name for name, _ in columns)
        self._values = _getter([getter for _, getter in columns])
        self._key = key
        self._expired = expired
        self._new_instance = mapper.class_manager.new_instance
        self._identity_class = internals.identity_class(mapper)
        self._is_absent = _NOTHING.issuperset if mapper.allow_partial_pks else _NOTHING.intersection

    def instance(self, row: Sequence[Any], made: _Made) -> Any:
        """Return the row's instance; None where its primary key is NULL.

        Args:
            row: With its values converted.
            made: The instances of the rows before.
        """
        key = self._key(row)
        instance = made.get(key)
        if instance is not None or self._is_absent(key):
            return instance
        made[key] = instance = self._new_instance()
        state = attributes.instance_state(instance)
        state.key = (self._identity_class, key, None)
        attributes.instance_dict(instance).update(zip(self._names, self._values(row), strict=True))
        if self._expired:
            state.expired_attributes.update(self._expired)
        return instance


class EntityParts:
    """What the results of a statement are made of.

    Args:
        parts: For each part of a result a mapped class, or what takes a column from a row.
    """

    def __init__(self, parts: Sequence[Entity | Callable[[Any], Any]]) -> None:
        self._parts = parts

    @classmethod
    def of(cls, loading: Loading) -> Self | None:
        """Return the parts of a statement; None where only the ORM's own loader will do."""
        classes = [internals.identity_class(entity.mapper) for entity in loading.mapped]
        if len(set(classes)) < len(classes):
            return None  # an instance may be in two parts of a row
        parts = []
        for entity, getter in zip(loading.entities, loading.getters, strict=True):
            part = getter if isinstance(getter, itemgetter) else _entity(entity, loading)
            if part is None:
                return None
            parts.append(part)
        return cls(parts)

    def instances(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the instances of the one mapped class."""
        make: Any = self._parts[0]
        made: _Made = {}
        return [make.instance(row, made) for row in rows]

    def tuples(self, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Return the parts of each row."""
        made = [(part, _Made()) for part in self._parts]
        return [tuple([_part(part, row, seen) for part, seen in made]) for row in rows]


def _part(part: Any, row: Sequence[Any], made: _Made) -> Any:
    return part.instance(row, made) if part.__class__ is Entity else part(row)


def _entity(entity: Any, loading: Loading) -> Entity | None:
    if entity not in loading.mapped:
        return None
    mapper = entity.mapper
    if mapper.polymorphic_map or mapper.class_manager.dispatch.load:
        return None
    if loading.context.propagated_loader_options or loading.is_collected:
        return None
    getters = entity.path.get(loading.state.attributes, ("getters", mapper), None)
    if getters is None:
        return None
    populators = {name: list(found) for name, found in getters["cached_populators"].items()}
    result, adapter = loading.cursor.result(), loading.adapter_of(entity)
    for prop in getters["todo"]:
        prop.create_row_processor(
            loading.context, entity, entity.path, mapper, result, adapter, populators
        )
    columns = populators.pop("quick")
    expired = [name for name, is_callable in populators.pop("expire") if is_callable]
    if any(populators.values()):
        return None
    return Entity(mapper, columns, getters["primary_key_getter"], expired)


def _getter(getters: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Sequence[Any]]:
    """Return what takes several values from a row at once, where that can be."""
    if not all(isinstance(getter, itemgetter) for getter in getters) or len(getters) < 2:
        return lambda row: [getter(row) for getter in getters]
    positions = [getter.__reduce__()[1][0] for getter in getters]
    return itemgetter(*positions)
