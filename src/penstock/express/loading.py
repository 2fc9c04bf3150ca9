"""SQLAlchemy's own loader of mapped classes, at work on rows that no session has fetched."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, Self

from sqlalchemy.orm import Session, loading
from sqlalchemy.orm.context import QueryContext
from sqlalchemy.sql.compiler import SQLCompiler

from penstock.express.bare_session import BareSession
from penstock.express.cursor import Cursor
from penstock.express.further_statements import may_take_statements

__all__ = ["Loading", "Origin"]


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
        self.entities: Sequence[Any] = state._entities  # noqa: SLF001 - no public way to them
        self.mapped = [entity for entity in self.entities if hasattr(entity, "path")]
        self._statement = statement
        self._selected = selected
        self.context = self._context(BareSession(), statement)
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
        entities = getattr(state, "_entities", None)
        if not entities or state.compile_options._is_star:  # noqa: SLF001 - as the ORM itself asks
            return None
        return cls(statement, state, selected, cursor)

    def adapter_of(self, entity: Any) -> Any:
        """Return what finds a mapped class's columns among those of the statement, or None."""
        own = entity._get_entity_clauses(self.state)  # noqa: SLF001 - as the ORM's own loader
        joined = self.state.compound_eager_adapter
        return own.wrap(joined) if own and joined else own or joined

    def are_all_columns_in_order(self) -> bool:
        """Tell whether the driver's rows are the results, value by value."""
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
        # The ORM's loader knows by itself, but for what only the rows tell.
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
            statement: As it was given to the call: of the same form, with criteria of its own.
            origin: Of which call they are, where loading them may take further statements.
        """
        session: Session = BareSession() if origin is None else origin.session
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
