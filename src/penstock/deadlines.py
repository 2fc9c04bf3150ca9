"""How long work on the database may take: each statement, and all of a call or a request."""

import asyncio
import math
from collections.abc import Awaitable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import Any, Self, TypeVar

from penstock.base_error import PenstockError

_T = TypeVar("_T")

COMMIT_TIME = 1.0
"""Seconds that a COMMIT gets at least, if it is sent at all: to cut it off would only hide what
became of the work."""
ANSWER_SHARE, ANSWER_TIME = 0.1, 0.05
"""What the server is given less than is left until a deadline: a tenth, at most so many seconds.
Its answer then comes in time, and says that nothing was saved; the client's own limit could not."""
SHRUNK, GROWN = 0.9, 1.01
"""By how much a statement's limit has to change before the server is told of it."""
NEGLIGIBLE = 0.05
"""The share of a statement's limit that the wait for its connection may take without counting."""
LONGEST = 2_147_483_647
"""Milliseconds: the largest ``statement_timeout`` that PostgreSQL takes."""


class DeadlineExceeded(PenstockError, TimeoutError):  # noqa: N818 - it reads as what happened
    """The time for a call, a block or a request was up, waits for a connection included.

    Args:
        message: The limit that was in force, what happened, and what to do.
        limit: What set it and to how much, such as ``timeout=0.5 s``.
        is_callers: Whether the limit came with the request, from its caller.
        outcome_unknown: Whether a write or a COMMIT had been sent and was not answered.
    """

    def __init__(
        self,
        message: str,
        limit: str = "",
        *,
        is_callers: bool = False,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.is_callers = is_callers
        self.outcome_unknown = outcome_unknown


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment by which work has to be done.

    Args:
        at: By ``time.monotonic``.
        limit: What set it and to how much, such as ``timeout=0.5 s``.
        is_callers: Whether it came with the request, from its caller.
    """

    at: float
    limit: str
    is_callers: bool = False

    @classmethod
    def after(cls, seconds: float | None) -> Self | None:
        """Return the one that an argument ``timeout`` sets.

        Args:
            seconds: From now on; None for no deadline.
        """
        return None if seconds is None else cls(monotonic() + seconds, f"timeout={seconds:g} s")

    def is_over(self) -> bool:
        """Return whether its time has passed."""
        return monotonic() >= self.at

    def exceeded(self, what: str, *, outcome_unknown: bool = False) -> DeadlineExceeded:
        """Return the error to raise.

        Args:
            what: What happened; the limit and what to do follow.
            outcome_unknown: Whether a write or a COMMIT had been sent and was not answered.
        """
        remedy = (
            "the caller sets that limit" if self.is_callers else "raise timeout, or do less in it"
        )
        return DeadlineExceeded(
            f"{what} ({self.limit}, waits for a connection included); {remedy}.",
            self.limit,
            is_callers=self.is_callers,
            outcome_unknown=outcome_unknown,
        )


@dataclass(frozen=True, slots=True)
class StatementLimit:
    """The ``statement_timeout`` that the server is given for a statement.

    Args:
        milliseconds: At least 1, for 0 is none.
        limit: What set it and to how much.
        deadline: The one until which that is left; None where it is a limit of each statement.
    """

    milliseconds: int
    limit: str
    deadline: Deadline | None = None

    def is_news(self, told: "StatementLimit | None") -> bool:
        """Return whether the server has to be told.

        Args:
            told: What it was told last in this transaction.
        """
        if told is None:
            return True
        before = told.milliseconds
        return not SHRUNK * before <= self.milliseconds <= GROWN * before


class Limits:
    """What bounds the work of a request, or of one call.

    Args:
        statement_timeout: Seconds for each statement, the wait for its connection included.
        deadline: When all has to be done.
        began: When the call began, by ``time.monotonic``; None for those of a request, which end
            when its response leaves.

    Attributes:
        timer: Ends the call at its deadline; None where it has none.
    """

    __slots__ = ("began", "deadline", "statement_timeout", "timer")

    def __init__(
        self,
        statement_timeout: float | None = None,
        deadline: Deadline | None = None,
        began: float | None = None,
    ) -> None:
        self.statement_timeout = statement_timeout
        self.deadline = deadline
        self.began = began
        self.timer: asyncio.Timeout | None = None

    def __bool__(self) -> bool:
        """Return whether they bound anything: those of a response that has left do not."""
        return self.deadline is not None or self.statement_timeout is not None

    def end(self) -> None:
        """Bound nothing any more: what goes on after a response has limits of its own."""
        self.statement_timeout = self.deadline = None

    def of_call(self, deadline: Deadline | None) -> "Limits":
        """Return those of a call that begins now, or goes on.

        Args:
            deadline: One more; the earlier counts.
        """
        earlier = self.deadline
        if earlier is None or (deadline is not None and deadline.at < earlier.at):
            earlier = deadline
        began = monotonic() if self.began is None else self.began
        call = Limits(self.statement_timeout, earlier, began)
        if earlier is self.deadline:
            call.timer = self.timer
        return call

    def before_commit(self) -> None:
        """Give a COMMIT, which is sent next, the time to be answered.

        Raises:
            DeadlineExceeded: The time is up; it is not to be sent.
        """
        if self.deadline is None:
            return
        if self.deadline.is_over():
            raise self.deadline.exceeded("Nothing was committed, for the time was up before")
        if self.timer is not None and self.timer.when() is not None:
            least = asyncio.get_running_loop().time() + COMMIT_TIME
            self.timer.reschedule(max(self.timer.when() or least, least))

    def of_wait(self, asked_at: float) -> tuple[float, str, Deadline | None]:
        """Return until when a connection is waited for, and which limit that is.

        Args:
            asked_at: When it was asked for.
        """
        until, limit, which = math.inf, "", None
        if self.statement_timeout is not None:
            until = self.statement_timeout + (asked_at if self.began is None else self.began)
            limit = f"statement_timeout={self.statement_timeout:g} s"
        if self.deadline is not None and self.deadline.at < until:
            until, limit, which = self.deadline.at, self.deadline.limit, self.deadline
        return until, limit, which

    def of_statement(
        self, now: float, own: float | None, *, is_first: bool
    ) -> StatementLimit | None:
        """Return what the server is told of a statement that is sent now.

        Args:
            now: The time.
            own: Seconds of the ``statement_timeout`` that the connection has anyway, which a
                deadline may not lift; 0 for none, None where that is not known.
            is_first: Whether the call has waited for the connection until now.
        """
        if own is None and self.statement_timeout is None:
            return None
        seconds, limit, which = own or math.inf, "", None
        if self.statement_timeout is not None:
            seconds = self.statement_timeout
            waited = now - self.began if is_first and self.began is not None else 0.0
            if waited > NEGLIGIBLE * seconds:
                seconds -= waited
            limit = f"statement_timeout={self.statement_timeout:g} s"
        if self.deadline is not None:
            left = self.deadline.at - now
            left -= min(ANSWER_SHARE * left, ANSWER_TIME)
            if left < seconds:
                seconds, limit, which = left, self.deadline.limit, self.deadline
        if not limit:
            return None
        return StatementLimit(min(max(1, round(1000 * seconds)), LONGEST), limit, which)


current_limits: ContextVar[Limits | None] = ContextVar("current_limits", default=None)
"""What bounds the request or the call that is running; false where nothing does."""


async def within_limits(work: Coroutine[Any, Any, _T], deadline: Deadline | None = None) -> _T:
    """Await a call within the limits in force.

    Args:
        work: The call.
        deadline: One more.

    Raises:
        DeadlineExceeded: The time was up.
    """
    outer = current_limits.get()
    if not outer and deadline is None:
        return await work
    limits = (outer or Limits()).of_call(deadline)
    until = limits.deadline
    if until is not None and until.is_over():
        work.close()
        raise until.exceeded("Nothing was sent, for the time was up before")
    token = current_limits.set(limits)
    try:
        if until is None or limits.timer is not None:
            return await work
        limits.timer = asyncio.timeout(until.at - monotonic())
        return await _until(until, limits.timer, work)
    finally:
        current_limits.reset(token)


async def _until(deadline: Deadline, timer: asyncio.Timeout, work: Awaitable[_T]) -> _T:
    was_sent = False
    try:
        async with timer:
            try:
                return await work
            except asyncio.CancelledError as cancelled:
                # Not left to the TimeoutError's cause, which Python before 3.11.3 does not set.
                was_sent = getattr(cancelled, "was_sent", False)
                raise
    except TimeoutError as error:
        if not timer.expired() or type(error) is not TimeoutError:
            raise
        what = "No answer came in time"
        raise deadline.exceeded(what, outcome_unknown=was_sent) from error
