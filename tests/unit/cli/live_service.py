"""A real HTTP server that speaks as a service with Penstock does, or as told otherwise."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

AT = 1_732_200_000.0


def database(name: str = "default", seconds: int = 60, **fields: Any) -> dict[str, Any]:
    """One database of the live document, with a past of so many seconds."""
    times = [AT - seconds + 1 + second for second in range(seconds)]
    now = {"at": AT, "size": 5, "limit": 15, "checked_in": 3, "checked_out": 6, "waiting": 2}
    return {
        "name": name,
        "now": {**now, "overflow": 1, "checkouts": 12, "server_connections": None},
        "history": {
            "at": times,
            "checked_out": [second % 16 for second in range(seconds)],
            "waiting": [0] * seconds,
            "checkouts": [12] * seconds,
            "rejected": [0] * seconds,
        },
        "workers": [{"pid": 4711, "started": AT - 3600, "now": {**now, "loop_late": 0.001}}],
        "counters": {"checkouts": 1000, "rejected": 7},
        "times": {
            "wait": {"count": 9, "mean": 0.001, "p50": 0.00012, "p95": 0.002, "p99": 0.003},
            "hold": {"count": 9, "mean": 0.002, "p50": 0.004, "p95": 0.05, "p99": 1.2},
        },
        "routes": [
            {
                "route": f"GET /things/{number}",
                "checkouts": 1000 - number,
                "seconds": 10.0,
                "longest": 0.5,
                "mean": 0.01,
            }
            for number in range(30)
        ],
        "statements": [
            {
                "statement": "SELECT things.id FROM things WHERE things.name LIKE $1",
                "route": "GET /things/1",
                "calls": 4,
                "seconds": 1.0,
                "longest": 0.4,
                "rows": 100,
                "most_in_request": 120,
                "last_at": AT,
            }
        ],
        "findings": [
            {
                "id": "every-connection-out",
                "severity": "critical",
                "evidence": "All 15 connections were checked out for 30 s.",
                "remedy": "Set pool_size to 10.",
            }
        ],
        **fields,
    }


def document(*databases: dict[str, Any]) -> dict[str, Any]:
    """A live document; of one database if none is given."""
    return {"at": AT, "databases": list(databases) or [database()]}


@dataclass
class LiveService:
    """What the server answers, and what it has been asked.

    Args:
        states: Bodies of ``/pool/state``, one after the other; the last is for all that follow.
            A number is an answer with that status and no body. None ends the connection.
        status: Of every answer.
        kind: Content type of the answers.
        headers: Added to every answer.
        asked: Path and headers of the requests so far.
    """

    states: Sequence[str | int | None] = field(default_factory=lambda: [json.dumps(document())])
    status: int = 200
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""
    speaks: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.speaks.set()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Answer no request for a block."""
        self.speaks.clear()
        try:
            yield
        finally:
            self.speaks.set()

    def paths(self) -> list[str]:
        """Return what has been asked for."""
        return [path for path, _ in self.asked]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        state = self.states[min(len(self.asked), len(self.states) - 1)]
        self.asked.append((request.path, dict(request.headers.items())))
        self.speaks.wait(30)
        if state is None:
            return
        body = state.encode() if isinstance(state, str) else b""
        request.send_response(state if isinstance(state, int) else self.status)
        request.send_header("Content-Type", self.kind)
        for name, value in {"Content-Length": str(len(body)), **self.headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)


def _handler(answer: Callable[[BaseHTTPRequestHandler], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                answer(self)
            except ConnectionError:
                """The client has had enough."""

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as above
            """Say nothing."""

    return Handler


@contextmanager
def serving(
    service: LiveService | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[LiveService]:
    """Serve on a free port of loopback, by TLS if told so, for as long as the block lasts."""
    service = service or LiveService()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(service.answer))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    place = "http://127.0.0.1" if tls is None else "https://localhost"
    service.url = f"{place}:{server.server_address[1]}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
