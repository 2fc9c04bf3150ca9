"""The live page in a real browser, over two workers, a real PostgreSQL and real load."""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator
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
from penstock.telemetry import schema
from penstock.telemetry.reading import Reading, WorkerReading
from penstock.telemetry.schema import Counters, Sample

USERS = "GET /users/{user_id}"
REPORTS = "GET /reports/{seconds}"
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

    await page.until(
        f"{ROUTES}.some(([route, , n, , , all]) =>"
        f" route === '{USERS}' && n === '120' && all === '120')"
    )
    await page.until(f"{tile('in-use')} === '0 / 16' && {tile('waiting')} === '0'")
    await page.until(SAME)
    assert sorted(await page.value(PIDS)) == sorted(await service.workers())
    assert await page.text("#workers-line") == "2 workers"
    assert await page.value("document.querySelectorAll('figure canvas').length") >= 5


async def test_an_exhausted_pool_is_seen_and_found(page: Page, service: Service) -> None:
    load = asyncio.create_task(service.load("/reports/1", 120, at_once=40))

    await page.until(f"{tile('in-use')} === '16 / 16' && Number({tile('waiting')}) > 0")
    await page.until(has_finding("pool-exhausted"))
    assert "All 8 connections of" in await page.text(".finding .evidence")
    assert "pool-exhausted" in await page.text("#findings-news")
    assert "pool_size" in await page.text(".finding .remedy")
    rejected = (await load).count(503)
    assert rejected > 0
    total = f"document.querySelector('#tile-rejected small').innerText === '{rejected} in all'"
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
    await asyncio.sleep(1.1)  # for which a document is kept
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

    shown = f"{ROUTES}.filter(([route]) => route.includes('/orders/of/kind/')).length"
    await page.until(f"{shown} === 50")
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


async def test_a_finding_has_its_explanation_one_key_away(page: Page, service: Service) -> None:
    load = asyncio.create_task(service.load("/reports/1", 120, at_once=40))
    await page.until(has_finding("pool-exhausted"))
    explanation = "document.querySelector('.finding .explanation')"
    await page.until(f"!{explanation}.hidden && {explanation}.querySelector('dt') !== null")
    assert not await page.value(f"{explanation}.open")

    await page.value(f"{explanation}.querySelector('summary').focus()")
    await page.press("Enter")
    await page.until(f"{explanation}.open")
    terms = await page.value(f"[...{explanation}.querySelectorAll('dt')].map(dt => dt.innerText)")
    assert terms == ["Condition", "Impact", "Remedy", "Thresholds"]
    assert "pool_size" in await page.text(".finding .explanation")
    # It stays open while the numbers of the finding change.
    evidence = await page.text(".finding .evidence")
    await page.until(f"document.querySelector('.finding .evidence').innerText !== `{evidence}`")
    assert await page.value(f"{explanation}.open")
    assert len(set(await page.value(BADGES))) == 3
    await load


BADGES = """['critical', 'warning', 'info'].map(severity => {
  const finding = document.querySelector('.finding');
  finding.dataset.severity = severity;
  return getComputedStyle(finding.querySelector('.badge')).color;
})"""


async def test_the_tables_follow_the_chosen_time(page: Page, service: Service) -> None:
    await service.load("/reports/0.12", 10)
    await page.until(f"{ROUTES}.some(([route, , n]) => route === '{REPORTS}' && n === '10')")
    assert "since the service started" in await page.text("#routes-range")
    await page.until("document.querySelector('#statements td:nth-child(3)').innerText === '10'")

    # A page that is opened later knows the same of the time before, from the service.
    await page.go("about:blank")
    await page.go(f"{service.url}/pool")
    counts = f"({ROUTES}.find(([route]) => route === '{REPORTS}') ?? [])"
    await page.until(f"{counts}[2] === '10' && {counts}[5] === '10'")
    await service.load("/reports/0.12", 3)
    await page.until(f"{counts}[2] === '13' && {counts}[5] === '13'")
    await page.until("document.querySelector('#statements td:nth-child(3)').innerText === '13'")


INCREASES = """import('/pool/assets/increases.js').then(({ Increases }) => {
  const counted = new Increases();
  const add = (at, counts, isWhole) => counted.add(at, new Map(Object.entries(counts)), isWhole);
  add(1000, { a: [5, 1] });
  add(1010, { a: [7, 2], new: [4, 1] });
  add(1010, { a: [9, 9] });
  add(1020, { a: [6, 1], new: [4, 1] }, false);
  add(1030, { a: [8, 3], other: [3, 3] });
  add(1100, { a: [9, 3], other: [5, 4], another: [2, 2] });
  const told = (seconds) => Object.fromEntries(counted.within(seconds));
  const before = [counted.known(60), counted.known(900), told(60), told(75), told(900)];
  add(500, { a: [10, 4] });
  add(510, { a: [12, 4] });
  return [...before, counted.known(900), told(900)];
})"""


