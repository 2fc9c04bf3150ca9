"""The pool's numbers at one moment, in SQLAlchemy's terms."""

from dataclasses import dataclass

__all__ = ["PoolSnapshot"]


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """An immutable reading of one pool.

    Args:
        size: Connections that the pool keeps (``pool_size``).
        limit: Connections that it may have open at once (``pool_size + max_overflow``);
            0 where the pool keeps none and sets no limit (serverless).
        checked_in: Open connections that wait in the pool.
        checked_out: Connections that are checked out.
        overflow: Checked out or open connections above ``size``; never negative.
        opening: Connections that are being opened.
        invalid: Connections that are being closed, or cleaned up after a cancelled query.
        waiting: Callers that wait for a connection.
        suspended: Whether checkout is suspended.
        closed: Whether the pool hands out nothing any more.
        opened_total: Connections opened so far.
        closed_total: Connections closed so far.
        open_failures_total: Connections that could not be opened so far.
        rejected_total: Callers that got no connection so far.
        last_open_error: What the newest failure to open a connection was, while it lasts.
    """

    size: int
    limit: int
    checked_in: int
    checked_out: int
    overflow: int
    opening: int = 0
    invalid: int = 0
    waiting: int = 0
    suspended: bool = False
    closed: bool = False
    opened_total: int = 0
    closed_total: int = 0
    open_failures_total: int = 0
    rejected_total: int = 0
    last_open_error: str | None = None

    @property
    def utilisation(self) -> float:
        """Share of ``limit`` that is checked out, from 0.0 to 1.0; 0.0 where there is no limit."""
        return self.checked_out / self.limit if self.limit else 0.0

    def __str__(self) -> str:
        text = (
            f"{self.checked_out} of {self.limit or 'any number'} connections checked out, "
            f"{self.checked_in} idle, {self.opening} opening, {self.invalid} being closed or "
            f"cleaned up, {self.waiting} waiting"
        )
        if self.last_open_error:
            text += f"; the last attempt to connect failed: {self.last_open_error}"
        return text
