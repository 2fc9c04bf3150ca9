"""The live page of a service that asks who looks, and may change its mind."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, HTTPException
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
        refusals: Whom it has not let in since it was closed.
    """

    def __init__(self) -> None:
        self.is_open = True
        self.refusals = 0

    def __call__(self, given: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> None:
        """Refuse whoever may not look."""
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


async def test_a_refusal_is_said_once_and_forgotten_when_it_is_over(
    tab: Page, url: str, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.fastapi.broadcast._LONGEST", 1.0)
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