async def test_increases_are_those_of_the_chosen_time(page: Page) -> None:
    latest = {"a": [1, 0], "other": [2, 1], "another": [2, 2]}
    told = await page.value(INCREASES)

    # What one worker had counted when it ended is no increase; nor is what an incomplete list
    # had left out.
    assert told == [
        60,
        100,
        latest,
        {**latest, "a": [3, 2]},
        {**latest, "a": [5, 3], "new": [4, 1]},
        10,
        {"a": [2, 0]},
    ]


async def test_a_worker_that_starts_anew_is_marked_on_the_charts(
    page: Page, service: Service
) -> None:
    await page.until(f"{IS_LIVE} && document.querySelectorAll('canvas').length >= 5")
    await asyncio.sleep(5)  # a start within the first seconds of the history is none of a restart
    assert await page.value("document.querySelectorAll('.mark').length") == 0
    (old, _) = await service.workers()
    os.kill(old, signal.SIGKILL)

    marks = (
        "[...document.querySelectorAll('figure:not([hidden]) .plot')]"
        ".map(plot => plot.querySelectorAll('.mark').length)"
    )
    await page.until(f"{marks}.length >= 5 && {marks}.every(number => number === 1)", seconds=60)
    mark = "document.querySelector('.mark')"
    assert (await page.value(f"{mark}.title")).startswith("A worker started at ")
    place = "document.querySelector('.u-over').getBoundingClientRect()"
    inside = await page.value(
        f"((mark, plot) => [mark.left - plot.left, plot.right - mark.right,"
        f" mark.height / plot.height])({mark}.getBoundingClientRect(), {place})"
    )
    assert inside[0] > 0, inside
    assert inside[1] >= -4, inside  # a start in the newest second is at the edge
    assert inside[2] > 0.9, inside
    legend = "document.querySelector('figure .legend').innerText"
    assert "workers started\n1" in await page.value(legend)


class Past:
    """What a worker says that has run for 400 s: rejections 200 s ago, and silence 100 s ago."""

    def __init__(self) -> None:
        self.begun = int(time.time())
        self.silence = range(self.begun - 120, self.begun - 80)

    def __call__(self) -> Reading:
        """Return what it says now."""
        history = tuple(
            Sample(at + 0.1, limit=10, checked_out=5, rejected=7 * (at == self.begun - 200))
            for at in range(self.begun - 400, int(time.time()))
            if at not in self.silence
        )
        worker = WorkerReading(
            1, self.begun - 400, history[-1], history, counters=Counters(rejected=7, leaks=3)
        )
        return Reading("default", (worker,))


@pytest.fixture
async def past(
    browser: Path, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Page, Past]]:
    """The page of a worker with a past."""
    app, past = FastAPI(), Past()
    database = Database.from_url(database_url, environment="testing", telemetry_dir=tmp_path)
    install(app, database)
    async with serving(app) as url, new_tab(browser) as page:
        monkeypatch.setattr(database.telemetry, "read", past)
        await page.size(1360, 1000)
        await page.go(f"{url}/pool")
        await page.until(f"{IS_LIVE} && document.querySelectorAll('canvas').length >= 5")
        yield page, past
        assert not page.complaints


async def test_a_counter_is_red_only_for_what_happened_within_the_chosen_time(
    past: tuple[Page, Past],
) -> None:
    page, _ = past
    shown = {}
    for seconds in (60, 300, 60):
        await page.value(f"document.querySelector('[data-span=\"{seconds}\"]').click()")
        shown[seconds] = await page.value(COUNTERS)

    of_replicas = {"replica_reads", "replica_fallbacks", "position_waits"}
    labels = [each.label for each in schema.COUNTERS.values() if each.name not in of_replicas]
    assert list(shown[60]) == labels
    assert shown[300]["rejected"] == ["7 (+7)", "bad"]
    assert shown[60]["rejected"] == ["7", ""]
    # Of leaks there is no history: those from before the page was opened are none of its time.
    assert shown[300]["leaks"] == ["3", ""]
    red = "[...document.querySelectorAll('[data-tone=bad]')].map(each => each.innerText)"
    assert await page.value(red) == []


