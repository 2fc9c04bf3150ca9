"""Peers under the same load in turn."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.http_load import Driver, Load, Rotation, Traffic
from benchmarks.result import Figures, Ratio, Target, median
from benchmarks.service import Peer, Service, serving

RATE = "requests_per_second"


@dataclass(frozen=True)
class Lengths:
    """How long a contest is.

    Args:
        generations: How often all processes start anew: each is a few percent faster or slower
            than the next for as long as it lives.
        rounds: How often each peer has its turn in a generation.
        seconds: Length of a turn.
        warm_up: Seconds of load before the first turn, and a fifth of it before each, that count
            for nothing.
    """

    generations: int
    rounds: int
    seconds: float
    warm_up: float

    def turns(self, peers: int, traffics: int = 1) -> int:
        """Return how many turns there are in all."""
        return self.generations * self.rounds * peers * traffics


@dataclass(frozen=True)
class Turn:
    """One peer's turn.

    Args:
        load: What the client saw.
        server_us: Microseconds of CPU that the server's processes used for a request.
        server_share: Share of one core that they used.
        waits: How often they left their core for a request, to wait for something.
        preemptions: How often it was taken from them for a request.
    """

    load: Load
    server_us: float
    server_share: float
    waits: float
    preemptions: float

    @property
    def requests_per_second(self) -> float:
        """Answers per second."""
        return self.load.requests_per_second

    @property
    def p50_ms(self) -> float:
        """Median latency."""
        return self.load.p50_ms

    @property
    def p99_ms(self) -> float:
        """Latency that 99 % of the answers did not exceed."""
        return self.load.p99_ms


@dataclass(frozen=True)
class Contest:
    """What the peers did under one kind of load.

    Args:
        turns: Each peer's, in the order of the rounds.
    """

    turns: Mapping[str, Sequence[Turn]]

    def ratio(self, one: str, other: str, figure: str = RATE) -> Ratio:
        """Return how many times ``other``'s figure that of ``one`` is."""
        ones, others = (
            [getattr(turn, figure) for turn in self.turns[peer]] for peer in (one, other)
        )
        return Ratio.of(ones, others)

    def medians(self, figure: str, digits: int) -> dict[str, float | None]:
        """Return the median of each peer's rounds, rounded."""
        return {
            peer: median([getattr(turn, figure) for turn in turns], digits)
            for peer, turns in self.turns.items()
        }

    def ranges(self, figure: str, digits: int) -> dict[str, list[float]]:
        """Return the least and the greatest of each peer's rounds, rounded."""
        ranges = {}
        for peer, turns in self.turns.items():
            each = [getattr(turn, figure) for turn in turns]
            ranges[peer] = [round(bound, digits or None) for bound in (min(each), max(each))]
        return ranges

    def fastest(self, peers: Iterable[str]) -> str:
        """Return which of some peers answers the most, by the median of its rounds."""
        rates = self.medians(RATE, 0)
        return max(peers, key=lambda peer: rates[peer] or 0)

    def target(self, one: str, other: str, figure: str = RATE, **bounds: float) -> Target:
        """Return what the ratio of two peers has to be, with its spread."""
        return self.ratio(one, other, figure).target(**bounds)

    def figures(self, base: str, ours: str | None = None, **more: str) -> Figures:
        """Return what is to be known of each peer.

        Args:
            base: The peer whose rate the others' are multiples of.
            ours: The peer that should be the fastest; the table says where it is not.
            more: Further peers such as ``base``, by what the multiples are of.
        """
        multiples = self._multiples(base, base)
        for name, peer in more.items():
            multiples |= self._multiples(name, peer)
        return {
            RATE: self.medians(RATE, 0),
            f"{RATE}_range": self.ranges(RATE, 0),
            "p99_ms": self.medians("p99_ms", 2),
            "server_us": self.medians("server_us", 1),
            "server_share": self.medians("server_share", 2),
            **multiples,
            **({**self._multiples(ours, ours), **self._winners(ours)} if ours else {}),
        }

    def busiest_driver(self) -> float:
        """Return the largest share of a core that the client's process used in any turn."""
        turns = [turn for each in self.turns.values() for turn in each]
        return round(max(turn.load.driver_share for turn in turns), 2)

    def _multiples(self, name: str, base: str) -> dict[str, dict[str, Any]]:
        ratios = {peer: self.ratio(peer, base) for peer in self.turns}
        return {
            f"times_{name}": {peer: ratio.median for peer, ratio in ratios.items()},
            f"times_{name}_range": {peer: list(ratio.spread) for peer, ratio in ratios.items()},
        }

    def _winners(self, ours: str) -> Figures:
        wins = {peer: self.ratio(peer, ours).median > 1 for peer in self.turns}
        return {f"beats_{ours}": {peer: "yes" if won else "no" for peer, won in wins.items()}}


def contest(
    peers: Mapping[str, Peer],
    traffics: Mapping[str, Traffic | Rotation],
    lengths: Lengths,
    database_url: str,
    advance: Callable[[], None],
) -> dict[str, Contest]:
    """Give every peer its turns, all of them once a round and none of them always first.

    Args:
        peers: Who takes part, by name.
        traffics: What each is asked for, by name.
        lengths: How long, and how often.
        database_url: The database of all.
        advance: Called after each turn.

    Returns:
        What they did, by the traffic's name.
    """
    turns: dict[str, dict[str, list[Turn]]] = {
        traffic: {peer: [] for peer in peers} for traffic in traffics
    }
    driver = Driver()
    for _ in range(lengths.generations):
        with serving(peers, database_url) as services:
            for service in services.values():
                for traffic in traffics.values():
                    driver.load(service.url, traffic, lengths.warm_up, 0.0, service.others)
            for number in range(lengths.rounds):
                for name, traffic in traffics.items():
                    for peer in list(peers)[:: -1 if number % 2 else 1]:
                        turn = _turn(driver, services[peer], traffic, lengths)
                        turns[name][peer].append(turn)
                        advance()
    return {name: Contest(by_peer) for name, by_peer in turns.items()}


def _turn(driver: Driver, service: Service, traffic: Traffic | Rotation, lengths: Lengths) -> Turn:
    before = service.usage()
    load = driver.load(
        service.url, traffic, lengths.seconds, lengths.warm_up / 5, others=service.others
    )
    used = service.usage().since(before)
    return Turn(
        load,
        server_us=used.cpu_seconds / load.sent * 1e6,
        server_share=used.cpu_seconds / load.elapsed,
        waits=used.waits / load.sent,
        preemptions=used.preemptions / load.sent,
    )
