"""The live page of a service that asks who looks, and may change its mind."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from tests.browser.chromium import Page, new_tab
from tests.eventually import eventually
from tests.servers.web import serving

from penstock import Database
from penstock.fastapi import install

ACCOUNT = "operator:secret"
BANNER = "document.querySelector('#banner').innerText"


class Guard:
    """Lets the operator in, as long as it is open.

    Attributes:
        refusals: How often it has refused.
    """

    def __init__(self) -> None:
        self.is_open = True
        self.refusals = 0

    def __call__(self, given: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> None:
        """Refuse those who may not look."""
        if not self.is_open or f"{given.username}:{given.password}" != ACCOUNT:
            self.refusals += 1
            raise HTTPException(403)


@pytest.fixture
def guard() -> Guard:
    """Stands before the page."""
    return Guard()


@pytest.fixture
async def url(database_url: str, tmp_path: Path, guard: Guard) -> AsyncIterator[str]:
    """Where the guarded service is, with the operator's account."""
    app = FastAPI()
    install(
        app,
        Database.from_url(database_url, environment="testing", telemetry_dir=tmp_path),
        access=guard,
    )
    async with serving(app) as url:
        yield url.replace("://", f"://{ACCOUNT}@")


@pytest.fixture
async def tab(browser: Path) -> AsyncIterator[Page]:
    """A tab that must not complain of anything."""
    async with new_tab(browser) as page:
        await page.size(1360, 1000)
        yield page
        assert not page.complaints


async def test_an_account_in_the_address_sees_the_whole_history(tab: Page, url: str) -> None:
    await tab.go(f"{url}/pool")
    asked = "performance.getEntriesByType('resource').map(each => new URL(each.name).pathname)"

    await tab.until("document.querySelector('#status').dataset.state === 'live'")
    await tab.until(f"{asked}.includes('/pool/state')")


async def test_a_parameter_of_the_address_is_repeated(browser: Path, database_url: str) -> None:
    app, seen = FastAPI(), set()

    def access(request: Request) -> None:
        if request.query_params.get("token") != "right & proper":
            raise HTTPException(403)
        seen.add(request.url.path)

    install(app, Database.from_url(database_url, environment="testing"), access=access)
    async with serving(app) as url, new_tab(browser) as page:
        await page.go(f"{url}/pool?token=right+%26+proper")
        await page.until("document.querySelector('#status').dataset.state === 'live'")

    assert seen == {"/pool", "/pool/state"}


async def test_a_refusal_is_said_once_and_forgotten_when_it_is_over(
    tab: Page, url: str, guard: Guard
) -> None:
    await tab.go(f"{url}/pool")
    await tab.until("document.querySelector('#workers tbody th') !== null")

    guard.is_open = False
    await tab.until(f"{BANNER} === 'Refused with 403'")
    await tab.value(CHANGES)
    before = guard.refusals
    await eventually(lambda: guard.refusals >= before + 4, 30)
    assert await tab.value("window.changes") == 0

    guard.is_open = True
    await tab.until("document.querySelector('#status').dataset.state === 'live'")
    assert await tab.value("document.querySelector('#banner').hidden")


CHANGES = """(() => {
  window.changes = 0;
  const banner = document.querySelector('#banner');
  new MutationObserver(() => (window.changes += 1))
    .observe(banner, { childList: true, characterData: true, subtree: true, attributes: true });
})()"""
"""Count from now on how often what is read aloud changes."""
