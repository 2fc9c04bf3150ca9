"""What can go wrong in the express lane, beyond what SQLAlchemy already names."""

from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError

from penstock.base_error import PenstockError
from penstock.deadlines import DeadlineExceeded

UNKNOWN = (
    "The write was sent, and no answer came {}: it may or may not have been saved. Look for it "
    "before repeating it."
)


class ExpressError(PenstockError, InvalidRequestError):
    """The express lane does not do what was called for; nothing was sent."""


class QueryRefused(ExpressError):  # noqa: N818 - it reads as what happened, like SQLAlchemy's
    """A statement that the express lane cannot run as a session would; the message says why."""


class ParameterError(ExpressError):
    """Values that do not fit the statement: the message names what is missing or unknown."""


class LaneEnded(ExpressError):  # noqa: N818 - it reads as what happened
    """A snapshot or a stream was used after its end."""


class CommitOutcomeUnknown(PenstockError, SQLAlchemyError):  # noqa: N818 - as above
    """The COMMIT was sent and its answer was lost: the work may or may not have been saved.

    It is never retried. Look whether the work is there before it is repeated.
    """


def raise_if_unknown(error: DeadlineExceeded) -> None:
    """Say of a write that the time was up for after it had been sent that its outcome is unknown.

    Raises:
        CommitOutcomeUnknown: It had been sent.
    """
    if error.outcome_unknown:
        raise CommitOutcomeUnknown(UNKNOWN.format(f"within {error.limit}")) from error
