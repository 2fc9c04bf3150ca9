"""What each layer between no database and the whole of Penstock costs a GET of one user."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import quantiles

from benchmarks.contest import Lengths, take_turn
from benchmarks.dataset import roomy_server, users_database
from benchmarks.http_load import CLIENTS, Driver, Traffic
from benchmarks.progress import progress
from benchmarks.result import Figures, Ratio, Result
from benchmarks.service import Peer, serving

LADDERS = (
    ("no_database", "middleware", "dependency", "checkout", "statement", "express"),
    ("middleware", "session", "orm"),
)
"""The routes of the peer ``waterfall``, each with one thing more than the one before."""
STEPS = tuple(dict.fromkeys(step for ladder in LADDERS for step in ladder))
FEW_STEPS = ("no_database", "express")
"""Enough to see it work."""
LONG = Lengths(generations=2, rounds=12, seconds=0.6, warm_up=0.5)
SHORT = Lengths(generations=1, rounds=1, seconds=0.0, warm_up=0.0)


def run(short: bool) -> Result:
    """Load each step in turn, all of them in one process.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        Microseconds of the server's CPU for a request, by step, and those that each adds to the
        one before: medians of the rounds, with their quartiles.
    """
    lengths, steps = (SHORT, FEW_STEPS) if short else (LONG, STEPS)
    with (
        roomy_server() as server,
        users_database(server) as url,
        progress("waterfall", lengths.turns(len(steps))) as advance,
    ):
        measured = _measure(steps, lengths, url, advance)
    share = Ratio.of(measured["no_database"], measured["express"])
    return Result(
        "waterfall",
        {"clients": CLIENTS, "rounds": lengths.turns(1), "seconds": lengths.seconds},
        _figures(measured),
        {"no_database_over_express": share.target(at_least=0.75)},
        charts=("server_us",),
    )


def _measure(
    steps: Sequence[str], lengths: Lengths, database_url: str, advance: Callable[[], None]
) -> Mapping[str, Sequence[float]]:
    measured: dict[str, list[float]] = {step: [] for step in steps}
    driver = Driver()
    for _ in range(lengths.generations):
        with serving({"waterfall": Peer("waterfall")}, database_url) as services:
            for number in range(lengths.rounds):
                for step in steps[:: -1 if number % 2 else 1]:
                    traffic = Traffic(f"/{step}/ID")
                    turn = take_turn(driver, services["waterfall"], traffic, lengths)
                    measured[step].append(turn.server_us)
                    advance()
    return measured


def _figures(measured: Mapping[str, Sequence[float]]) -> Figures:
    added = {
        step: [one - other for one, other in zip(measured[step], measured[below], strict=True)]
        for ladder in LADDERS
        for below, step in pairwise(step for step in ladder if step in measured)
    }
    return {**_with_quartiles("server_us", measured), **_with_quartiles("added_us", added)}


def _with_quartiles(name: str, measured: Mapping[str, Sequence[float]]) -> Figures:
    figures = {step: [round(cut, 1) for cut in _quartiles(each)] for step, each in measured.items()}
    return {
        name: {step: middle for step, (_, middle, _) in figures.items()},
        f"{name}_range": {step: [lower, upper] for step, (lower, _, upper) in figures.items()},
    }


def _quartiles(rounds: Sequence[float]) -> Sequence[float]:
    return quantiles(rounds, n=4, method="inclusive") if len(rounds) > 1 else 3 * list(rounds)
