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
    """Requests of one kind.

    Args:
        path: Path and query; ``ID`` in it becomes a random number.
        method: HTTP method, in capitals.
        body: JSON, ``NEW`` in it becoming a name that no other request has and ``NEXT`` the next
            number from 100,001 on; empty for none.
        ids: The largest of the random numbers, which begin at 1.
        rate: Requests per second that are due at each worker, however slow the answers are; a
            latency counts from then. 0 for a closed loop: each client's next as soon as it has its
            answer.
        clients: How many ask each worker.
    """

    path: str
    method: str = "GET"
    body: str = ""
    ids: int = 10_000
    rate: float = 0.0
    clients: int = CLIENTS

    @property
    def kinds(self) -> "Sequence[Traffic]":
        """The kinds of request that take turns: this one."""
        return (self,)


@dataclass(frozen=True)
class Rotation:
    """Requests of several kinds in turn.

    Args:
        kinds: In their order; one that comes more often than others is in it more often.
        rate: Requests per second that are due at each worker; 0 for a closed loop.
        clients: How many ask each worker.
    """

    kinds: Sequence[Traffic]
    rate: float = 0.0
    clients: int = CLIENTS


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

    def load(
        self,
        url: str,
        traffic: Traffic | Rotation,
        seconds: float,
        warm_up: float,
        others: Sequence[str] = (),
    ) -> Load:
        """Ask by as many clients for each worker as the traffic says.

        Args:
            url: Base URL of the server.
            traffic: What to ask for.
            seconds: For how long to measure, or longer until there are as many answers as clients.
            warm_up: Seconds of the same load before.
            others: Base URLs of further workers, which get as much each.

        Raises:
            RuntimeError: Not every request succeeded.
        """
        self._turns += 1
        urls = [url, *others]
        order = {
            "urls": urls,
            "seconds": seconds,
            "warm_up": warm_up,
            "kinds": [asdict(kind) for kind in traffic.kinds],
            "rate": traffic.rate * len(urls),
            "clients": traffic.clients * len(urls),
            "seed": self._turns,
        }
        answer = self._ask(order)
        milliseconds = sorted(answer["milliseconds"])
        if answer["errors"]:
            asked = ", ".join(dict.fromkeys(f"{k.method} {k.path}" for k in traffic.kinds))
            raise RuntimeError(f"{asked} of {url}: {answer['errors']}")
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
