"""Which of a statement's results was asked for, and what became of it."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import MultipleResultsFound, NoResultFound

__all__ = ["PICKS_OF_ONE", "every", "first", "one", "one_or_none", "scalar"]


def one(results: Sequence[Any]) -> Any:
    """Return the only result.

    Raises:
        NoResultFound: There is none.
        MultipleResultsFound: There is more than one.
    """
    if len(results) == 1:
        return results[0]
    if results:
        raise MultipleResultsFound(f"One row was expected, and there are {len(results)}")
    raise NoResultFound("One row was expected, and there is none")


def one_or_none(results: Sequence[Any]) -> Any:
    """Return the only result, or None.

    Raises:
        MultipleResultsFound: There is more than one.
    """
    return one(results) if results else None


def first(results: Sequence[Any]) -> Any:
    """Return the first result, or None."""
    return results[0] if results else None


def scalar(results: Sequence[Any]) -> Any:
    """Return the first value of the first result, or None; an instance is a value by itself."""
    found = first(results)
    return found[0] if isinstance(found, Row) else found


def every(results: Sequence[Any]) -> Any:
    """Return all results."""
    return results


PICKS_OF_ONE = frozenset({one, one_or_none})
"""Those that raise where there are several results."""
