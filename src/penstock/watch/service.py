"""A service that is watched: what it is asked over HTTP, with a bound for every wait."""

import http.client
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from penstock.watch.address import Address
from penstock.watch.document import Part, only, parse
from penstock.watch.errors import WatchError
from penstock.watch.failures import failure, refusal
from penstock.watch.plain import plain
from penstock.watch.server_sent_events import EventReader, EventTooLongError

__all__ = ["Service"]

_STATE = "/pool/state"
_EVENTS = "/pool/events"
_MINUTE = 60.0
_CHUNK = 1 << 16
_LONGEST = 32 << 20


class Service:
    """Reads a service's live documents.

    Redirects are not followed and proxies of the environment are not used.

    Args:
        address: Where it is.
        headers: To send with each request.
        timeout: Seconds after which a service that says nothing counts as silent.
        database: The only one to read of; all if None.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self,
        address: Address,
        headers: Mapping[str, str],
        timeout: float,
        database: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self.timeout = timeout
        self._headers = dict(headers)
        self._database = database
        self._clock = clock
        self._socket: socket.socket | None = None

    def documents(self) -> Iterator[Part]:
        """Yield the whole document, then what is new in it, as long as the service tells it.

        A stream that ends after minutes is asked for anew, the whole document first: services do
        that to let new workers have their share of it.

        Raises:
            WatchError: The service cannot be reached, refuses, says something else or nothing,
                or ends the stream at once; it never simply ends.
        """
        long = True
        while long:
            yield self.state()
            began = self._clock()
            with self._asked(_EVENTS, "text/event-stream") as response:
                yield from self._events(response)
            long = self._clock() - began >= _MINUTE
        raise WatchError(f"{self._url(_EVENTS)} has ended the stream.")

    def state(self) -> Part:
        """Return the whole document.

        Raises:
            WatchError: As above; or it has not the one database.
        """
        with self._asked(_STATE, "application/json") as response:
            until = self._clock() + self.timeout
            body = bytearray()
            while chunk := response.read1(_CHUNK):
                body += chunk
                if self._clock() > until:
                    raise TimeoutError
                if len(body) > _LONGEST:
                    raise WatchError(f"{self._url(_STATE)} does not end within {_LONGEST:,} bytes.")
            if response.length:
                raise http.client.IncompleteRead(bytes(body), response.length)
        return self._parsed(body.decode(errors="replace"), _STATE)

    def cut(self) -> None:
        """Cut the connection, so that whoever reads from it, in another thread, reads no more."""
        if (cut := self._socket) is not None:
            with suppress(OSError):
                # Past TLS, whose own ending is not made for another thread.
                socket.socket.shutdown(cut, socket.SHUT_RDWR)

    def _events(self, response: http.client.HTTPResponse) -> Iterator[Part]:
        url = self._url(_EVENTS)
        if response.headers.get_content_type() != "text/event-stream":
            raise WatchError(
                f"{url} does not answer with a stream of events: {_kind(response)}. Something else "
                "answers there: give the URL of the service that has Penstock installed."
            )
        reader = EventReader(_LONGEST)
        last = self._clock()
        while chunk := response.read1(_CHUNK):
            for data in reader.feed(chunk):
                yield self._parsed(data, _EVENTS)
                last = self._clock()
            if self._clock() - last > self.timeout:
                raise TimeoutError

    @contextmanager
    def _asked(self, path: str, kind: str) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection()
        try:
            connection.connect()
            self._socket = connection.sock
            headers = {"Accept": kind, "Cache-Control": "no-store", **self._headers}
            connection.request("GET", self.address.path(path), headers=headers)
            with connection.getresponse() as response:
                self._check(response, path)
                yield response
        except (OSError, http.client.HTTPException, EventTooLongError, UnicodeError) as error:
            raise failure(self.address, self.timeout, error) from error
        finally:
            self._socket = None
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        secure = self.address.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(self.address.host, self.address.port, timeout=self.timeout)

    def _parsed(self, text: str, path: str) -> Part:
        document = parse(text, self._url(path))
        return document if self._database is None else only(document, self._database)

    def _check(self, response: http.client.HTTPResponse, path: str) -> None:
        if response.status != 200:
            raise refusal(
                self._url(path),
                response.status,
                location=plain(response.headers.get("Location", ""), 200).partition("?")[0],
                with_headers=bool(self._headers),
            )

    def _url(self, path: str) -> str:
        return f"{self.address}{path}"


def _kind(response: http.client.HTTPResponse) -> str:
    return f"it is {plain(response.headers.get_content_type(), 100)}"
