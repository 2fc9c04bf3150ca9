"""Loading a server from a process of its own, and what one turn of it showed."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

CLIENTS = 32
PATIENCE = 90.0
"""Seconds that a turn may take longer than it should, the start of its process included."""


@dataclass(frozen=True)
class Traffic:
    """The requests of a closed loop.

    Args:
        path: Path and query; ``ID`` in it becomes a random id from 1 to 10,000.
        method: HTTP method, in capitals.
        body: JSON, ``NEW`` in it becoming a name that no other request has; empty for none.
    """

    path: str
    method: str = "GET"
    body: str = ""


@dataclass(frozen=True)
class Load:
    """One turn.

    Args:
        sent: Requests, those of the warm-up included.
        elapsed: Seconds, those of the warm-up included.
        requests_per_second: Answers per second, after the warm-up.
        p50_ms: Median latency.
        p99_ms: Latency that 99 % did not exceed.
        driver_share: Share of one core that the client's own process used.
    """

    sent: int
    elapsed: float
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    driver_share: float


class Driver:
    """The client, whose every turn is a process of its own."""

    def __init__(self) -> None:
        self._turns = 0

    def load(self, url: str, traffic: Traffic, seconds: float, warm_up: float) -> Load:
        """Keep 32 requests under way.

        Args:
            url: Base URL of the server.
            traffic: What to ask for.
            seconds: For how long to measure, or longer until there are 32 answers.
            warm_up: Seconds of the same load before.

        Raises:
            RuntimeError: Not every request succeeded.
        """
        self._turns += 1
        order = {"url": url, "seconds": seconds, "warm_up": warm_up, **asdict(traffic)}
        answer = self._ask({**order, "clients": CLIENTS, "seed": self._turns})
        milliseconds = sorted(answer["milliseconds"])
        if answer["errors"]:
            raise RuntimeError(f"{traffic.method} {url}{traffic.path}: {answer['errors']}")
        return Load(
            sent=answer["sent"],
            elapsed=answer["elapsed"],
            requests_per_second=len(milliseconds) / answer["seconds"],
            p50_ms=_nearest_rank(milliseconds, 50),
            p99_ms=_nearest_rank(milliseconds, 99),
            driver_share=answer["core_share"],
        )

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.http_driver"],
            input=json.dumps(order),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=order["seconds"] + order["warm_up"] + PATIENCE,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


def _nearest_rank(ascending: Sequence[float], percent: int) -> float:
    return ascending[ceil(len(ascending) * percent / 100) - 1]
