"""What is remembered of one database's last minutes."""

from dataclasses import dataclass, field
from itertools import zip_longest

from penstock.watch.document import Part

__all__ = ["History", "Moment"]

_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Moment:
    """One second.

    Args:
        checked_out: Checked out connections.
        waiting: Callers that wait.
        checkouts: Connections checked out within it.
        refused: Callers that got none within it.
    """

    checked_out: float
    waiting: float
    checkouts: float
    refused: float


@dataclass(slots=True)
class History:
    """The last 15 minutes, to which each document adds what it knows."""

    _moments: dict[int, Moment] = field(default_factory=dict)

    def add(self, columns: Part) -> None:
        """Take what a document says of one second or of many.

        Args:
            columns: Its ``history``: a list for each field, all of one length.
        """
        names = ("checked_out", "waiting", "checkouts", "refused")
        rows = zip_longest(columns.column("at"), *map(columns.column, names))
        for at, *numbers in rows:
            if at is not None:
                self._moments[int(at)] = Moment(*(number or 0.0 for number in numbers))
        newest = self.newest
        self._moments = {
            at: moment
            for at, moment in sorted(self._moments.items())
            if newest - _SECONDS < at <= newest
        }

    @property
    def newest(self) -> int:
        """Unix time of the newest second; 0 without any."""
        return max(self._moments, default=0)

    def last(self, seconds: int) -> list[Moment]:
        """Return what is known of the last seconds, oldest first."""
        newest = self.newest
        return [moment for at, moment in self._moments.items() if at > newest - seconds]

    def peaks(self, name: str, columns: int, seconds: int) -> list[float | None]:
        """Return the highest numbers of even stretches of time.

        Args:
            name: A field of :class:`Moment`.
            columns: How many stretches, the last with the newest second.
            seconds: How long each is. They begin at multiples of it, so that a peak moves on
                as a whole.

        Returns:
            One number for each, oldest first; None where nothing is known.
        """
        last = self.newest // seconds
        found = self._highest(name, seconds)
        return [found.get(stretch) for stretch in range(last - columns + 1, last + 1)]

    def _highest(self, name: str, seconds: int) -> dict[int, float]:
        highest: dict[int, float] = {}
        for at, moment in self._moments.items():
            number: float = getattr(moment, name)
            highest[at // seconds] = max(number, highest.get(at // seconds, number))
        return highest
