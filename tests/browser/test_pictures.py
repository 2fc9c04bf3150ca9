"""The pictures of ``docs/live-page.md``; taken anew only where they are asked for."""

import asyncio
import os
from pathlib import Path

import pytest
from tests.browser.application import HOSTILE
from tests.browser.chromium import Page
from tests.browser.service import Service

IMAGES = Path(__file__).parents[2] / "docs/images"
ASKED = os.environ.get("WRITE_IMAGES") == "1"


@pytest.mark.skipif(not ASKED, reason="set WRITE_IMAGES=1 to take the pictures anew")
@pytest.mark.timeout(240)
async def test_pictures_for_the_documentation(page: Page, service: Service) -> None:
    async with asyncio.TaskGroup() as tasks:
        visitors = tasks.create_task(_visit(service))
        await service.load(HOSTILE, 2)
        await asyncio.sleep(65)  # for a minute of history
        await _take(page, "live-page-light.png", height=1180)

        reports = tasks.create_task(service.load("/reports/1", 220, at_once=40))
        await page.until("document.querySelector('.finding .badge')?.innerText === 'CRITICAL'")
        await page.until("Number(document.querySelector('#tile-waiting b').innerText) > 3")
        await _take(page, "live-page-exhausted.png", height=1180, dark=True)
        await _take(page, "live-page-phone.png", width=360, height=780)
        await reports
        visitors.cancel()


async def _take(
    page: Page, name: str, *, width: int = 1280, height: int, dark: bool = False
) -> None:
    await page.size(width, height, dark=dark)
    await asyncio.sleep(1.2)  # for the page to have drawn itself anew
    picture = await page.picture()
    await asyncio.to_thread((IMAGES / name).write_bytes, picture)


async def _visit(service: Service) -> None:
    while True:
        await service.load("/users/1", 25, at_once=4)
        await service.load("/tenants/1/orders/of/kind/3", 6, at_once=3)
        await service.load("/reports/0.12", 2)
        await asyncio.sleep(0.4)
