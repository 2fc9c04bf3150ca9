"""A service's live document, followed over HTTP and drawn in a terminal."""

from penstock.watch.address import Address
from penstock.watch.errors import WatchError
from penstock.watch.feed import Feed, Lost
from penstock.watch.follow import draw, tell, terminal, write
from penstock.watch.headers import headers_from
from penstock.watch.screen import Screen
from penstock.watch.service import Service

__all__ = [
    "Address",
    "Feed",
    "Lost",
    "Screen",
    "Service",
    "WatchError",
    "draw",
    "headers_from",
    "tell",
    "terminal",
    "write",
]
