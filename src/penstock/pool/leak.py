"""What is told of a loan that lasts too long."""

from dataclasses import dataclass

__all__ = ["LeakReport"]


@dataclass(frozen=True, slots=True)
class LeakReport:
    """A connection that has been lent for longer than ``leak_after``.

    Args:
        seconds: How long it has been lent.
        route: Where the request went, such as ``GET /users/{user_id}``; None outside requests.
        borrowed_at: Stack of the checkout, innermost frame last.
        holder_at: Stack of where the borrower is now; empty where it has gone.
        statement: The last statement, cut, without values and literals; None where none is known.
        reclaimed: Whether the connection is taken back by force.
    """

    seconds: float
    route: str | None
    borrowed_at: str
    holder_at: str
    statement: str | None
    reclaimed: bool

    def __str__(self) -> str:
        return (
            f"A connection has been lent for {self.seconds:.1f} s"
            f"{f' to {self.route}' if self.route else ''}"
            f"{', and is now taken back' if self.reclaimed else ''}. "
            f"Its last statement: {self.statement or 'not known'}.\n"
            f"Borrowed at:\n{self.borrowed_at}"
            f"The borrower is now at:\n{self.holder_at or '  (it has ended)' + chr(10)}"
        )
