"""Why a service cannot be watched."""

from penstock.errors import PenstockError

__all__ = ["WatchError"]


class WatchError(PenstockError):
    """A service could not be reached, or gave another answer than its live document.

    The message has the remedy. It never has a header's value.
    """
