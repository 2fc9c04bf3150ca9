"""The credentials in use: fetched once for many connections, and renewed in time."""

import asyncio
import logging
import math
import time
import traceback
import weakref
from collections.abc import Callable
from contextvars import Context
from time import monotonic

from penstock.credentials.provider import (
    Credentials,
    CredentialsFailed,
    CredentialsProvider,
    Server,
    ServerCredentials,
)

_logger = logging.getLogger("penstock.credentials")

RENEWED_SHARE, RENEWED_AHEAD = 0.2, 60.0
"""Credentials are renewed when this share of their time is left, and no more than these seconds."""
CONFIRMED_FOR = 1.0
"""Seconds for which a provider that has brought what the server refuses is not asked again."""
RETRY_PAUSE = 1.0
"""Seconds after a fetch that failed, in which nothing is fetched in the background."""


class CredentialCache:
    """What one provider has brought, for any number of connections and event loops.

    Args:
        provider: Asked by one task at a time in each event loop.
        fetch_timeout: Seconds that it may take.
        clock: Returns the time in seconds since the epoch.

    Attributes:
        fetches: How often the provider was asked.
    """

    def __init__(
        self,
        provider: CredentialsProvider,
        fetch_timeout: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._provider, self._fetch_timeout, self._clock = provider, fetch_timeout, clock
        self._has_changed: Callable[[], bool] = getattr(provider, "has_changed", bool)
        self._current: Credentials | None = None
        self._began = -math.inf
        """When the fetch that has brought the current ones began."""
        self._due_at = math.inf
        """When they are to be renewed, on the clock."""
        self._confirmed_at = self._failed_at = -math.inf
        self._last_failure: str | None = None
        """Why a change could not be read, which is told once, not for each connection."""
        self._is_used = False
        """Whether a connection has needed them since they came."""
        self._fetching: dict[asyncio.AbstractEventLoop, asyncio.Task[Credentials]] = {}
        self.fetches = 0

    @property
    def name(self) -> str:
        """The provider's name in messages."""
        named = getattr(self._provider, "name", None) or getattr(
            self._provider, "__qualname__", type(self._provider).__name__
        )
        return f"the credentials provider {named}"

    @property
    def max_age(self) -> float:
        """Seconds that a connection with the current ones may become old."""
        return math.inf if self._current is None else self._current.max_age

    async def get(self, seconds: float) -> Credentials:
        """Return credentials for a new connection: at once, unless they have expired or changed.

        Args:
            seconds: How long to wait for the provider at most.

        Raises:
            CredentialsFailed: It brought none.
        """
        current = self._current
        if current is None or current.expires_at <= self._clock():
            return await self._fetched(seconds)
        if self._has_changed():
            return await self._fetched_instead_of(current, seconds)
        if self._due_at <= self._clock():
            self._fetch_in_background()
        self._is_used = True
        return current

    async def renew(self, refused: Credentials, seconds: float) -> Credentials | None:
        """Return others than those that the server has refused.

        Args:
            refused: Which it has refused a moment ago.
            seconds: How long to wait for the provider at most.

        Returns:
            None where the provider has no others.

        Raises:
            CredentialsFailed: It brought none.
        """
        asked_at = monotonic()
        # A fetch that was under way may have begun before the change: then it is asked once more.
        while (current := self._current) is None or current.logs_in_as(refused):
            if self._began >= asked_at:
                self._confirmed_at = monotonic()
                return None
            if asked_at - self._confirmed_at < CONFIRMED_FOR:
                return None
            await self._fetched(asked_at + seconds - monotonic())
        return current

    async def _fetched_instead_of(self, current: Credentials, seconds: float) -> Credentials:
        try:
            return await self._fetched(seconds)
        except CredentialsFailed as error:
            if (failure := str(error)) != self._last_failure:
                self._last_failure = failure
                _logger.warning(
                    "%s; the ones before are used until the server refuses them", failure
                )
            return current

    async def _fetched(self, seconds: float) -> Credentials:
        fetch = self._fetch()
        # Unlike a wait for the task itself, this leaves it running for others when it is cancelled.
        await asyncio.wait({fetch}, timeout=max(0.0, seconds))
        if not fetch.done():
            raise CredentialsFailed(f"{self.name} gave no answer within {seconds:.3g} s")
        if fetch.cancelled():
            raise CredentialsFailed(f"{self.name} was cancelled")
        error = fetch.exception()
        if error is not None:
            raise CredentialsFailed(f"{self.name} failed: {_in_one_line(error)}") from error
        self._is_used = True
        return fetch.result()

    def _fetch_in_background(self) -> None:
        if monotonic() - self._failed_at >= RETRY_PAUSE:
            self._fetch().add_done_callback(self._report)

    def _report(self, fetch: "asyncio.Task[Credentials]") -> None:
        if not fetch.cancelled() and (error := fetch.exception()) is not None:
            _logger.warning("%s failed to renew them: %s", self.name, _in_one_line(error))

    def _fetch(self) -> "asyncio.Task[Credentials]":
        loop = asyncio.get_running_loop()
        fetch = self._fetching.get(loop)
        if fetch is None or fetch.done():
            fetch = loop.create_task(
                self._ask(), name="penstock: fetch credentials", context=Context()
            )
            self._fetching[loop] = fetch
            fetch.add_done_callback(self._fetch_ended)
        return fetch

    def _fetch_ended(self, fetch: "asyncio.Task[Credentials]") -> None:
        loop = fetch.get_loop()
        if self._fetching.get(loop) is fetch:
            del self._fetching[loop]
        if not fetch.cancelled() and (error := fetch.exception()) is not None:
            self._failed_at = monotonic()
            detach_frames(error)

    async def _ask(self) -> Credentials:
        self.fetches += 1
        began = monotonic()
        limit = asyncio.timeout(self._fetch_timeout)
        try:
            async with limit:
                brought = await self._provider()
            self._accept(brought, began)
        except TimeoutError:
            if limit.expired():
                raise TimeoutError(f"no answer within {self._fetch_timeout:g} s") from None
            raise
        return brought

    def _accept(self, brought: Credentials, began: float) -> None:
        if not isinstance(brought, Credentials):
            raise TypeError(f"Credentials are accepted, not {type(brought).__name__}")
        now = self._clock()
        left = brought.expires_at - now
        if left <= 0:
            raise ValueError("they have expired already")
        self._current, self._began, self._is_used = brought, began, False
        self._last_failure = None
        self._due_at = brought.expires_at - min(RENEWED_AHEAD, RENEWED_SHARE * left)
        if left < math.inf:
            asyncio.get_running_loop().call_later(
                self._due_at - now, _renew_used, weakref.ref(self), brought, context=Context()
            )

    def renew_used(self, credentials: Credentials) -> None:
        """Renew credentials in the background, if they still count and connections need them."""
        if self._current is credentials and self._is_used:
            self._fetch_in_background()


def _renew_used(cache: "weakref.ref[CredentialCache]", credentials: Credentials) -> None:
    if (living := cache()) is not None:
        living.renew_used(credentials)


def _in_one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def detach_frames(error: BaseException) -> None:
    """Replace the tracebacks of an error and its causes by notes: their frames hold secrets.

    Args:
        error: A provider's.
    """
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if link.__traceback__ is not None:
            note = "".join(traceback.format_tb(link.__traceback__))
            if note not in getattr(link, "__notes__", ()):
                link.add_note(note)
            link.__traceback__ = None
        link = link.__cause__ or link.__context__


class CredentialSource:
    """The credentials of one database: one cache for all of its servers, or one for each.

    Args:
        provider: Of the credentials.
        fetch_timeout: Seconds that it may take.
    """

    def __init__(
        self, provider: CredentialsProvider | ServerCredentials, fetch_timeout: float
    ) -> None:
        self._provider, self._fetch_timeout = provider, fetch_timeout
        self._caches: dict[Server | None, CredentialCache] = {}

    def cache_of(self, server: Server) -> CredentialCache:
        """Return the cache for a server.

        Args:
            server: The primary, or a replica.

        Raises:
            SettingsError: The provider cannot log in there.
        """
        provider = self._provider
        if not isinstance(provider, ServerCredentials):
            return self._cache(None, provider)
        shared: object = provider
        own = provider.for_server(server)
        return self._cache(None if own is shared else server, own)

    def _cache(self, key: Server | None, provider: CredentialsProvider) -> CredentialCache:
        if key not in self._caches:
            self._caches[key] = CredentialCache(provider, self._fetch_timeout)
        return self._caches[key]
