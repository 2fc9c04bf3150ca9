"""A member's share: how many connections it may have, by what it has seen of the fleet."""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.fleet.division import FLOOR, divide
from penstock.fleet.member import Member
from penstock.fleet.view import View

CLAIM_WINDOW = 3.0
"""Seconds for which a connection that another member had, or was due, counts as taken: more than
twice as long as a member takes to look again, and to shrink."""
FORGOTTEN_AFTER = 600.0
"""Seconds after which a member that was not seen is new when it comes back."""
OUTSIDE_WINDOW = 30.0
"""Seconds for which connections of other clients count after they are closed, so that shares do not
change with each of them."""


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """The fleet at one moment, as one member sees it.

    Args:
        share: Connections that this member may have.
        members: Processes that divide the budget, this one included.
        budget: Connections that they divide.
        outside: Connections of other clients, which are not in the budget.
    """

    share: int
    members: int
    budget: int
    outside: int

    def __str__(self) -> str:
        return (
            f"{self.share} of {self.budget} connections, for {self.members} member(s); "
            f"{self.outside} of other clients"
        )


class Share:
    """Decides on one member's share, without I/O and without a clock.

    It falls at once to what the division says. It rises only into what no other member has had, or
    may have taken, in the last ``CLAIM_WINDOW``: the others shrink first. So a member that joins is
    at its floor until it has seen the fleet for so long, even if it seems to be the only one.

    Args:
        member: Whose.
        reserve: Share of the server's connections that is left to other clients, 0.0 to 1.0.
        surge: Share of the fleet's connections that is not divided, for members that join.
    """

    def __init__(self, member: Member, *, reserve: float, surge: float) -> None:
        self.member = member
        self._reserve = reserve
        self._surge = surge
        self._claims: deque[tuple[float, dict[str, int]]] = deque()
        """What the others had or may have taken, at each moment of the window."""
        self._outside: deque[tuple[float, int]] = deque()
        self._watching_since = math.inf
        """When the first view came, of those that have come without a long gap."""
        self._last_look = -math.inf
        """When the last view was asked for; no member that it lacks had joined by then."""
        self._others: dict[str, _Sighting] = {}
        self.snapshot = FleetSnapshot(FLOOR, 1, FLOOR, 0)

    def update(self, view: View, asked_at: float, now: float) -> None:
        """Decide anew.

        Args:
            view: The fleet as it is now, with or without this member.
            asked_at: When the view was asked for.
            now: The time.
        """
        outside = self._outside_of(view, now)
        allowed = view.limits.allowed(self._reserve) - outside
        budget = max(0, math.floor(allowed * (1 - self._surge)))
        members = {self.member, *view.connections}
        due = divide(budget, members)
        target = due.pop(self.member.id)
        if not self._claims or now - self._claims[-1][0] > CLAIM_WINDOW:
            self._watching_since, self._last_look = now, -math.inf
        self._record_sightings(due, now)
        self._claim(view, due, now)
        self._last_look = asked_at
        share = self.snapshot.share
        if target > share and now - self._watching_since >= CLAIM_WINDOW:
            share = max(share, min(target, budget - self._claimed()))
        self.snapshot = FleetSnapshot(min(share, target), len(members), budget, outside)

    def _outside_of(self, view: View, now: float) -> int:
        self._outside.append((now, view.outside))
        while self._outside[0][0] < now - OUTSIDE_WINDOW:
            self._outside.popleft()
        return max(count for _, count in self._outside)

    def _record_sightings(self, others: Iterable[str], now: float) -> None:
        for name in others:
            known = self._others.get(name)
            joined_after = self._last_look if known is None else known.joined_after
            self._others[name] = _Sighting(joined_after, now)
        for name, sighting in list(self._others.items()):
            if sighting.seen_at < now - FORGOTTEN_AFTER:
                del self._others[name]

    def _claim(self, view: View, due: Mapping[str, int], now: float) -> None:
        claims = {member.id: count for member, count in view.connections.items()}
        claims.pop(self.member.id, None)
        for name, share in due.items():
            is_new = now - self._others[name].joined_after < CLAIM_WINDOW  # and so at its floor
            claims[name] = max(claims[name], FLOOR if is_new else share)
        self._claims.append((now, claims))
        while self._claims[0][0] < now - CLAIM_WINDOW:
            self._claims.popleft()

    def _claimed(self) -> int:
        most: dict[str, int] = {}
        for _, claims in self._claims:
            for name, claim in claims.items():
                most[name] = max(claim, most.get(name, 0))
        return sum(most.values())


@dataclass(frozen=True, slots=True)
class _Sighting:
    """What is known of another member.

    Args:
        joined_after: A time at which it had not joined yet.
        seen_at: When it was seen last.
    """

    joined_after: float
    seen_at: float
