"""The live page in a real browser, over two workers, a real PostgreSQL and real load."""

import asyncio
import os
import signal
from dataclasses import fields
from pathlib import Path

import pytest
from fastapi import FastAPI
from tests.browser.application import HOSTILE
from tests.browser.chromium import Page, new_tab
from tests.browser.conftest import Paused
from tests.browser.service import Service
from tests.servers.web import serving

from penstock import Database
from penstock.fastapi import install, live_document
from penstock.telemetry.schema import Sample

USERS = "GET /users/{user_id}"
ROUTES = "[...document.querySelectorAll('#routes tbody tr')].map(row => row.innerText.split('\\t'))"
PIDS = "[...document.querySelectorAll('#workers tbody th')].map(cell => Number(cell.innerText))"
IS_LIVE = "document.querySelector('#status').dataset.state === 'live'"

SAME = """(async () => {
  const answer = await fetch('pool/state');
  const {databases: [{counters, times}]} = await answer.json();
  const checkouts = document.querySelector('#tile-checkouts small').innerText;
  const held = document.querySelector('#times tbody').rows[1].lastElementChild.innerText;
  return checkouts === `${counters.checkouts} in all` && held === `${times.hold.count}`;
})()"""
"""Whether the page has the numbers of the service; it may be a second behind."""


def tile(name: str) -> str:
    """An expression for the number in a tile."""
    return f"document.querySelector('#tile-{name} b').innerText"


def has_finding(name: str) -> str:
    """An expression for whether a finding is shown."""
    return f"[...document.querySelectorAll('.finding .id')].some(id => id.innerText === '{name}')"


async def test_the_page_shows_what_the_load_did(page: Page, service: Service) -> None:
    assert set(await service.load("/users/1", 120)) == {200}

    await page.until(f"{ROUTES}.some(([route, , n]) => route === '{USERS}' && n === '120')")
    await page.until(f"{tile('in-use')} === '0 / 16' && {tile('waiting')} === '0'")
    await page.until(SAME)
    assert sorted(await page.value(PIDS)) == sorted(await service.workers())
    assert await page.text("#workers-line") == "2 workers"
    assert await page.value("document.querySelectorAll('figure canvas').length") >= 5


async def test_an_exhausted_pool_is_seen_and_found(page: Page, service: Service) -> None:
    load = asyncio.create_task(service.load("/reports/1", 120, at_once=40))

    await page.until(f"{tile('in-use')} === '16 / 16' && Number({tile('waiting')}) > 0")
    await page.until(has_finding("pool-exhausted"))
    assert "every connection was checked out, 8 of 8" in await page.text(".finding .evidence")
    assert "pool-exhausted" in await page.text("#findings-news")
    assert "pool_size" in await page.text(".finding .remedy")
    refused = (await load).count(503)
    assert refused > 0
    total = f"document.querySelector('#tile-refused small').innerText === '{refused} in all'"
    await page.until(total)


async def test_the_page_tells_of_a_database_that_is_paused(
    page: Page, service: Service, paused: Paused
) -> None:
    await service.load("/reports/0.3", 64, at_once=64)  # which opens every connection
    with paused():
        load = asyncio.create_task(service.load("/users/1", 400, at_once=64))
        await page.until(f"{tile('in-use')} === '16 / 16' && Number({tile('waiting')}) > 0")
        await page.until(has_finding("pool-exhausted"))
        assert await page.value(IS_LIVE)
    assert {200, 503} == set(await load)
    await page.until(f"{tile('in-use')} === '0 / 16' && {tile('waiting')} === '0'")


async def test_the_page_comes_back_after_its_worker_was_killed(
    page: Page, service: Service
) -> None:
    await service.load("/users/1", 30)
    old = await service.workers()
    for worker in old:
        os.kill(worker, signal.SIGKILL)

    are_new = f"{PIDS}.length === 2 && {PIDS}.every(pid => !{old}.includes(pid))"
    await page.until(f"{IS_LIVE} && {are_new}", seconds=60)
    await service.load("/users/1", 10)
    in_all = (await service.state())["counters"]["checkouts"]
    assert in_all >= 40  # what the killed ones did counts on
    await page.until(SAME)


