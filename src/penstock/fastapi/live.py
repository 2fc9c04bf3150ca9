"""The live page: the pools of all workers of this machine, second by second, in a browser."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from penstock.database import Database
from penstock.fastapi.errors import Problem
from penstock.fastapi.explanations import explanations
from penstock.fastapi.live_document import database_document, encode
from penstock.fastapi.recent_times import RecentTimes
from penstock.fastapi.routes import Access, add
from penstock.findings import Finding
from penstock.telemetry import Reading, rules

_PERIOD = 1.0
"""Seconds for which a document is sent to every viewer that asks: samples are one a second."""
_FINDINGS_PERIOD = 3.0
"""Seconds for which findings are shown: looking for them is half the work of a document."""
_CLOCK_STEP = 60
"""Seconds by which ``since`` may be ahead of the newest sample. Beyond that the machine's clock has
been put back, and the viewer needs the whole history."""
_KEPT = 16
"""Renderings that are kept of one document: viewers that keep up all ask for the same."""

_PAGE = Path(__file__).with_name("page")
_ASSETS = {
    "page.css": "text/css",
    "uPlot.min.css": "text/css",
    "charts.js": "text/javascript",
    "format.js": "text/javascript",
    "increases.js": "text/javascript",
    "page.js": "text/javascript",
    "poll.js": "text/javascript",
    "tables.js": "text/javascript",
    "theme.js": "text/javascript",
    "uPlot.iife.min.js": "text/javascript",
}
"""The files that the page asks for; no other can be had."""
_SAFE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_ASSET = {**_SAFE, "Cache-Control": "no-cache"}
_DATA = {**_SAFE, "Cache-Control": "no-store"}
_HTML = {
    **_DATA,
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
}


@dataclass(frozen=True, slots=True)
class Rendered:
    """A live document as it is sent.

    Args:
        body: One line of JSON.
    """

    body: bytes
    tag: str = field(init=False)
    """Its entity tag, by which a viewer says that it has this one."""

    def __post_init__(self) -> None:
        digest = blake2b(self.body, digest_size=12).hexdigest()
        object.__setattr__(self, "tag", f'"{digest}"')


@dataclass(frozen=True, slots=True)
class _Shown:
    name: str
    reading: Reading
    findings: list[Finding]
    recent: Mapping[str, Any]

    def document(self, since: int) -> dict[str, Any]:
        return database_document(self.name, self.reading, self.findings, self.recent, since=since)


class LiveDocument:
    """The document of the databases that are shown; they are read at most once a second.

    Args:
        databases: By name; read anew each time.
        access: Says which are shown.
        clock: Gives seconds that only go forward.
    """

    def __init__(
        self,
        databases: Mapping[str, Database],
        access: Access,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._databases = databases
        self._access = access
        self._clock = clock
        self._recent: dict[str, RecentTimes] = {}
        self._found: dict[str, tuple[float, list[Finding]]] = {}
        self._lock = Lock()
        self._shown: list[_Shown] = []
        self._read_at = -math.inf
        self._at = 0.0
        self._newest = 0
        self._rendered: dict[int, Rendered] = {}

    def kept(self, since: int) -> Rendered | None:
        """Return the document if it is fresh and rendered already; it takes no time.

        Args:
            since: As for :meth:`render`.
        """
        if self._clock() - self._read_at >= _PERIOD:
            return None
        return self._rendered.get(self._begin(since))

    def render(self, since: int) -> Rendered:
        """Return the document, read anew if it is a second old; in a thread.

        Args:
            since: The last second of history that the viewer has, in Unix time; 0 for none.
        """
        with self._lock:
            if self._clock() - self._read_at >= _PERIOD:
                self._read()
            begin = self._begin(since)
            if (kept := self._rendered.get(begin)) is not None:
                return kept
            documents = [shown.document(begin) for shown in self._shown]
            rendered = Rendered(encode(self._at, documents))
            if len(self._rendered) < _KEPT:
                self._rendered[begin] = rendered
            return rendered

    def _begin(self, since: int) -> int:
        return 0 if since > self._newest + _CLOCK_STEP else since

    def _read(self) -> None:
        shown = [
            self._look(name, database)
            for name, database in list(self._databases.items())
            if self._access.shows(database)
        ]
        workers = [worker for each in shown for worker in each.reading.workers]
        # A new dict: kept() may be looking into the old one.
        self._rendered = {}
        self._shown, self._at = shown, time.time()
        self._newest = int(max((worker.now.at for worker in workers), default=self._at))
        self._read_at = self._clock()

    def _look(self, name: str, database: Database) -> _Shown:
        reading = database.telemetry.read()
        recent = self._recent.setdefault(name, RecentTimes())
        times = recent.look(self._clock(), reading)
        return _Shown(name, reading, self._findings(name, reading), times)

    def _findings(self, name: str, reading: Reading) -> list[Finding]:
        at, found = self._found.get(name, (-math.inf, []))
        if self._clock() - at >= _FINDINGS_PERIOD:
            found = rules.find(reading)
            self._found[name] = self._clock(), found
        return found


def add_live_routes(app: FastAPI, databases: Mapping[str, Database], access: Access) -> None:
    """Add ``/pool``, the live page, and ``/pool/state``, which it asks for once a second.

    Args:
        app: The application.
        databases: Whose pools, by name.
        access: Who may look, and what they see.
    """
    for path, endpoint, summary in (
        ("/pool", _page, "The live page: the pools of all workers, in a browser"),
        ("/pool/state", _state(LiveDocument(databases, access)), "What the live page shows"),
    ):
        add(
            app,
            path,
            endpoint,
            summary=summary,
            dependencies=access.guards,
            response_class=Response,
        )
    _add_assets(app, _ASSETS.items())


def _page() -> Response:
    return FileResponse(_PAGE / "index.html", headers=_HTML)


def _state(document: LiveDocument) -> Callable[..., Any]:
    # A thread of its own, so that viewers neither hold up requests nor wait for their threads.
    alone = CapacityLimiter(1)

    async def state(request: Request) -> Response:
        since = _since(request.query_params.get("since", "0"))
        if since is None:
            return _invalid_since()
        rendered = document.kept(since)
        if rendered is None:
            rendered = await run_sync(document.render, since, limiter=alone)
        headers = {**_DATA, "ETag": rendered.tag}
        if request.headers.get("if-none-match") == rendered.tag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(rendered.body, headers=headers, media_type="application/json")

    return state


def _since(text: str) -> int | None:
    """Return a moment as a whole number of seconds; None where the text is none."""
    try:
        return max(0, math.floor(float(text)))
    except (ValueError, OverflowError):  # no number; NaN, infinity
        return None


def _invalid_since() -> Problem:
    problem = Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "invalid_since",
        "since must be a Unix time in seconds, such as that of the newest sample received.",
    )
    problem.headers.update(_DATA)
    return problem


def _add_assets(app: FastAPI, assets: Iterable[tuple[str, str]]) -> None:
    # Without the guards: they hold nothing of the service, and a browser that was let in by a
    # parameter of the page's address does not repeat it for them.
    for name, media_type in assets:
        add(app, f"/pool/assets/{name}", _asset(name, media_type))
    add(app, "/pool/assets/findings.json", _explanations)


def _asset(name: str, media_type: str) -> Callable[[], Response]:
    def asset() -> Response:
        return FileResponse(_PAGE / name, media_type=media_type, headers=_ASSET)

    return asset


def _explanations() -> Response:
    return JSONResponse(explanations(), headers=_ASSET)
