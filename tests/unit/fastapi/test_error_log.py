"""What the log has of errors that are answered: much of a fault, little of an overload."""

import logging
from collections.abc import Awaitable, Callable

import pytest
from fastapi import FastAPI
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeoutError
from starlette.requests import HTTPConnection
from starlette.responses import Response

from penstock.errors import (
    CommitOutcomeUnknown,
    ConnectFailed,
    NestedCheckout,
    PoolClosed,
    PoolTimeout,
)
from penstock.fastapi import handle_database_errors
from penstock.pool import PoolFull, PoolSuspended

Answer = Callable[[Exception], Awaitable[Response]]
MANY = 1000

EXPECTED = [
    (PoolTimeout("none came"), "pool_exhausted"),
    (PoolFull("too many wait"), "pool_exhausted"),
    (SQLAlchemyTimeoutError("of another pool"), "pool_exhausted"),
    (PoolSuspended("not now"), "pool_suspended"),
    (PoolClosed("no more"), "pool_closed"),
    (ConnectFailed("nobody\nthere"), "database_unavailable"),
]
FAULTS = [
    (CommitOutcomeUnknown("who knows"), "commit_outcome_unknown"),
    (
        DBAPIError("SELECT", (), Exception("gone"), connection_invalidated=True),
        "database_connection_lost",
    ),
]


@pytest.fixture
def answer(caplog: pytest.LogCaptureFixture) -> Answer:
    """Answers an error as an application does in which nobody else handles it."""
    app = FastAPI()
    handle_database_errors(app)
    caplog.set_level(logging.INFO, "penstock")

    async def answer(error: Exception) -> Response:
        kind = next(kind for kind in type(error).__mro__ if kind in app.exception_handlers)
        handler = app.exception_handlers[kind]
        response: Response = await handler(HTTPConnection({"type": "http"}), error)  # type: ignore[misc,arg-type]  # ours is a coroutine function
        return response

    return answer


@pytest.mark.parametrize(("error", "code"), EXPECTED, ids=lambda value: type(value).__name__)
async def test_what_comes_by_the_thousand_is_a_line_each_and_ten_lines_a_second(
    answer: Answer, caplog: pytest.LogCaptureFixture, error: Exception, code: str
) -> None:
    for _ in range(MANY):
        assert (await answer(error)).status_code == 503

    text = " ".join(str(error).split())
    assert caplog.messages[0] == f"Answered 503 {code}: {text}"
    assert not any(record.exc_info for record in caplog.records)
    assert len(caplog.records) <= MANY / 10


@pytest.mark.parametrize(("error", "code"), FAULTS, ids=lambda value: type(value).__name__)
async def test_a_fault_is_logged_with_its_traceback_and_ten_times_a_second(
    answer: Answer, caplog: pytest.LogCaptureFixture, error: Exception, code: str
) -> None:
    for _ in range(MANY):
        await answer(error)

    faults = [record for record in caplog.records if record.levelno == logging.ERROR]
    if isinstance(error, CommitOutcomeUnknown):  # each may have to be looked for
        assert len(faults) == MANY
    else:
        assert 1 <= len(caplog.records) <= MANY / 10
    assert {record.message for record in faults} == {f"Answered 503 {code}"}
    assert all(record.exc_info and record.exc_info[1] is error for record in faults)


async def test_nested_checkouts_are_logged_with_tracebacks_ten_times_a_second(
    answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(MANY):
        await answer(PoolTimeout("none came"))
    caplog.clear()
    for _ in range(MANY):
        await answer(NestedCheckout("stacks"))

    assert caplog.messages[0] == "Answered 503 pool_exhausted"
    assert all(record.exc_info for record in caplog.records if record.levelno == logging.ERROR)
    assert len(caplog.records) <= MANY / 10


async def test_one_kind_does_not_keep_another_from_the_log(
    answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(MANY):
        await answer(PoolTimeout("none came"))
    caplog.clear()

    await answer(ConnectFailed("nobody there"))

    assert caplog.messages == ["Answered 503 database_unavailable: nobody there"]