async def test_the_page_goes_on_with_a_service_that_counts_more_than_before(
    browser: Path, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = FastAPI()
    install(app, Database.from_url(database_url, environment="testing", telemetry_dir=tmp_path))
    columns = [each.name for each in fields(Sample)]
    async with serving(app) as url, new_tab(browser) as page:
        monkeypatch.setattr(live_document, "_COLUMNS", [*columns[:-1], "utilisation"])
        await page.go(f"{url}/pool")
        await page.until("document.querySelector('#workers tbody th') !== null")

        monkeypatch.undo()
        up = "document.querySelector('#workers td').innerText"
        before = await page.value(up)
        await page.until(f"{up} !== '{before}'")
        await page.until(f"{up} !== '{await page.value(up)}' && {IS_LIVE}")
        assert not page.complaints


async def test_old_numbers_are_called_old(page: Page, service: Service) -> None:
    with service.silenced():
        await page.until("document.querySelector('#banner').innerText.startsWith('No data since ')")
        assert await page.text("#status") == "Connection lost"
        assert await page.value(CHANGES) == 0  # a screen reader would read each of them aloud
    await page.until(f"{IS_LIVE} && document.querySelector('#banner').hidden", seconds=60)


CHANGES = """new Promise((resolve) => {
  let changes = 0;
  new MutationObserver(() => (changes += 1)).observe(
    document.querySelector('#banner'), { childList: true, characterData: true, subtree: true });
  setTimeout(() => resolve(changes), 3000);
})"""
"""How often what is read aloud changes within three seconds."""


async def test_fifty_routes_scroll_in_their_place(page: Page, service: Service) -> None:
    for number in range(50):
        assert (await service.ask(f"/tenants/1/orders/of/kind/{number}")).status_code == 200

    # The fifty that held connections longest: the readiness of the start may be one of them.
    await page.until("document.querySelector('#routes tbody').rows.length === 50")
    assert await page.value("document.querySelector('#routes').offsetHeight") > 800
    assert await page.value("document.querySelector('#routes').parentElement.offsetHeight") < 500
    assert await page.value("document.documentElement.scrollWidth") == 1360


async def test_a_hostile_name_is_shown_and_does_nothing(page: Page, service: Service) -> None:
    scripts = await page.value("document.scripts.length")
    assert await service.load(HOSTILE, 2) == [200, 200]

    await page.until(f"{ROUTES}.some(([route]) => route.includes('<img src=x onerror='))")
    await page.until("document.querySelector('#statements').innerText.includes('<img src=x')")
    assert await page.value("typeof window.harmed") == "undefined"
    assert await page.value("document.images.length") == 0
    assert await page.value("document.scripts.length") == scripts


async def test_a_statement_is_shown_without_its_values(page: Page, service: Service) -> None:
    await service.load("/reports/0.12", 3)

    await page.until("document.querySelector('#statements tbody').innerText.includes('pg_sleep')")
    statement = await page.text("#statements tbody")
    assert "GET /reports/{seconds}" in statement
    assert "long statement" not in statement
    assert "0.12" not in statement


async def test_another_database_is_one_key_away(page: Page) -> None:
    await page.value("document.querySelector('#tabs button:nth-child(2)').focus()")
    await page.press("Enter")

    await page.until(f"{tile('in-use')} === '0 / 4'")
    assert await page.text("[aria-current='true']") == "analytics"
    assert await page.value("location.hash") == "#analytics"


async def test_an_address_that_names_no_database_shows_the_first(
    page: Page, service: Service
) -> None:
    await page.go("about:blank")
    await page.go(f"{service.url}/pool#100%")
    await page.until(IS_LIVE)


async def test_everything_can_be_reached_by_keyboard(page: Page) -> None:
    reached = []
    for _ in range(12):
        await page.press("Tab")
        reached.append(
            await page.value(
                "(e => (e.id || e.dataset.span || e.className || e.innerText) + '|'"
                " + getComputedStyle(e).outlineStyle)(document.activeElement)"
            )
        )

    names = [each.partition("|")[0] for each in reached]
    assert names[:8] == ["skip", "default", "analytics", "60", "300", "900", "theme", "scroll"]
    assert all(each.endswith("|solid") for each in reached[:8])


async def test_keys_choose_the_span_and_the_theme(page: Page) -> None:
    await page.value("document.querySelector('[data-span=\"900\"]').focus()")
    await page.press("Enter")
    pressed = "document.querySelector('[data-span][aria-pressed=true]').dataset.span"
    assert await page.value(pressed) == "900"

    backgrounds = []
    await page.value("document.querySelector('#theme').focus()")
    for expected in ("light", "dark"):
        await page.press("Enter")
        assert await page.text("#theme-name") == expected
        backgrounds.append(await page.value("getComputedStyle(document.body).backgroundColor"))
    assert backgrounds[0] != backgrounds[1]
    await page.go(await page.value("location.href"))
    await page.until("document.documentElement.dataset.theme === 'dark'")


async def test_text_has_contrast_in_both_themes(page: Page) -> None:
    for dark in (False, True):
        await page.size(1360, dark=dark)
        for selector in (".tile dt", ".tile b", ".muted", "thead th", ".calm", "#status"):
            assert await page.value(CONTRAST % selector) >= 4.5, (selector, dark)


CONTRAST = """(() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((n) => n / 255)
      .map((n) => (n <= 0.03928 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const element = document.querySelector('%s');
  let behind = element;
  while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') {
    behind = behind.parentElement;
  }
  const both = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]
    .map(light).sort();
  return (both[1] + 0.05) / (both[0] + 0.05);
})()"""


async def test_a_phone_needs_no_scrolling_sideways(page: Page, service: Service) -> None:
    await service.load(HOSTILE, 1)
    await page.size(320, 700)
    await page.go(f"{service.url}/pool")

    await page.until("document.querySelector('#statements').innerText.includes('<img')")
    assert await page.value("document.documentElement.scrollWidth") == 320
    widths = await page.value(
        "[...document.querySelectorAll('figure')].map(f => f.getBoundingClientRect().right)"
    )
    assert all(right <= 320 for right in widths)


async def test_names_of_databases_fit_a_phone(
    browser: Path, database_url: str, tmp_path: Path
) -> None:
    app = FastAPI()
    for name in ("default", "analytics_of_the_customers_in_europe_by_region_and_month"):
        database = Database.from_url(
            database_url, environment="testing", application_name=name, telemetry_dir=tmp_path
        )
        install(app, database, name=name)
    async with serving(app) as url, new_tab(browser) as page:
        await page.size(320, 700)
        await page.go(f"{url}/pool")

        await page.until("document.querySelectorAll('#tabs button').length === 2")
        assert await page.value("document.documentElement.scrollWidth") == 320
        # A word is not broken where there is room for it.
        await page.size(1360)
        lines = "[...document.querySelectorAll('#tabs button')].map(tab => tab.offsetHeight)"
        assert len(set(await page.value(lines))) == 1


async def test_the_charts_share_one_cursor(page: Page, service: Service) -> None:
    await page.until("document.querySelectorAll('canvas').length >= 5")
    place = "document.querySelector('.u-over').getBoundingClientRect()"
    left, top = await page.value(f"(r => [r.right - 8, r.top + 60])({place})")
    await page.move(left, top)

    times = "[...document.querySelectorAll('figure:not([hidden]) .time')].map(t => t.innerText)"
    seen = await page.until(f"{times}.every(Boolean) && {times}")
    assert len(set(seen)) == 1


async def test_its_structure_can_be_told_without_seeing_it(page: Page) -> None:
    assert await page.value("document.querySelectorAll('main, header, nav, h1').length") == 4
    assert await page.value("[...document.querySelectorAll('th')].every(cell => cell.scope)")
    assert await page.value(
        "[...document.querySelectorAll('section')].every(section =>"
        " section.ariaLabel || document.getElementById(section.getAttribute('aria-labelledby')))"
    )
    live = "document.querySelector('#findings-news').ariaLive"
    assert await page.value(live) == "polite"


async def test_what_is_checked_out_now_is_shown_with_its_route_and_state(
    page: Page, service: Service
) -> None:
    load = asyncio.create_task(service.load("/reports/1", 60, at_once=20))
    shown = "[...document.querySelectorAll('#leases tbody tr')].map(row => row.innerText)"

    await page.until(f"{shown}.some(row => /GET .reports.*(running|idle)/s.test(row))")
    await load
    await page.until(f"{shown}[0] === 'No connection is checked out.'")


async def test_a_line_does_not_cross_seconds_without_samples(page: Page) -> None:
    spaced = await page.value(
        "import('/pool/assets/charts.js').then(({withGaps}) => "
        "withGaps({at: [1, 2, 9, 10], waiting: [4, 5, 6, 7]}))"
    )

    assert spaced == {"at": [1, 2, 3, 9, 10], "waiting": [4, 5, None, 6, 7]}
