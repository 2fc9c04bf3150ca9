"""Viewers of a service of two worker processes, whichever of them answers."""

import asyncio
import itertools
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
from tests.browser.service import Service, running_service

VIEWERS = 20


class Viewer(threading.Thread):
    """Asks as the page does, until it is told to leave."""

    def __init__(self, url: str, leave: threading.Event) -> None:
        super().__init__(daemon=True)
        self.answers = 0
        self._url = url
        self._leave = leave

    def run(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=5) as client:
            while not self._leave.wait(0.5):
                try:
                    self.answers += client.get("/pool/state").status_code == 200
                except httpx.TransportError:
                    """It stops, or has stopped."""


async def test_sigterm_ends_the_service_within_seconds(database_url: str, tmp_path: Path) -> None:
    leave = threading.Event()
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(running_service(database_url, tmp_path))
        viewers = [Viewer(service.url, leave) for _ in range(VIEWERS)]
        for viewer in viewers:
            viewer.start()
        time.sleep(4)  # noqa: ASYNC251 - nothing else is to be done in this loop
        begun = time.monotonic()
        await stack.aclose()
        took = time.monotonic() - begun
    leave.set()
    for viewer in viewers:
        viewer.join()

    assert min(viewer.answers for viewer in viewers) >= 2
    assert took < 10


async def test_each_second_is_sent_once_whichever_worker_answers(service: Service) -> None:
    newest, seconds, tags = 0, [], set()
    for _ in range(30):
        answer = await service.ask(f"/pool/state?since={newest}")
        (database,) = [each for each in answer.json()["databases"] if each["name"] == "default"]
        tags.add(answer.headers["etag"])
        seconds += [int(at) for at in database["history"]["at"]]
        newest = seconds[-1] if seconds else 0
        await asyncio.sleep(0.3)

    assert seconds == sorted(set(seconds))
    # A worker that is busy may sample a second late.
    assert max(later - before for before, later in itertools.pairwise(seconds)) <= 3
    assert len(seconds) >= 8
    assert len(tags) >= 8
