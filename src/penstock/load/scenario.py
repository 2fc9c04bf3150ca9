"""What a load run sends: requests, and their mixture."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from penstock.base_error import SettingsError


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, complete but for the server's address.

    Args:
        path: Path and query, from the slash on.
        method: HTTP method, in capitals.
        json: Body that is sent as JSON; ``None`` sends no body.
        body: The text of a JSON body, instead of ``json``.
    """

    path: str
    method: str = "GET"
    json: object = None
    body: str | None = None


@dataclass(frozen=True, slots=True)
class RequestKind:
    """A request that a scenario repeats, under one name in the results.

    Args:
        name: Row of the result in which its requests are counted.
        weight: Its share, relative to the weights of the other kinds; above 0.
        make: Makes the next request of this kind; takes every random choice from its argument.
    """

    name: str
    weight: float
    make: Callable[[Random], Request]


@dataclass(frozen=True, slots=True)
class Scenario:
    """The mixture of requests that a load run sends.

    Args:
        kinds: At least one kind, with distinct names.

    Raises:
        SettingsError: There is no kind, a name occurs twice, or a weight is not above 0.
    """

    kinds: tuple[RequestKind, ...]

    def __post_init__(self) -> None:
        names = [kind.name for kind in self.kinds]
        if not names or len(set(names)) < len(names):
            raise SettingsError(f"scenario: {names} are its kinds; at least one, each name once")
        for kind in self.kinds:
            if not kind.weight > 0:
                raise SettingsError(f"scenario: {kind.name} weighs {kind.weight}; above 0 accepted")

    def draw(self, random: Random) -> tuple[str, Request]:
        """Return the name and the request that come next.

        Args:
            random: Every random choice; equal seeds give equal sequences.
        """
        (kind,) = random.choices(self.kinds, [kind.weight for kind in self.kinds])
        return kind.name, kind.make(random)
