"""A service's live document, followed over HTTP and drawn in a terminal."""

from penstock.watch.client import Client, Lost, WatchError, headers_from, service_url
from penstock.watch.document import Document, DocumentError, Part
from penstock.watch.screen import Screen, draw, terminal, write

__all__ = [
    "Client",
    "Document",
    "DocumentError",
    "Lost",
    "Part",
    "Screen",
    "WatchError",
    "draw",
    "headers_from",
    "service_url",
    "terminal",
    "write",
]
