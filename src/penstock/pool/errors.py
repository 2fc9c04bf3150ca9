"""Why the pool gave no connection; SQLAlchemy's own errors are their base classes."""

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeoutError

from penstock.errors import PenstockError
from penstock.pool.refusal import Refused
from penstock.pool.snapshot import PoolSnapshot

__all__ = [
    "LoanReclaimed",
    "NestedCheckout",
    "PoolClosed",
    "PoolFull",
    "PoolInAnotherLoop",
    "PoolSuspended",
    "PoolTimeout",
    "refusal_error",
]


class PoolTimeout(PenstockError, SQLAlchemyTimeoutError):  # noqa: N818 - it reads as what happened
    """No connection came within ``pool_timeout``, or none would have.

    Its ``code`` is that of SQLAlchemy's own, which names the page of its documentation.

    Args:
        message: What happened, how long it took, and the pool's numbers.
        phase: What the asker was waiting for.
        snapshot: The pool's numbers when it gave up.
    """

    code = "3o7r"

    def __init__(
        self,
        message: str,
        phase: Refused = Refused.WAITING,
        snapshot: PoolSnapshot | None = None,
    ) -> None:
        super().__init__(message)
        self.phase = phase
        self.snapshot = snapshot


class PoolFull(PoolTimeout):
    """``max_waiting`` askers were waiting already; this one was not let in."""


class PoolSuspended(PoolTimeout):
    """Lending was suspended, and not resumed within ``pool_timeout``."""


class NestedCheckout(PoolTimeout):
    """A task that holds a connection of a saturated pool asked for another."""


class PoolClosed(PenstockError, InvalidRequestError):  # noqa: N818 - as above
    """The pool was drained: it lends nothing any more."""


class PoolInAnotherLoop(PenstockError, InvalidRequestError):  # noqa: N818 - as above
    """The pool's connections belong to another event loop than the one that asks."""


class LoanReclaimed(PenstockError, InvalidRequestError):  # noqa: N818 - as above
    """A connection was taken from its borrower, who had kept it for too long."""


_WHAT = {
    Refused.WAITING: "every connection stayed lent",
    Refused.CONNECTING: "no new connection was ready in time",
    Refused.SHED: "the queue has been standing, and its oldest are turned away (codel_target)",
    Refused.HOPELESS: "at the pace of the queue, its turn would have come too late",
    Refused.FULL: "as many as may (max_waiting) are waiting already",
    Refused.SUSPENDED: "lending is suspended",
    Refused.CLOSED: "the pool was drained and lends nothing any more",
}
_CLASSES = {Refused.FULL: PoolFull, Refused.SUSPENDED: PoolSuspended}


def refusal_error(
    why: Refused,
    *,
    pool: str,
    timeout: float | None,
    waited: float,
    snapshot: PoolSnapshot,
    limit: str = "",
) -> PoolTimeout | PoolClosed:
    """Put a refusal into words.

    Args:
        why: The phase.
        pool: The pool's name.
        timeout: Its ``pool_timeout``, in seconds; None for none.
        waited: Seconds that the asker waited.
        snapshot: The pool's numbers.
        limit: What bounded the wait more closely than ``pool_timeout``; empty for nothing.
    """
    if why is Refused.CLOSED:
        return PoolClosed(f"No connection from {pool}: {_WHAT[why]}")
    pool_timeout = "none" if timeout is None else f"{timeout:g} s"
    limits = ", ".join(filter(None, (limit, f"pool_timeout={pool_timeout}")))
    message = f"No connection from {pool} after {waited:.3f} s ({limits}): {_WHAT[why]}; {snapshot}"
    return _CLASSES.get(why, PoolTimeout)(message, why, snapshot)