COUNTERS = """Object.fromEntries([...document.querySelectorAll('#counters > div')].map(pair =>
  [pair.querySelector('dt').innerText,
   [pair.querySelector('dd').innerText, pair.dataset.tone]]))"""


async def test_no_line_and_no_area_is_drawn_where_samples_are_missing(
    past: tuple[Page, Past],
) -> None:
    page, said = past
    middle = said.silence[len(said.silence) // 2]

    assert await page.value(INK % (middle - 60)) > 10
    assert await page.value(INK % middle) == 0
    assert await page.value(INK % (middle + 50)) > 10


INK = """((at) => {
  const figure = document.querySelector('figure');
  const canvas = figure.querySelector('canvas');
  const over = figure.querySelector('.u-over').getBoundingClientRect();
  const place = canvas.getBoundingClientRect();
  const end = Date.now() / 1000;
  const x = over.left - place.left + over.width * (1 - (end - at) / 300);
  const { data } = canvas.getContext('2d').getImageData(Math.round(x), 0, 1, canvas.height);
  const isBlue = (i) => data[i + 2] > data[i] + 80 && data[i + 3] > 200;
  return Array.from({ length: canvas.height }, (_, row) => row * 4).filter(isBlue).length;
})(%d)"""
"""How many pixels of the first chart have the colour of connections in use, at a moment."""


REQUESTS = """(() => {
  window.asked = [];
  const real = window.fetch;
  window.fetch = (...given) => {
    window.asked.push([Date.now() / 1000, new URL(given[0]).searchParams.get('since')]);
    return real(...given);
  };
})()"""
"""Note from now on when the page asks, and since when."""


async def test_only_new_seconds_are_asked_for(page: Page) -> None:
    await page.until(f"{IS_LIVE} && document.querySelectorAll('canvas').length >= 5")
    await page.value(REQUESTS)

    await page.until("window.asked.length >= 4")
    asked = await page.value("window.asked")
    age = [await page.value("Date.now() / 1000") - float(since) for _, since in asked]
    assert max(age) < 15
    assert 0.7 < (asked[-1][0] - asked[0][0]) / (len(asked) - 1) < 3


async def test_a_hidden_page_asks_less_and_catches_up_when_it_is_seen(
    page: Page, service: Service
) -> None:
    await page.until(f"{IS_LIVE} && document.querySelectorAll('canvas').length >= 5")
    await page.value(HIDE % "true")
    await page.value(REQUESTS)
    await asyncio.sleep(6)
    assert await page.value("window.asked.length") <= 1

    await service.load("/users/1", 7)
    await page.value(HIDE % "false")
    await page.until(f"{ROUTES}.some(([route, , n]) => route === '{USERS}' && n === '7')")
    assert await page.value("document.querySelector('#banner').hidden")


HIDE = """(() => {
  Object.defineProperty(document, 'hidden', { configurable: true, get: () => %s });
  document.dispatchEvent(new Event('visibilitychange'));
})()"""


async def test_a_page_that_slept_asks_for_what_it_missed(page: Page, service: Service) -> None:
    await page.until(f"{IS_LIVE} && document.querySelectorAll('canvas').length >= 5")
    await page.value(REQUESTS)
    await page.until("window.asked.length >= 2")
    await page.sleep()
    await service.load("/users/1", 7)
    await asyncio.sleep(8)
    await page.wake()

    await page.until(f"{ROUTES}.some(([route, , n]) => route === '{USERS}' && n === '7')")
    asked = await page.value("window.asked")
    gaps = [(then, now) for (then, _), (now, _) in itertools.pairwise(asked) if now - then > 7]
    ((asleep, awake),) = gaps
    since = next(float(since) for at, since in asked if at == awake)
    assert asleep - 15 < since <= asleep
    await page.until(IS_LIVE)


async def test_a_service_that_does_not_answer_is_asked_less_and_less(
    page: Page, service: Service
) -> None:
    await page.until(f"{IS_LIVE} && document.querySelectorAll('canvas').length >= 5")
    await page.value(REFUSING)
    await page.until("window.asked.length >= 5", seconds=40)
    asked = await page.value("window.asked")

    pauses = [later - before for before, later in itertools.pairwise(asked)]
    for pause, expected in zip(pauses, (1, 2, 4, 8), strict=False):
        assert expected <= pause < expected + 1.5
    await page.value("window.restore()")
    await page.until(IS_LIVE)


REFUSING = """(() => {
  window.asked = [];
  const real = window.fetch;
  window.fetch = async () => {
    window.asked.push(performance.now() / 1000);
    throw new TypeError('Failed to fetch');
  };
  window.restore = () => (window.fetch = real);
})()"""
