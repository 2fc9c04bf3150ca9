"""How a number of connections is divided among members."""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from penstock.fleet.member import Member

FLOOR = 1
"""Connections that each member has, however many members there are."""


def divide(budget: int, members: Iterable[Member]) -> dict[str, int]:
    """Divide connections in proportion to the members' weights.

    Whole numbers are made by the method of Webster and Sainte-Lague: each connection goes to the
    member with the lowest ``(2 * share + 1) / weight``. Unlike the largest remainder, it never
    gives a member more when the budget falls or another member joins. So members that see slightly
    different fleets still do not take more together than the largest budget that one of them sees.

    Args:
        budget: Connections for all of them.
        members: What each can use at most bounds its share; the rest goes to the others.

    Returns:
        Each member's share by its id: the same for all that see the same members. At least
        ``FLOOR``, so that the sum is above a budget that is smaller than the fleet.
    """
    each = list(members)
    shares = {member.id: FLOOR for member in each}
    queue = [(_rank(member, FLOOR), member.id, member) for member in each if member.most > FLOOR]
    heapify(queue)
    for _ in range(budget - FLOOR * len(each)):
        if not queue:
            break
        _, name, member = heappop(queue)
        shares[name] += 1
        if shares[name] < member.most:
            heappush(queue, (_rank(member, shares[name]), name, member))
    return shares


def _rank(member: Member, share: int) -> float:
    return (2 * share + 1) / member.weight
