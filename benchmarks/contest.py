"""Peers under the same load in turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.http_load import Driver, Load, Traffic
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
        server_us: Microseconds of CPU that the server's process used for a request.
        server_share: Share of one core that it used.
    """

    load: Load
    server_us: float
    server_share: float

    @property
    def requests_per_second(self) -> float:
        """Answers per second."""
        return self.load.requests_per_second

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

    def median(self, peer: str, figure: str, digits: int) -> float | None:
        """Return the median of a peer's rounds, rounded."""
        return median([getattr(turn, figure) for turn in self.turns[peer]], digits)

    def target(self, one: str, other: str, figure: str = RATE, **bounds: float) -> Target:
        """Return what the ratio of two peers has to be, with its spread."""
        return self.ratio(one, other, figure).target(**bounds)

    def figures(self, base: str, ours: str | None = None) -> Figures:
        """Return what is to be known of each peer.

        Args:
            base: The peer whose figures the others' are multiples of.
            ours: The peer that should be the fastest; the table says where it is not.
        """
        rates = {peer: [t.requests_per_second for t in turns] for peer, turns in self.turns.items()}
        return {
            RATE: {peer: median(each, 0) for peer, each in rates.items()},
            f"{RATE}_range": {p: [round(min(each)), round(max(each))] for p, each in rates.items()},
            "p99_ms": self._medians("p99_ms", 2),
            "server_us": self._medians("server_us", 1),
            "server_share": self._medians("server_share", 2),
            **self._multiples(base),
            **({**self._multiples(ours), **self._winners(ours)} if ours else {}),
        }

    def busiest_driver(self) -> float:
        """Return the largest share of a core that the client's process used in any turn."""
        turns = [turn for each in self.turns.values() for turn in each]
        return round(max(turn.load.driver_share for turn in turns), 2)

    def _multiples(self, base: str) -> Figures:
        ratios = {peer: self.ratio(peer, base) for peer in self.turns}
        return {
            f"times_{base}": {peer: ratio.median for peer, ratio in ratios.items()},
            f"times_{base}_range": {peer: list(ratio.spread) for peer, ratio in ratios.items()},
        }

    def _winners(self, ours: str) -> Figures:
        wins = {peer: self.ratio(peer, ours).median > 1 for peer in self.turns}
        return {f"beats_{ours}": {peer: "yes" if won else "no" for peer, won in wins.items()}}

    def _medians(self, figure: str, digits: int) -> dict[str, float | None]:
        return {peer: self.median(peer, figure, digits) for peer in self.turns}


def contest(
    peers: Mapping[str, Peer],
    traffics: Mapping[str, Traffic],
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
                    driver.load(service.url, traffic, lengths.warm_up, 0.0)
            for number in range(lengths.rounds):
                for name, traffic in traffics.items():
                    for peer in list(peers)[:: -1 if number % 2 else 1]:
                        turn = _turn(driver, services[peer], traffic, lengths)
                        turns[name][peer].append(turn)
                        advance()
    return {name: Contest(by_peer) for name, by_peer in turns.items()}


def _turn(driver: Driver, service: Service, traffic: Traffic, lengths: Lengths) -> Turn:
    before = service.cpu_seconds()
    load = driver.load(service.url, traffic, lengths.seconds, lengths.warm_up / 5)
    used = service.cpu_seconds() - before
    return Turn(load, used / load.sent * 1e6, used / load.elapsed)
