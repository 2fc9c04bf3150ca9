"""A service of two workers, its database, and the Prometheus that watches it."""

import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url
from tests.integration.exporters.service import TOKEN
from tests.integration.exporters.workers import Service, serving_with
from tests.servers.postgres import PostgresServer
from tests.servers.prometheus import PrometheusServer, prometheus_server

from penstock import exporters

FILES = Path(exporters.__file__).parent / "grafana"
# As docs/prometheus.md has it, but for the intervals.
CONFIGURATION = """
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [rules.yml]
scrape_configs:
  - job_name: users
    authorization:
      credentials: {token}
    static_configs:
      - targets: ["{address}"]
"""
VARIABLES = {
    "DATABASE_ENVIRONMENT": "production",
    "DATABASE_TLS": "disable",
    "DATABASE_POOL_SIZE": "2",
    "DATABASE_MAX_OVERFLOW": "0",
    "DATABASE_MIN_IDLE": "1",
    "DATABASE_POOL_TIMEOUT": "2",
    "DATABASE_KEEPALIVE": "1",
    "DATABASE_LEAK_AFTER": "3",
}


@dataclass(frozen=True)
class Watched:
    """What a test has at hand.

    Args:
        service: The workers.
        prometheus: Who scrapes them every second.
        postgres: The server.
        database: The name of theirs.
    """

    service: Service
    prometheus: PrometheusServer
    postgres: PostgresServer
    database: str

    def total(self, metric: str, labels: str = "") -> float:
        """Return the sum of a metric's series; 0.0 without any."""
        return self.prometheus.value(f"sum({metric}{{{labels}}})") or 0.0

    def await_scrape(self) -> None:
        """Wait until Prometheus knows all that has happened up to now."""
        # Two seconds, for what is checked out is noted once a second.
        least = time.time() + 2
        scraped = "timestamp(penstock_workers)"
        eventually(lambda: (self.prometheus.value(scraped) or 0) > least)


def eventually(condition: Callable[[], object], seconds: float = 40.0) -> None:
    """Wait until a condition holds.

    Args:
        condition: Asked again and again.
        seconds: After which the test fails.
    """
    nothing_is_missing(lambda: [] if condition() else [condition], seconds)


def nothing_is_missing(missing: Callable[[], Collection[object]], seconds: float = 40.0) -> None:
    """Wait until there is nothing left to wait for; what is left stands in the failure.

    Args:
        missing: Asked again and again.
        seconds: After which the test fails.
    """
    deadline = time.monotonic() + seconds
    while left := missing():
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


@contextmanager
def watched(postgres: PostgresServer, directory: Path) -> Iterator[Watched]:
    """Serve and watch until the end.

    Args:
        postgres: Where the database is made.
        directory: For the workers' telemetry and log.
    """
    rules = quickened((FILES / "alerts.yml").read_text(encoding="utf-8"))
    telemetry = {"DATABASE_TELEMETRY_DIR": str(directory / "telemetry")}
    with (
        postgres.database() as url,
        serving_with(
            2, {**VARIABLES, **telemetry, "DATABASE_URL": url}, directory / "log"
        ) as service,
        prometheus_server(CONFIGURATION.format(token=TOKEN, address=service.address), rules) as it,
    ):
        eventually(lambda: it.value("sum(penstock_workers)") == 2)
        yield Watched(service, it, postgres, str(make_url(url).database))


def quickened(rules: str) -> str:
    """Return the rules for a test's patience: seconds in place of minutes, all else as it is."""
    rules = re.sub(r"for: \d+[ms]", "for: 2s", rules)
    return re.sub(r"\[\d+m\]", "[20s]", rules)
