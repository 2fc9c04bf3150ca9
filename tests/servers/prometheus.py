"""A real Prometheus for the tests, from the Debian package's program in a directory of its own."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.servers.parts import require_part
from tests.servers.process import ServerProcess

REMEDY = "apt-get install prometheus"


@dataclass(frozen=True)
class Series:
    """One element of a query's answer."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class PrometheusServer:
    """Where a running Prometheus is."""

    port: int

    def query(self, expression: str) -> list[Series]:
        """Return what an expression says now."""
        said = self._get("query", {"query": expression})["result"]
        return [Series(each["metric"], float(each["value"][1])) for each in said]

    def value(self, expression: str) -> float | None:
        """Return the one value of an expression; None where it has none yet."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0].value if found else None

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire now."""
        alerts = self._get("alerts", {})["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    def rule_faults(self) -> list[str]:
        """Return what went wrong with rules when they were last evaluated."""
        groups = self._get("rules", {})["groups"]
        return [
            f"{rule['name']}: {rule['lastError']}"
            for group in groups
            for rule in group["rules"]
            if rule["health"] == "err"
        ]

    def targets(self) -> list[dict[str, Any]]:
        """Return what is scraped, each with its ``health`` and ``lastError``."""
        targets: list[dict[str, Any]] = self._get("targets", {})["activeTargets"]
        return targets

    def answers(self) -> bool:
        """Return whether it serves queries."""
        try:
            url = f"http://127.0.0.1:{self.port}/-/ready"
            return httpx.get(url, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def _get(self, path: str, arguments: dict[str, str]) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        answer = httpx.post if path == "query" else httpx.get
        said = answer(url, params=arguments, trust_env=False).json()
        assert said["status"] == "success", (arguments, said)
        data: dict[str, Any] = said["data"]
        return data


@contextmanager
def prometheus_server(configuration: str, rules: str = "") -> Iterator[PrometheusServer]:
    """Run a Prometheus of its own on loopback until the end.

    Args:
        configuration: Its ``prometheus.yml``; the rules are beside it, in ``rules.yml``.
        rules: Recording and alerting rules.

    Raises:
        ServerStartError: It did not start; the message has the end of its log.
    """
    program = shutil.which("prometheus")
    require_part("Prometheus", present=program, remedy=REMEDY)
    with ServerProcess("prometheus", stop_signal="TERM") as process:
        process.write("prometheus.yml", configuration)
        process.write("rules.yml", rules)
        yield _start(process, str(program))


def _start(process: ServerProcess, program: str) -> PrometheusServer:
    def on(port: int) -> tuple[PrometheusServer, list[str]]:
        options = {
            "config.file": process.directory / "prometheus.yml",
            "storage.tsdb.path": process.directory / "data",
            "web.listen-address": f"127.0.0.1:{port}",
        }
        return PrometheusServer(port), [program, *(f"--{k}={v}" for k, v in options.items())]

    return process.serve(on)


def promtool(*arguments: str | Path, stdin: bytes = b"", status: int = 0) -> str:
    """Run Prometheus' own checker, and return what it says.

    Args:
        *arguments: Such as ``check rules FILE``.
        stdin: What it reads.
        status: What it is to return; 3 where it warns.
    """
    program = shutil.which("promtool")
    require_part("Prometheus", present=program, remedy=REMEDY)
    done = subprocess.run(
        [str(program), *arguments],
        input=stdin,
        check=False,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
    )
    said = done.stdout.decode()
    assert done.returncode == status, said
    return said
