"""Listeners to ``do_orm_execute``, such as filters of tenants and of deleted rows."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

from sqlalchemy.orm import ORMExecuteState, Session
from sqlalchemy.sql.base import CompileState
from sqlalchemy.util import immutabledict

from penstock.express.adhoc import AdHocQueries
from penstock.express.bare_session import BareSession
from penstock.express.errors import ExpressError
from penstock.express.lanes import Call
from penstock.express.query import Query, as_query

__all__ = ["ExecuteListeners"]


class ExecuteListeners:
    """Those that listen to a class of sessions: ``event.listen(Session, "do_orm_execute", ...)``.

    They are asked of each statement before it runs, as a session asks them.

    Args:
        session_class: The class; listeners to those above it are among them.

    Attributes:
        dispatch: SQLAlchemy's, of all that listen to the class.
    """

    def __init__(self, session_class: type[Session]) -> None:
        self.dispatch: Any = session_class.__new__(session_class).dispatch
        self._session = BareSession(self.dispatch)
        self._listeners: Any = self.dispatch.do_orm_execute
        self._adhoc = AdHocQueries()

    def heard(self, call: Call) -> Call:
        """Return a call as the listeners would have it.

        Args:
            call: Returned as it is where nobody listens or changes it.

        Raises:
            ExpressError: A listener has done what takes a session.
        """
        if not self._listeners or call.is_heard:
            return call
        given = call.values if call.rows is None else call.rows
        statement, values = self._ask(call.statement, given)
        heard = copy(call)  # for a stream may be opened again
        if statement is not call.statement or values is not given:
            heard = self._adhoc.call(statement, {} if call.rows is not None else values)
            heard.settings, heard.rows = call.settings, None if call.rows is None else values
        heard.is_heard = True
        return heard

    def heard_many(
        self, query: Query[Any], rows: Sequence[Mapping[str, Any]]
    ) -> tuple[Query[Any], Sequence[Mapping[str, Any]]]:
        """Return a query and its rows as the listeners would have them.

        Args:
            query: For each of the rows.
            rows: Values by name.

        Raises:
            ExpressError: As above.
        """
        if not self._listeners:
            return query, rows
        statement, rows = self._ask(query.statement, rows)
        return query if statement is query.statement else as_query(statement), rows

    def _ask(self, given: Any, values: Any) -> tuple[Any, Any]:
        state = self._state(given, values)
        begun = state.statement
        for number, listener in enumerate(self._listeners):
            state._starting_event_idx = number  # noqa: SLF001 - as a session does
            if listener(state):
                raise ExpressError(
                    "A do_orm_execute listener returns a result of its own, which the express "
                    "lane cannot give: run the statement in a session."
                )
        options = state._update_execution_options  # noqa: SLF001 - no public way to them
        statement: Any = given if state.statement is begun else state.statement
        if options:
            statement = statement.execution_options(**options)
        return statement, state.parameters

    def _state(self, statement: Any, values: Any) -> ORMExecuteState:
        arguments: dict[str, Any] = {"clause": statement}
        options: Any = immutabledict()
        kind: Any = None
        if statement._propagate_attrs.get("compile_state_plugin") == "orm":  # noqa: SLF001 - as a session asks
            kind = CompileState._get_plugin_class_for_plugin(statement, "orm")  # noqa: SLF001 - as above
            statement, options, _ = kind.orm_pre_session_exec(
                self._session, statement, None, options, arguments, True
            )
        return ORMExecuteState(
            self._session, statement, values, options, arguments, kind, self._listeners
        )
