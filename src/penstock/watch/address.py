"""Where a service is, as somebody types it."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, quote, urlsplit

from penstock.watch.errors import WatchError
from penstock.watch.plain import plain

__all__ = ["Address"]

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """A service's address.

    Args:
        scheme: ``http`` or ``https``.
        host: Name or number, an IPv6 one without brackets.
        port: From 1 to 65535.
        prefix: What its paths begin with, percent-encoded; empty, or with a slash in front and
            none at the end.
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read an address.

        Args:
            url: The service's. Without a scheme it is ``http``; the live page's own address,
                which ends in ``/pool``, is understood.

        Raises:
            WatchError: It is no such address, or it contains a password.
        """
        if "@" in url:
            raise WatchError(
                "The URL must not contain a user or password, which every process list would show. "
                "Put a line 'Authorization: ...' into the variable PENSTOCK_WATCH_HEADER."
            )
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            raise _refused(url) from None
        host = parts.hostname or ""
        if not _is_host(host) or parts.port == 0 or parts.query or parts.fragment:
            raise _refused(url)
        return cls(parts.scheme, host, port, _prefix(parts))

    def path(self, path: str) -> str:
        """Return what to ask the server for.

        Args:
            path: The service's own, such as ``/pool/state``.
        """
        return f"{self.prefix}{path}"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.prefix}"


def _is_host(host: str) -> bool:
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return bool(host) and host.isprintable() and not any(map(str.isspace, host))


def _prefix(parts: SplitResult) -> str:
    path = parts.path.rstrip("/").removesuffix("/pool").rstrip("/")
    return quote(path, safe="/%:!$&'()*+,;=~")


def _refused(url: str) -> WatchError:
    return WatchError(
        f"{plain(url)!r} is not the URL of a service. Give one like http://127.0.0.1:8000 or "
        "https://service.example/prefix, without a query."
    )
