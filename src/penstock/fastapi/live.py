"""The live page: the pools of all workers of this machine, second by second, in a browser."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from penstock.database import Database
from penstock.fastapi.errors import Problem
from penstock.fastapi.live_document import LiveDocument
from penstock.fastapi.routes import Access, add

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


_FINDINGS = Path(__file__).with_name("findings.md")
"""A link to ``docs/findings.md`` in the repository, and the page itself in what is installed."""
_HEADING = re.compile(r"^## `([a-z0-9-]+)`$", re.MULTILINE)
_ITEM = re.compile(r"^- \*\*(?P<term>[^*]+):\*\* (?P<text>(?:.|\n(?!- |\n|#))+)", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")


@cache
def explanations() -> dict[str, list[tuple[str, str]]]:
    """Return the terms and texts of every finding that is documented, by its id."""
    return parse_findings(_FINDINGS.read_text(encoding="utf-8"))


def parse_findings(page: str) -> dict[str, list[tuple[str, str]]]:
    """Return the terms and texts of each finding, as plain text.

    Args:
        page: Markdown, in which each finding is a section with its id in code as the heading, and
            each term a list item that begins in bold.
    """
    _, *parts = _HEADING.split(page)
    return {
        identifier: [(item["term"], _plain(item["text"])) for item in _ITEM.finditer(section)]
        for identifier, section in zip(parts[::2], parts[1::2], strict=True)
    }


def _plain(markdown: str) -> str:
    text = " ".join(_LINK.sub(r"\1", markdown).replace("`", "").replace("**", "").split())
    return text[:1].upper() + text[1:]
