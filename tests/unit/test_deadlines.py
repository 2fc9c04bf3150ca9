"""What a call may take, and what of that the server is told."""

import asyncio
from math import inf

import pytest

from penstock.deadlines import (
    LONGEST,
    Deadline,
    DeadlineExceeded,
    Limits,
    StatementLimit,
    current_limits,
    within_limits,
)
from penstock.drivers.driver import BeginOptions, seconds_of

NOW = 1000.0
CALLERS = Deadline(NOW + 2, "the caller's X-Request-Timeout: 2", is_callers=True)


def milliseconds(
    limits: Limits, own: float | None = 0.0, *, now: float = NOW, is_first: bool = True
) -> int | None:
    limit = limits.of_statement(now, own, is_first=is_first)
    return None if limit is None else limit.milliseconds


def test_a_statement_timeout_is_told_as_it_is_and_less_what_was_waited() -> None:
    limits = Limits(0.5, began=NOW)

    assert milliseconds(limits) == 500
    assert milliseconds(limits, now=NOW + 0.02) == 500  # for what is hardly a wait
    assert milliseconds(limits, now=NOW + 0.2) == 300
    assert milliseconds(limits, now=NOW + 0.2, is_first=False) == 500


def test_until_a_deadline_the_server_gets_a_tenth_less_and_at_most_50_ms() -> None:
    limits = Limits(deadline=CALLERS)

    assert milliseconds(limits) == 1950
    assert milliseconds(limits, now=NOW + 1.9) == 90
    assert milliseconds(limits, now=NOW + 3) == 1  # 0 would be none at all


def test_the_shorter_of_both_counts_and_is_named() -> None:
    limits = Limits(0.5, CALLERS, began=NOW)
    early = limits.of_statement(NOW, 0.0, is_first=True)
    late = limits.of_statement(NOW + 1.8, 0.0, is_first=False)

    assert early == StatementLimit(500, "statement_timeout=0.5 s")
    assert late == StatementLimit(180, "the caller's X-Request-Timeout: 2", CALLERS)


@pytest.mark.parametrize(("own", "told"), [(0.0, 1950), (0.2, None), (60.0, 1950), (None, None)])
def test_a_deadline_lifts_no_limit_that_the_connection_has(
    own: float | None, told: int | None
) -> None:
    assert milliseconds(Limits(deadline=CALLERS), own) == told


def test_a_routes_limit_may_be_longer_than_the_connections() -> None:
    assert milliseconds(Limits(30.0), 0.2) == 30_000
    assert milliseconds(Limits(1e9), 0.2) == LONGEST


@pytest.mark.parametrize(
    ("told", "is_news"), [(None, True), (100, False), (105, False), (120, True), (98, True)]
)
def test_the_server_is_told_again_once_a_limit_has_changed(told: int | None, is_news: bool) -> None:
    before = None if told is None else StatementLimit(told, "x")
    assert StatementLimit(100, "x").is_news(before) is is_news


def test_a_wait_ends_with_the_first_of_the_limits() -> None:
    assert Limits().of_wait(NOW) == (inf, "", None)
    assert Limits(0.5).of_wait(NOW)[:2] == (NOW + 0.5, "statement_timeout=0.5 s")
    assert Limits(0.5, began=NOW - 0.2).of_wait(NOW)[0] == NOW + 0.3
    assert Limits(5.0, CALLERS).of_wait(NOW) == (NOW + 2, CALLERS.limit, CALLERS)


def test_limits_that_have_ended_are_none() -> None:
    limits = Limits(0.5, CALLERS)
    token = current_limits.set(limits)
    assert current_limits.get() is limits
    limits.end()
    assert not current_limits.get()
    current_limits.reset(token)


async def test_what_comes_too_late_is_not_begun() -> None:
    async def work() -> None:
        raise AssertionError

    with pytest.raises(DeadlineExceeded, match=r"Nothing was sent.*timeout=0 s") as raised:
        await within_limits(work(), Deadline.after(0))
    assert not raised.value.is_callers


async def test_the_outcome_of_what_was_sent_is_unknown() -> None:
    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as cancelled:
            cancelled.was_sent = True  # type: ignore[attr-defined]  # as whoever has sent it
            raise

    with pytest.raises(DeadlineExceeded) as raised:
        await within_limits(work(), Deadline.after(0.01))
    assert raised.value.outcome_unknown


@pytest.mark.parametrize("error", [TimeoutError("its own"), DeadlineExceeded("its own")])
async def test_an_error_of_the_work_stays_what_it_is(error: Exception) -> None:
    async def work() -> None:
        raise error

    with pytest.raises(type(error), match="its own"):
        await within_limits(work(), Deadline.after(60))


async def test_a_timeout_of_ones_own_stays_ones_own() -> None:
    with pytest.raises(TimeoutError) as raised:
        async with asyncio.timeout(0.01):
            await within_limits(asyncio.sleep(60), Deadline.after(60))
    assert type(raised.value) is TimeoutError


async def test_a_call_within_a_call_is_bounded_by_the_earlier_deadline() -> None:
    outer, inner = Deadline.after(60), Deadline.after(30)
    seen = []

    async def innermost() -> None:
        seen.append(current_limits.get())

    async def nested() -> None:
        seen.append(current_limits.get())
        await within_limits(innermost(), inner)
        await within_limits(innermost(), Deadline.after(90))

    await within_limits(nested(), outer)
    assert [limits.deadline for limits in seen if limits is not None] == [outer, inner, outer]
    assert len({limits.began for limits in seen if limits is not None}) == 1
    assert not current_limits.get()


@pytest.mark.parametrize(
    ("shown", "seconds"),
    [
        ("0", 0),
        ("1ms", 0.001),
        ("1500ms", 1.5),
        ("90s", 90),
        ("1min", 60),
        ("2h", 7200),
        ("1d", 86400),
    ],
)
def test_times_are_read_as_postgresql_shows_them(shown: str, seconds: float) -> None:
    assert seconds_of(shown) == pytest.approx(seconds)


def test_settings_may_say_the_timeout_themselves() -> None:
    assert BeginOptions(settings=(("Statement_Timeout", "1s"),)).sets_statement_timeout
    assert not BeginOptions(settings=(("role", "tenant"),)).sets_statement_timeout
