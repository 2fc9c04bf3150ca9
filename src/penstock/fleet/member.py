"""A member of the fleet, and how the server shows it: by the names of its connections."""

import re
import secrets
from dataclasses import dataclass
from typing import Self

LONGEST_NAME = 63
"""Bytes of an ``application_name``, of which PostgreSQL cuts what is longer (NAMEDATALEN - 1)."""
LARGEST_WEIGHT = 1000
LARGEST_POOL = 2000
"""The largest ``pool_size`` and the largest ``max_overflow`` together."""

_NAME = re.compile(r" fleet:([0-9a-f]{8})/([1-9]\d{0,3})/([1-9]\d{0,3})\Z")


@dataclass(frozen=True, slots=True)
class Member:
    """One process of the fleet.

    Args:
        id: Tells it from the others; eight hexadecimal digits.
        weight: Its share in proportion to the others' weights, from 1 to 1000.
        most: Connections that it can use: its configured ``pool_size`` and ``max_overflow``.
    """

    id: str
    weight: int
    most: int

    @classmethod
    def new(cls, weight: int, most: int) -> Self:
        """Return a member with an id that no other has."""
        return cls(secrets.token_hex(4), weight, most)

    @classmethod
    def of_name(cls, application_name: str) -> Self | None:
        """Return whose connection has this name; None where it is no member's."""
        found = _NAME.search(application_name)
        if found is None:
            return None
        member = cls(found[1], int(found[2]), int(found[3]))
        return member if member.weight <= LARGEST_WEIGHT and member.most <= LARGEST_POOL else None

    def name(self, application_name: str) -> str:
        """Return the name of the member's connections.

        Args:
            application_name: What it begins with, as far as there is room.
        """
        suffix = f" fleet:{self.id}/{self.weight}/{self.most}"
        room = LONGEST_NAME - len(suffix)
        return application_name.encode()[:room].decode(errors="ignore") + suffix
