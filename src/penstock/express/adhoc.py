"""Statements that were not prepared: compiled once for each form, and found again by it."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from penstock.express.lanes import Call
from penstock.express.plan import schemas_of
from penstock.express.query import Query, query
from penstock.express.refusals import refuse_options

__all__ = ["AdHocQueries"]

SIZE = 500
"""Forms that are kept, as many as SQLAlchemy's own cache keeps."""


class AdHocQueries:
    """The forms of statements that were seen, the one that was not used for longest dropped first.

    Args:
        size: How many are kept.
    """

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._queries: OrderedDict[Any, Query[Any]] = OrderedDict()

    def call(self, statement: Any, values: Mapping[str, Any]) -> Call:
        """Return a call of the query for a statement's form.

        Args:
            statement: What is to be run.
            values: Of its named parameters.

        Raises:
            QueryRefused: As :func:`query` says.
        """
        form = getattr(statement, "_generate_cache_key", lambda: None)()
        if form is None:
            return Call(query(statement), values)
        # Of which parameters a value has to be given is no part of the form, nor are other schemas.
        key = form.key, tuple([bind.required for bind in form.bindparams]), schemas_of(statement)
        known = self._queries.get(key)
        if known is not None:
            refuse_options(statement)  # which are no part of its form
        if known is None:
            known = self._queries[key] = query(statement)
            if len(self._queries) > self._size:
                self._queries.popitem(last=False)
        else:
            self._queries.move_to_end(key)
        return Call(known, values, (statement, form.bindparams))
