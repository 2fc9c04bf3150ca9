"""What one worker counts: since its start, and within one second."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from math import nan

__all__ = ["Counters", "Sample"]


@dataclass(frozen=True, slots=True)
class Counters:
    """What has happened since a worker's start.

    Args:
        checkouts: Connections lent.
        waits: Of them, those that had to be waited for.
        checkins: Connections that came back.
        refused: Askers that got none, whatever the reason.
        timeouts: Of them, those whose ``pool_timeout`` passed, not counting a suspended pool's.
        shed: Of them, those turned away at once, for too many waited.
        opened: Connections opened.
        open_failures: Attempts to open one that failed.
        closed: Connections closed.
        short_lived: Of them, those that were younger than a minute and not broken.
        died: Of them, those that the server had closed, that answered no ping, that broke, or that
            the application invalidated.
        mended: Connections saved after a cancelled statement.
        leaks: Loans that lasted longer than ``leak_after``.
        nested: Tasks that asked for a second connection while all were lent.
        slow: Statements that took longer than ``slow_query``.
    """

    checkouts: int = 0
    waits: int = 0
    checkins: int = 0
    refused: int = 0
    timeouts: int = 0
    shed: int = 0
    opened: int = 0
    open_failures: int = 0
    closed: int = 0
    short_lived: int = 0
    died: int = 0
    mended: int = 0
    leaks: int = 0
    nested: int = 0
    slow: int = 0

    def __add__(self, other: "Counters") -> "Counters":
        names = (each.name for each in fields(Counters))
        return Counters(*(getattr(self, name) + getattr(other, name) for name in names))


def _sum(default: int = 0) -> int:
    return field(default=default, metadata={"all": sum})


def _largest(default: float = 0.0) -> float:
    return field(default=default, metadata={"all": _largest_known})


def _largest_known(numbers: Iterable[float]) -> float:
    return max((number for number in numbers if number == number), default=nan)  # noqa: PLR0124 - NaN


@dataclass(frozen=True, slots=True)
class Sample:
    """One second of one worker, or of all of them together.

    Args:
        at: Unix time of its end.
        size: ``pool_size``.
        limit: Connections that may be open at once; 0 for no limit.
        checked_in: Idle connections.
        checked_out: Lent ones.
        overflow: Those above ``size``.
        opening: Those being opened.
        invalid: Those being closed or cleaned up.
        waiting: Askers that wait.
        at_rest: Lent connections, within a transaction, on which no statement has run for five
            seconds or more.
        checkouts: As in :class:`Counters`, within this second, as are all that follow up to
            ``slow``.
        waits: As above.
        checkins: As above.
        refused: As above.
        timeouts: As above.
        shed: As above.
        opened: As above.
        open_failures: As above.
        closed: As above.
        short_lived: As above.
        died: As above.
        slow: As above.
        wait_seconds: Sum of the waits that ended within this second.
        hold_seconds: Sum of the loans that ended within it.
        wait_longest: The longest wait of those, or of those that still wait, in seconds.
        loop_late: Seconds by which the event loop was late for this sample.
        server_connections: Connections of everybody to the server; NaN while not known.
        server_limit: How many it accepts (``max_connections``); NaN while not known.
        replica_lag_bytes: What the replica furthest behind has not replayed; NaN without any.
        replica_lag_seconds: How far that is in time, as the server estimates it; NaN without any.
    """

    at: float
    size: int = _sum()
    limit: int = _sum()
    checked_in: int = _sum()
    checked_out: int = _sum()
    overflow: int = _sum()
    opening: int = _sum()
    invalid: int = _sum()
    waiting: int = _sum()
    at_rest: int = _sum()
    checkouts: int = _sum()
    waits: int = _sum()
    checkins: int = _sum()
    refused: int = _sum()
    timeouts: int = _sum()
    shed: int = _sum()
    opened: int = _sum()
    open_failures: int = _sum()
    closed: int = _sum()
    short_lived: int = _sum()
    died: int = _sum()
    slow: int = _sum()
    wait_seconds: float = field(default=0.0, metadata={"all": sum})
    hold_seconds: float = field(default=0.0, metadata={"all": sum})
    wait_longest: float = _largest()
    loop_late: float = _largest()
    server_connections: float = _largest(nan)
    server_limit: float = _largest(nan)
    replica_lag_bytes: float = _largest(nan)
    replica_lag_seconds: float = _largest(nan)

    @property
    def utilisation(self) -> float:
        """Share of ``limit`` that is lent, from 0.0 to 1.0; 0.0 where there is no limit."""
        return self.checked_out / self.limit if self.limit else 0.0

    @staticmethod
    def of_all(samples: Sequence["Sample"]) -> "Sample":
        """Return the sample of several workers together, for one second.

        Args:
            samples: One of each worker; at least one.
        """
        together = {
            each.name: each.metadata["all"]([getattr(sample, each.name) for sample in samples])
            for each in fields(Sample)
            if each.name != "at"
        }
        return Sample(max(sample.at for sample in samples), **together)
