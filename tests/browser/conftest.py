"""A browser, and the service that it looks at."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.browser.chromium import Page, chromium, new_tab
from tests.browser.service import Service, running_service
from tests.servers.postgres import PostgresServer


@pytest.fixture
async def service(database_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    """Two workers, each with a pool of up to 8 connections and one of up to 2."""
    async with running_service(database_url, tmp_path) as service:
        yield service


@pytest.fixture(scope="session")
def browser() -> Iterator[Path]:
    """A running browser's profile, one for the whole run."""
    with chromium() as profile:
        yield profile


@pytest.fixture
async def page(service: Service, browser: Path) -> AsyncIterator[Page]:
    """The live page, once it shows numbers; it must not complain of anything."""
    async with new_tab(browser) as page:
        await page.size(1360, 1000)
        await page.go(f"{service.url}/pool")
        await page.until("document.querySelector('#workers tbody th') !== null")
        yield page
        assert not page.complaints


@pytest.fixture
def paused(postgres: PostgresServer) -> "Paused":
    """Pauses the database server."""
    if postgres.directory is None:
        pytest.skip("stops the processes of the server, so the tests have to have started it")
    return Paused(postgres)


class Paused:
    """A server whose processes can be made to do nothing for a while."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Pause it for a block."""
        backends = self._server.execute(
            "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname <> ''"
        )
        assert self._server.directory is not None
        postmaster = (self._server.directory / "data" / "postmaster.pid").read_text().split()[0]
        pids = [int(postmaster), *(int(str(pid)) for (pid,) in backends)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
