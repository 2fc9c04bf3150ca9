"""The live page: the pools of all workers of this machine, second by second, in a browser."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from fastapi import FastAPI
from starlette.responses import FileResponse, Response

from penstock.database import Database
from penstock.fastapi.access import Access
from penstock.fastapi.broadcast import Broadcast, EventStream
from penstock.fastapi.live_document import database_document, encode
from penstock.fastapi.recent_times import RecentTimes
from penstock.fastapi.routes import add
from penstock.findings import Finding
from penstock.telemetry import Reading, rules

__all__ = ["LiveDocument", "add_live_routes"]

LOOK_EVERY = 3.0
"""Seconds for which findings are shown: to look for them is half the work of a document."""

_PAGE = Path(__file__).with_name("page")
_ASSETS = {
    "page.css": "text/css",
    "uPlot.min.css": "text/css",
    "charts.js": "text/javascript",
    "format.js": "text/javascript",
    "page.js": "text/javascript",
    "stream.js": "text/javascript",
    "tables.js": "text/javascript",
    "theme.js": "text/javascript",
    "uPlot.iife.min.js": "text/javascript",
}
"""The files that the page asks for; no other can be had."""
_SAFE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_DATA = {**_SAFE, "Cache-Control": "no-store"}
_EVENTS = {**_DATA, "X-Accel-Buffering": "no"}  # nginx would hold events back
_HTML = {
    **_DATA,
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
}


class LiveDocument:
    """Reads the databases that may be seen and makes the document; one thread at a time.

    Args:
        databases: By name; read anew each time.
        access: Says which are shown.
    """

    def __init__(self, databases: Mapping[str, Database], access: Access) -> None:
        self._databases = databases
        self._access = access
        self._recent: dict[str, RecentTimes] = {}
        self._found: dict[str, tuple[float, list[Finding]]] = {}
        self._lock = Lock()

    def whole(self) -> bytes:
        """Return it with the history of 15 minutes."""
        return self._make(newest_only=False)

    def newest(self) -> bytes:
        """Return it with the newest sample."""
        return self._make(newest_only=True)

    def _make(self, *, newest_only: bool) -> bytes:
        with self._lock:
            shown = [
                self._of(name, database, newest_only)
                for name, database in list(self._databases.items())
                if self._access.shows(database)
            ]
        return encode(time.time(), shown)

    def _of(self, name: str, database: Database, newest_only: bool) -> dict[str, Any]:
        reading = database.telemetry.read()
        recent = self._recent.setdefault(name, RecentTimes())
        return database_document(
            name,
            reading,
            self._findings(name, reading),
            recent.look(time.monotonic(), reading),
            newest_only=newest_only,
        )

    def _findings(self, name: str, reading: Reading) -> list[Finding]:
        at, found = self._found.get(name, (-math.inf, []))
        if time.monotonic() - at >= LOOK_EVERY:
            found = rules.find(reading)
            self._found[name] = time.monotonic(), found
        return found


def add_live_routes(app: FastAPI, databases: Mapping[str, Database], access: Access) -> None:
    """Add ``/pool``, the live page, with ``/pool/state`` and ``/pool/events``, which it reads.

    Args:
        app: The application.
        databases: Whose pools, by name.
        access: Who may look, and what they see.
    """
    document = LiveDocument(databases, access)
    broadcast = Broadcast(document.newest)

    def page() -> Response:
        return FileResponse(_PAGE / "index.html", headers=_HTML)

    def state() -> Response:
        return Response(document.whole(), headers=_DATA, media_type="application/json")

    async def events() -> Response:
        return EventStream(broadcast, _EVENTS)

    for path, endpoint, summary in (
        ("/pool", page, "The live page: the pools of all workers, in a browser"),
        ("/pool/state", state, "What the live page shows, with 15 minutes of history"),
        ("/pool/events", events, "The same, newest only, once a second as server-sent events"),
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


def _add_assets(app: FastAPI, assets: Iterable[tuple[str, str]]) -> None:
    # Without the guards: they hold nothing of the service, and a browser that was let in by a
    # parameter of the page's address does not repeat it for them.
    for name, media_type in assets:
        add(app, f"/pool/assets/{name}", _asset(name, media_type))


def _asset(name: str, media_type: str) -> Callable[[], Response]:
    def asset() -> Response:
        headers = {**_SAFE, "Cache-Control": "no-cache"}
        return FileResponse(_PAGE / name, media_type=media_type, headers=headers)

    return asset
