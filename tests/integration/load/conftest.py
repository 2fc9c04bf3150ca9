"""A server in a process of its own, with a record of what it did."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

import pytest


@dataclass(frozen=True)
class Service:
    """The server.

    Args:
        url: Of it.
    """

    url: str

    def get(self, path: str) -> bytes:
        with urlopen(self.url + path, timeout=30) as answer:
            body: bytes = answer.read()
            return body

    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.get("/record"))
        return record

    def count(self, request: str) -> int:
        count: int = self.record()["counts"].get(request, 0)
        return count


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    command = [sys.executable, "-m", "tests.integration.load.service"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Service(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.kill()
