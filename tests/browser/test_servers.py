"""The table of a cluster's servers, over a real primary with two replicas."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from tests.browser.chromium import Page, new_tab
from tests.browser.service import Service
from tests.browser.test_page import CONTRAST
from tests.clusters.streaming import StreamingCluster, streaming_cluster
from tests.servers.web import serving

from penstock import Database, query
from penstock.fastapi import install

PART = "document.querySelector('#servers-part')"
ROWS = "[...document.querySelectorAll('#servers tbody tr')].map(row => row.innerText.split('\\t'))"
one = query(text("SELECT 1"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[StreamingCluster]:
    with streaming_cluster() as running:
        yield running


@pytest.fixture
async def page_of(
    cluster: StreamingCluster, browser: Path, tmp_path: Path
) -> AsyncIterator[tuple[Page, Database]]:
    database = Database.from_url(
        cluster.primary.url,
        environment="testing",
        replicas=[node.url for node in cluster.replicas],
        replica_check_interval=0.2,
        telemetry_dir=tmp_path,
    )
    app = FastAPI()
    install(app, database)
    async with serving(app) as url, new_tab(browser) as page:
        await page.size(1360, 1000)
        await page.go(f"{url}/pool")
        await page.until(f"{ROWS}.length === 3")
        yield page, database
        assert not page.complaints


async def rows(page: Page) -> dict[str, list[str]]:
    found: list[list[Any]] = await page.value(ROWS)
    return {row[0]: [str(cell).strip() for cell in row[1:]] for row in found}


async def test_servers_are_shown_with_what_each_does(
    page_of: tuple[Page, Database], cluster: StreamingCluster
) -> None:
    page, database = page_of
    for _ in range(40):
        await database.reader.scalar(one)
    await page.until(f"{ROWS}.filter(row => row[5].startsWith('50 %')).length === 2")

    shown = await rows(page)
    assert shown["primary"] == ["primary", "\u2013", "serves reads", "0", "0 %"]
    dead = cluster.replicas[0]
    name = f"{dead.server.host}:{dead.server.port}"
    assert [shown[name][0], *shown[name][2:]] == ["replica", "serves reads", "20", "50 %"]
    assert await page.value("document.querySelector('#counters').innerText.includes('replica')")

    dead.kill()
    await page.until(f"{ROWS}.some(row => row[3] === 'it does not answer')")
    assert (await rows(page))[name][:3] == ["replica", "\u2013", "it does not answer"]
    bad = "document.querySelector('#servers [data-tone=bad]').innerText"
    assert await page.value(bad) == "it does not answer"

    for dark in (False, True):
        await page.size(1360, dark=dark)
        for selector in ("#servers td[data-tone=bad] .text", "#servers th[scope=row]"):
            assert await page.value(CONTRAST % selector) >= 4.5, (selector, dark)
    await page.size(320, 700)
    assert await page.value("document.documentElement.scrollWidth") == 320
    dead.start()
    await page.until(f"{ROWS}.every(row => row[3] === 'serves reads')")


async def test_without_replicas_nothing_is_said_of_servers(page: Page, service: Service) -> None:
    assert await page.value(f"{PART}.hidden")
    assert not await page.value("document.querySelector('#counters').innerText.includes('replica')")
