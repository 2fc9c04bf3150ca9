"""A session with no connection: what SQLAlchemy's loaders and listeners take for one."""

from typing import Any, NoReturn

from sqlalchemy.orm import Session

from penstock.express.errors import ExpressError

__all__ = ["BareSession"]


class BareSession(Session):
    """Holds the instances of one result while they are loaded, and refuses all else.

    Args:
        dispatch: SQLAlchemy's, of the listeners that hear it; None for those of all sessions.

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
        """Raise: it would be empty, and whoever filters by it would not be told."""
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
