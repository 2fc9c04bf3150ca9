"""What is said of a service that cannot be watched, with what to do about it."""

import socket
import ssl
from http import HTTPStatus
from http.client import HTTPException, IncompleteRead

from penstock.watch.address import Address
from penstock.watch.errors import WatchError
from penstock.watch.plain import plain

__all__ = ["failure", "refusal"]


def refusal(url: str, status: int, *, location: str = "", with_headers: bool = False) -> WatchError:
    """Return the error for an answer that is not 200.

    Args:
        url: What was asked for.
        status: The answer's.
        location: Where a redirect leads, as printable text.
        with_headers: Whether headers were given.
    """
    return WatchError(f"{url} answers {_named(status)}. {_remedy(status, location, with_headers)}")


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _remedy(status: int, location: str, with_headers: bool) -> str:
    match status:
        case 401 | 403 if with_headers:
            return "The service does not accept the header that was given."
        case 401 | 403:
            return (
                "The service wants to know who asks: give --header 'Authorization: Bearer ...', or "
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
        case status if status >= 500:
            return "The service, or a proxy before it, fails: its log says why."
    return "Only 200 is an answer to go by."


_FAILURES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (
        TimeoutError,
        (
            "{address} has said nothing for {timeout:g} s. If it is only slow, give it longer by "
            "--timeout."
        ),
    ),
    (
        ConnectionRefusedError,
        "{address} accepts no connections. Does the service run, and on this host and port?",
    ),
    ((socket.gaierror, UnicodeError), "The host {address.host} is not known. Is it misspelt?"),
    (
        ssl.SSLCertVerificationError,
        (
            "{address} has a certificate that is not trusted: {error.verify_message}. If its "
            "authority is your own, name its file in the variable SSL_CERT_FILE."
        ),
    ),
    (
        (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError),
        (
            "{address} has closed the connection. If it never answers: does its URL begin with the "
            "other one of http:// and https://?"
        ),
    ),
    (ssl.SSLError, "{address} does not speak TLS as it should. Is it http:// instead?"),
    (IncompleteRead, "{address} has broken off its answer."),
    (
        HTTPException,
        "{address} does not answer in HTTP. Is the port right, or is it https:// instead?",
    ),
    (ValueError, "{address}: {error}."),
)
"""By the first that fits, from the special to the general."""


def failure(address: Address, timeout: float, error: Exception) -> WatchError:
    """Return the error for a connection that could not be made or used.

    Args:
        address: Whose.
        timeout: Seconds that were waited at the most.
        error: What it failed with.
    """
    for kinds, text in _FAILURES:
        if isinstance(error, kinds):
            return WatchError(text.format(address=address, timeout=timeout, error=error))
    return WatchError(f"{address} cannot be reached: {plain(str(error))}.")
