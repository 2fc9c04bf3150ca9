"""A service's live document, asked for over HTTP, with a bound for every wait."""

import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self

import httpx

from penstock.base_error import PenstockError
from penstock.watch.document import Document, DocumentError, plain

PERIOD = 1.0
"""Seconds from one request to the next."""
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each further attempt after one that failed, the last before all that follow."""

_STATE = "/pool/state"
_LONGEST = 32 << 20
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OWN_HEADERS = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding"}


class WatchError(PenstockError):
    """A service could not be reached, or gave another answer than its live document.

    The message has the remedy. It never has a header's value.
    """


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no answer.

    Args:
        error: Why.
        pause: Seconds until the next attempt.
    """

    error: WatchError
    pause: float


class Client:
    """Asks a service for its live document, and after the first for the new seconds alone.

    Redirects are not followed and proxies of the environment are not used.

    Args:
        url: The service's, as :func:`service_url` gives it.
        headers: To send with each request.
        timeout: Seconds after which a service that does not answer counts as silent.
        database: The only one to read of; all if None.
        sleep: Waits for seconds.
    """

    def __init__(
        self,
        url: httpx.URL,
        headers: Mapping[str, str],
        timeout: float,
        database: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = str(url).rstrip("/")
        self._has_headers = bool(headers)
        self._timeout = timeout
        self._database = database
        self._sleep = sleep
        self._newest: dict[str, int] = {}
        self._http = httpx.Client(
            base_url=url,
            headers=[(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
            timeout=timeout,
            trust_env=False,
            verify=ssl.create_default_context(),  # which knows SSL_CERT_FILE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def document(self) -> Document:
        """Return the document, with what is new in its history since the last.

        Raises:
            WatchError: The service cannot be reached, rejects the request, or answers with
                something else; or it does not have the one database.
        """
        text = self._read()
        try:
            document = Document.parse(text)
            if self._database is not None:
                document = document.only(self._database)
        except DocumentError as error:
            raise WatchError(f"{self._state} {error}") from None
        known = self._newest
        self._newest = {name: at or known.get(name, 0) for name, at in document.newest.items()}
        return document

    def news(self) -> Iterator[Document | Lost]:
        """Yield each further document, one a second, and what keeps the next from coming."""
        pause, failures = PERIOD, 0
        while True:
            self._sleep(pause)
            begun = time.monotonic()
            try:
                document = self.document()
            except WatchError as error:
                pause = PAUSES[min(failures, len(PAUSES) - 1)]
                failures += 1
                yield Lost(error, pause)
            else:
                failures = 0
                yield document
                pause = max(PERIOD - (time.monotonic() - begun), 0.1)

    def request(self) -> httpx.Request:
        """Return the next request: for what is newer than the last second of every database."""
        since = min(filter(None, self._newest.values()), default=0)
        parameters = {"since": since} if since else None
        return self._http.build_request("GET", _STATE, params=parameters)

    @property
    def _state(self) -> str:
        return f"{self.url}{_STATE}"

    def _read(self) -> str:
        try:
            response = self._http.send(self.request(), stream=True)
            with closing(response):
                self._check(response)
                return self._body(response).decode(errors="replace")
        except httpx.HTTPError as error:
            raise self._failure(error) from error

    def _body(self, response: httpx.Response) -> bytes:
        until = time.monotonic() + self._timeout
        body = bytearray()
        try:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _LONGEST:
                    raise WatchError(f"{self._state} does not end within {_LONGEST:,} bytes.")
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("the answer does not end")
        except httpx.RemoteProtocolError:
            raise WatchError(f"{self.url} has broken off its answer.") from None
        return bytes(body)

    def _check(self, response: httpx.Response) -> None:
        if response.status_code != HTTPStatus.OK:
            location = plain(response.headers.get("Location", ""), 200).partition("?")[0]
            remedy = _remedy(response.status_code, location, has_headers=self._has_headers)
            raise WatchError(f"{self._state} answers {_named(response.status_code)}. {remedy}")

    def _failure(self, error: httpx.HTTPError) -> WatchError:
        for kinds, text in _FAILURES:
            for cause in _causes(error):
                if isinstance(cause, kinds):
                    said = plain(str(getattr(cause, "verify_message", cause))).rstrip(".")
                    return WatchError(text.format(url=self.url, timeout=self._timeout, error=said))
        return WatchError(f"{self.url} cannot be reached: {plain(str(error))}.")


def service_url(text: str) -> httpx.URL:
    """Read the URL of a service.

    Args:
        text: As it is typed. Without a scheme it is ``http``; the live page's own address, which
            ends in ``/pool``, is understood.

    Raises:
        WatchError: It is no such URL, or it contains a password.
    """
    if "@" in text:
        raise WatchError(
            "The URL must not contain a user or password, which every process list would show. "
            "Put a line 'Authorization: ...' into the variable PENSTOCK_WATCH_HEADER."
        )
    try:
        url = httpx.URL(text if "://" in text else f"http://{text}")
    except (httpx.InvalidURL, UnicodeError):
        raise _no_url(text) from None
    is_port = url.port is None or 0 < url.port < 1 << 16
    is_host = url.host.strip(".") and "%" not in url.host
    if url.scheme not in {"http", "https"} or not is_host or not is_port:
        raise _no_url(text)
    if url.query or url.fragment:
        raise _no_url(text)
    path = url.raw_path.rstrip(b"/").removesuffix(b"/pool").rstrip(b"/")
    return url.copy_with(raw_path=path or b"/")


def _no_url(text: str) -> WatchError:
    return WatchError(
        f"{plain(text)!r} is not the URL of a service. Give one like http://127.0.0.1:8000 or "
        "https://service.example/prefix, without a query."
    )


def headers_from(lines: Iterable[str]) -> dict[str, str]:
    """Read headers.

    Args:
        lines: Each ``Name: value``; empty ones count for nothing.

    Returns:
        The values by their names.

    Raises:
        WatchError: A line is no header, or one that must not be set. The message does not show it.
    """
    return dict(_header(line.strip()) for line in lines if line.strip())


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
        raise WatchError(
            "A header has to be written as 'Name: value' in printable characters, "
            "such as 'Authorization: Bearer ...'. (What was given is not shown: it may be secret.)"
        )
    if name.lower() in _OWN_HEADERS:
        raise WatchError(f"The header {name} cannot be given: the connection sets it by itself.")
    return name, value.strip()


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _remedy(status: int, location: str, *, has_headers: bool) -> str:
    match status:
        case 401 | 403 if has_headers:
            return "The service does not accept the header that was given."
        case 401 | 403:
            return (
                "The service asks for credentials: give --header 'Authorization: Bearer ...', or "
                "put that line into the variable PENSTOCK_WATCH_HEADER, unseen in process lists."
            )
        case 404 | 405:
            return (
                "One of these: the URL is not the service's own (a path prefix belongs to it); "
                "Penstock is not installed there, which is install(app, database); or the service "
                "runs in production and has the route only with install(app, database, access=...)."
            )
        case 301 | 302 | 303 | 307 | 308:
            place = f" to {location}" if location else ""
            return f"Redirects{place} are not followed, for the sake of the headers: give that URL."
        case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return "The service, or a proxy before it, fails: its log says why."
    return "Only 200 is an answer to go by."


_FAILURES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (
        httpx.TimeoutException,
        "{url} has not answered within {timeout:g} s. If it is only slow, raise --timeout.",
    ),
    (
        ConnectionRefusedError,
        "{url} accepts no connections. Does the service run, and on this host and port?",
    ),
    (socket.gaierror, "The host of {url} is not known. Is it misspelt?"),
    (
        ssl.SSLCertVerificationError,
        (
            "{url} has a certificate that is not trusted: {error}. If its authority is your own, "
            "name its file in the variable SSL_CERT_FILE."
        ),
    ),
    (
        (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError),
        (
            "{url} has closed the connection. If it never answers: does its URL begin with the "
            "other one of http:// and https://?"
        ),
    ),
    (ssl.SSLError, "{url} does not speak TLS as it should. Is it http:// instead?"),
    (
        httpx.RemoteProtocolError,
        ("{url} does not answer in HTTP: {error}. Is the port right, or is it https:// instead?"),
    ),
)
"""What is said of a failure, by its causes, from the special to the general."""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
