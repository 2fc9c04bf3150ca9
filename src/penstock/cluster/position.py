"""How far a database has been written, and what a read has to have seen of it."""

import base64
import hashlib
import hmac
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import ceil, inf
from time import time
from typing import Any, Literal, Self

from penstock.base_error import PenstockError

_VERSION = b"1"
_MAC_BYTES = 16
"""Half of SHA-256's: a forger has 2**128 to choose from."""
_LONGEST_TOKEN = 96
"""Characters: a version, three numbers of up to 20 digits, three colons, and the signature."""
LARGEST_LSN = 2**64 - 1


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a database's write-ahead log: what is before it has been written.

    It is a value: it may be kept, compared, and sent along with a job through a queue, as text.

    Args:
        timeline: Which history of the server it is a place in; each promotion begins a new one.
        lsn: Bytes from the beginning of the log, as ``pg_lsn`` counts them.
        written_at: When it was reached at the latest, in seconds since the epoch.
    """

    timeline: int
    lsn: int
    written_at: float = field(default_factory=time, compare=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position that ``str()`` has made a text of.

        Args:
            text: Such as ``1:0/3000148``.

        Raises:
            PenstockError: It is something else.
        """
        timeline, _, lsn = text.partition(":")
        high, _, low = lsn.partition("/")
        try:
            position = cls(int(timeline), int(high, 16) << 32 | int(low, 16))
        except ValueError:
            position = cls(0, -1)
        if not (position.timeline >= 0 and 0 <= position.lsn <= LARGEST_LSN):
            raise PenstockError(
                f"{text[:40]!r} is no position: such as '1:0/3000148' is accepted, as "
                "str(await database.position()) has it."
            )
        return position

    def __str__(self) -> str:
        return f"{self.timeline}:{self.lsn >> 32:X}/{self.lsn & 0xFFFFFFFF:X}"


UNKNOWN = Position(2**31 - 1, LARGEST_LSN, inf)
"""Of a write whose position could not be found out: no replica is known to have it."""


class PositionTokens:
    """Makes texts of positions that nobody else can make, and reads them.

    Args:
        key: A secret, the same in all processes that read each other's tokens.
        database: What tells the database from others that share the key, such as its name.
        lifetime: Seconds for which a token counts; replicas that are further behind serve nothing.
    """

    def __init__(self, key: bytes, database: str, lifetime: float) -> None:
        self._key = hmac.digest(key, b"penstock position\0" + database.encode(), hashlib.sha256)
        self.lifetime = lifetime

    def write(self, position: Position, now: float | None = None) -> str:
        """Return the token of a position.

        Args:
            position: Of a write that is committed.
            now: Seconds since the epoch; None for the clock's.
        """
        expiry = ceil((time() if now is None else now) + self.lifetime)
        said = b"%b.%d.%d.%d" % (_VERSION, position.timeline, position.lsn, expiry)
        return f"{said.decode()}.{self._signature(said)}"

    def read(self, token: str, now: float | None = None) -> Position | None:
        """Return the position of a token; None where it is forged, foreign, expired or absurd.

        Args:
            token: Whatever a client has sent.
            now: Seconds since the epoch; None for the clock's.
        """
        if len(token) > _LONGEST_TOKEN or not token.isascii():
            return None
        said, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._signature(said.encode()), signature):
            return None
        version, timeline, lsn, expiry = said.split(".")  # as it is signed, it has these
        now = time() if now is None else now
        is_current = now <= int(expiry) <= now + self.lifetime + 1
        if not is_current or version != "1":
            return None
        return Position(int(timeline), int(lsn), int(expiry) - self.lifetime)

    def _signature(self, said: bytes) -> str:
        mac = hmac.digest(self._key, said, hashlib.sha256)[:_MAC_BYTES]
        return base64.urlsafe_b64encode(mac).decode().rstrip("=")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPolicy:
    """Where a read may go.

    Args:
        primary: Whether it goes to the primary, whatever replicas there are.
        max_lag: Seconds that a replica may be behind; None for ``replica_max_lag``.
        prefer: ``"replica"`` for a read to which old rows are better than the primary's time: any
            replica that answers will do, however far behind.

    Raises:
        PenstockError: A value is something else, or two of them contradict each other.
    """

    primary: bool = False
    max_lag: float | None = None
    prefer: Literal["replica"] | None = None

    def __post_init__(self) -> None:
        if self.prefer not in (None, "replica"):
            raise PenstockError(f"prefer={self.prefer!r}: 'replica' is accepted, or None.")
        is_number = isinstance(self.max_lag, int | float) and not isinstance(self.max_lag, bool)
        if self.max_lag is not None and not (is_number and self.max_lag > 0):
            raise PenstockError(f"max_lag={self.max_lag!r}: seconds above 0 are accepted.")
        if self.primary and (self.max_lag is not None or self.prefer is not None):
            raise PenstockError("primary=True reads no replica: leave max_lag and prefer out.")


ANY = ReadPolicy()


class Reads:
    """What the reads of one request, or of one task, have to see.

    Attributes:
        policy: Where they may go.
        after: The position by database that they have to have reached; ``UNKNOWN`` for the primary.
        unresolved: The databases that were written to and have not been asked for their position
            since, each with how often.
        served_by: The member that served the last read, by database.
        wrote: The databases that were written to, whether or not they have been asked since.
    """

    __slots__ = ("after", "policy", "served_by", "unresolved", "wrote")

    def __init__(self, policy: ReadPolicy = ANY) -> None:
        self.policy = policy
        self.after: dict[Any, Position] = {}
        self.unresolved: dict[Any, int] = {}
        self.served_by: dict[Any, Any] = {}
        self.wrote: set[Any] = set()

    def written(self, database: Any) -> None:
        """Have what comes read what was just committed."""
        self.unresolved[database] = self.unresolved.get(database, 0) + 1
        self.wrote.add(database)

    def resolved(self, database: Any, position: Position, writes: int | None) -> None:
        """Have what comes read from where a database was asked to be, after some writes.

        Args:
            database: Which.
            position: What it has answered, which is later than any before; ``UNKNOWN`` for nothing.
            writes: How many there were when it was asked; one more needs another question.
        """
        if self.unresolved.get(database) == writes:
            self.unresolved.pop(database, None)
        if self.after.get(database) == UNKNOWN:
            del self.after[database]
        self.reached(database, position)

    def reached(self, database: Any, position: Position) -> None:
        """Have what comes read from a position on, unless it does from a later one."""
        known = self.after.get(database)
        self.after[database] = position if known is None else max(known, position)


current_reads: ContextVar[Reads | None] = ContextVar("penstock_reads", default=None)
"""Of the request, or of the task that has written outside any; None where anything will do."""
