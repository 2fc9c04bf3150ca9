"""Why no connection was given: SQLAlchemy's classes, the phase, and the numbers."""

import pytest
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeoutError
from tests.told import numbers

from penstock.errors import PenstockError
from penstock.pool.errors import (
    LeaseReclaimed,
    NestedCheckout,
    PoolClosed,
    PoolFull,
    PoolInAnotherLoop,
    PoolSuspended,
    PoolTimeout,
    rejection_error,
)
from penstock.pool.events import PoolSnapshot
from penstock.pool.queue import RejectReason

SNAPSHOT = PoolSnapshot(
    size=5, limit=7, checked_in=0, checked_out=6, overflow=2, opening=1, invalid=0, waiting=12
)
KINDS = {
    RejectReason.WAITING: PoolTimeout,
    RejectReason.CONNECTING: PoolTimeout,
    RejectReason.SHED: PoolTimeout,
    RejectReason.DEADLINE_UNREACHABLE: PoolTimeout,
    RejectReason.FULL: PoolFull,
    RejectReason.SUSPENDED: PoolSuspended,
}
SETTINGS = {RejectReason.SHED: "codel_target", RejectReason.FULL: "max_waiting"}
"""What had the caller rejected, where it is a setting."""
ELSEWHERE = {RejectReason.CLOSED, RejectReason.FAILED, RejectReason.NESTED}
"""What has an error without numbers, the driver's error, and one that shows both stacks."""


def error_of(why: RejectReason, timeout: float | None = 30.0) -> PoolTimeout | PoolClosed:
    return rejection_error(why, pool="orders", timeout=timeout, waited=1.2345, snapshot=SNAPSHOT)


@pytest.mark.parametrize("kind", [PoolTimeout, PoolFull, PoolSuspended, NestedCheckout])
def test_whoever_catches_sqlalchemys_timeout_catches_ours(kind: type[Exception]) -> None:
    assert issubclass(kind, PoolTimeout)
    assert issubclass(kind, SQLAlchemyTimeoutError)
    assert issubclass(kind, PenstockError)


@pytest.mark.parametrize("kind", [PoolClosed, PoolInAnotherLoop, LeaseReclaimed])
def test_a_misuse_is_one_of_sqlalchemys_invalid_requests(kind: type[Exception]) -> None:
    assert issubclass(kind, InvalidRequestError)
    assert issubclass(kind, PenstockError)
    assert not issubclass(kind, SQLAlchemyTimeoutError)


def test_every_phase_is_accounted_for() -> None:
    assert set(KINDS) | ELSEWHERE == set(RejectReason)


@pytest.mark.parametrize("why", KINDS)
def test_each_phase_has_its_class_and_the_setting_that_it_comes_from(why: RejectReason) -> None:
    error = error_of(why)

    assert type(error) is KINDS[why]
    assert isinstance(error, PoolTimeout)
    assert error.phase is why
    assert error.snapshot is SNAPSHOT
    assert {name for name in SETTINGS.values() if name in str(error)} == {
        name for reason, name in SETTINGS.items() if reason is why
    }


@pytest.mark.parametrize("why", KINDS)
def test_each_message_names_the_pool_the_time_and_the_numbers(why: RejectReason) -> None:
    message = str(error_of(why))

    assert "orders" in message
    assert "1.234 s" in message
    assert "pool_timeout=30 s" in message
    assert str(SNAPSHOT) in message
    assert message.endswith("/3o7r)")


def test_the_numbers_of_a_pool_are_in_its_text() -> None:
    assert numbers(str(SNAPSHOT)) == ["6", "7", "0", "1", "0", "12"]


def test_no_two_phases_have_the_same_words() -> None:
    assert len({str(error_of(why)) for why in KINDS}) == len(KINDS)


def test_a_pool_without_timeout_says_so() -> None:
    assert "(pool_timeout=none)" in str(error_of(RejectReason.SHED, timeout=None))


def test_a_drained_pool_is_closed_not_late() -> None:
    error = error_of(RejectReason.CLOSED)

    assert type(error) is PoolClosed
    assert "orders" in str(error)
    assert "1.234" not in str(error)


def test_a_failing_connect_is_named_among_the_numbers() -> None:
    snapshot = PoolSnapshot(1, 1, 0, 0, 0, last_open_error="OSError: no route to host")
    error = rejection_error(
        RejectReason.CONNECTING, pool="orders", timeout=0.5, waited=0.5, snapshot=snapshot
    )

    assert "OSError: no route to host" in str(error)


def test_a_timeout_of_no_known_phase_was_waiting() -> None:
    error = PoolTimeout("late")

    assert str(error).startswith("late ")
    assert error.phase is RejectReason.WAITING
    assert error.snapshot is None
