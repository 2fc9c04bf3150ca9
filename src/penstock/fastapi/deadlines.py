"""How long a request may take: a limit of each of its statements, and its caller's deadline."""

import re
from collections.abc import Awaitable, Callable
from time import monotonic

from starlette.requests import HTTPConnection
from starlette.types import Scope

from penstock.deadlines import Deadline, Limits
from penstock.errors import PenstockError
from penstock.fastapi.units import units_of

__all__ = ["RequestLimits", "statement_timeout"]

_SECONDS = re.compile(rb"-?[0-9]{1,400}(?:\.[0-9]{1,400})?(?:e[-+]?[0-9]{1,3})?")
"""What a caller may write: seconds, such as ``1.5``, or what a program prints of a float."""
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""A field name: RFC 9110, 5.1."""
LONGEST = 86_400
"""Seconds."""


class RequestLimits:
    """What bounds the requests of an application.

    Args:
        statement_timeout: Seconds for each of their statements; None for no such limit.
        header: The name of the header in which callers send their deadline; None for none.
        longest: Seconds; what callers send is cut to it.

    Raises:
        PenstockError: A value is out of its range.
    """

    def __init__(
        self,
        statement_timeout: float | None = None,
        header: str | None = None,
        longest: float = 60.0,
    ) -> None:
        _check("install(statement_timeout=...)", statement_timeout)
        _check("install(deadline_limit=...)", longest)
        if header is not None and not (isinstance(header, str) and _TOKEN.fullmatch(header)):
            raise PenstockError(
                f"install(deadline_header={header!r}): the name of a header is accepted, such as "
                "X-Request-Timeout."
            )
        self._statement_timeout = statement_timeout
        self._header = "" if header is None else header
        self._name = self._header.lower().encode()
        self._longest = longest

    def of(self, scope: Scope) -> Limits | None:
        """Return what bounds a request that has just arrived; None where nothing does."""
        deadline = self._deadline(scope) if self._name else None
        if deadline is None and self._statement_timeout is None:
            return None
        return Limits(self._statement_timeout, deadline)

    def _deadline(self, scope: Scope) -> Deadline | None:
        headers = scope["headers"] = list(scope["headers"])  # which may be read only once
        sent = next((value for name, value in headers if name == self._name), b"")
        if not _SECONDS.fullmatch(sent):
            return None
        seconds = min(float(sent), self._longest)
        limit = f"the caller's {self._header}: {seconds:g}"
        return Deadline(monotonic() + seconds, limit, is_callers=True)


def statement_timeout(seconds: float | None) -> Callable[[HTTPConnection], Awaitable[None]]:
    """Return the dependency that limits each statement of a route, or of a router.

    It stands in the place of ``install(statement_timeout=...)``; a route's counts more than its
    router's. The wait for the connection of a statement counts.

    Args:
        seconds: For each statement, in the request's sessions, its reader and its writer; None for
            no limit but ``command_timeout``.

    Raises:
        PenstockError: ``seconds`` is out of its range.
    """
    _check("statement_timeout(...)", seconds)

    async def dependency(connection: HTTPConnection) -> None:
        units_of(connection.scope).limit_statements(seconds)

    return dependency


def _check(what: str, seconds: object) -> None:
    if seconds is None:
        return
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not (is_number and 0 < seconds <= LONGEST):  # type: ignore[operator]  # as has been asked
        raise PenstockError(
            f"{what}: seconds above 0 and up to {LONGEST} are accepted, not {seconds!r}."
        )
