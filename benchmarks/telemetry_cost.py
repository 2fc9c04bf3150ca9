"""What it costs to see: the express route with and without telemetry, and the page for 20."""

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
from benchmarks.contest import RATE, Lengths, contest
from benchmarks.dataset import roomy_server, users_database
from benchmarks.http_load import CLIENTS
from benchmarks.http_read import READ
from benchmarks.progress import progress
from benchmarks.result import Result, Target
from benchmarks.service import Peer, Service, serving

OFF = {"DATABASE_TELEMETRY": "false", "DATABASE_SLOW_QUERY": "off"}
PEERS = {"telemetry_off": Peer("express", environment=OFF), "telemetry_on": Peer("express")}
LONG = Lengths(generations=4, rounds=4, seconds=1.5, warm_up=1.0)
SHORT = Lengths(generations=1, rounds=1, seconds=0.3, warm_up=0.2)
VIEWERS = 20
PERIOD = 1.0


def run(short: bool) -> Result:
    """Measure requests per second with telemetry on and off, in turn; and 20 viewers' CPU.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        Medians by peer and their ratio; the share of a core that an idle worker uses with and
        without viewers.
    """
    lengths = SHORT if short else LONG
    with (
        roomy_server() as server,
        users_database(server) as url,
        progress("telemetry_cost", lengths.turns(len(PEERS)) + 1) as advance,
    ):
        read = contest(PEERS, {"read": READ}, lengths, url, advance)["read"]
        with serving({"watched": Peer("watched")}, url) as services:
            shares = _shares(services["watched"], 1.0 if short else 20.0)
            advance()
    viewing = round(shares[1] - shares[0], 4)
    return Result(
        "telemetry_cost",
        {"clients": CLIENTS, "rounds": lengths.turns(1), "seconds": lengths.seconds},
        {**read.figures("telemetry_off"), "core_share_of_viewers": {str(VIEWERS): viewing}},
        {
            "on_over_off": read.target("telemetry_on", "telemetry_off", at_least=0.95),
            "core_share_of_20_viewers": Target(viewing, at_most=0.01),
        },
        charts=(RATE, "p99_ms"),
    )


def _shares(service: Service, seconds: float) -> tuple[float, float]:
    alone = _share(service, seconds)
    with ExitStack() as stack:
        for _ in range(VIEWERS):
            stack.enter_context(_viewer(service.url))
        watched = _share(service, seconds)
    return alone, watched


def _share(service: Service, seconds: float) -> float:
    before = service.cpu_seconds()
    time.sleep(seconds)
    return (service.cpu_seconds() - before) / seconds


@contextlib.contextmanager
def _viewer(url: str) -> Iterator[None]:
    """Ask as the page does, for the length of a block."""
    gone = threading.Event()
    viewer = threading.Thread(target=_look, args=(url, gone), daemon=True)
    viewer.start()
    try:
        yield
    finally:
        gone.set()
        viewer.join()


def _look(url: str, gone: threading.Event) -> None:
    newest = 0
    with httpx.Client(base_url=url, trust_env=False) as client:
        while not gone.wait(PERIOD):
            document = client.get("/pool/state", params={"since": newest}).json()
            moments = [each["history"]["at"] for each in document["databases"]]
            newest = int(min((at[-1] for at in moments if at), default=newest))
