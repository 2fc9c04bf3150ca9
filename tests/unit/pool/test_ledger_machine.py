"""The ledger under whatever can happen to it, in any order, beside a model of its books."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.unit.pool.callers import new_ledger
from tests.unit.pool.model import Customer, Model

from penstock.pool.housekeeper import Housekeeper, HousekeeperPolicy
from penstock.pool.ledger import Ledger
from penstock.pool.queue import AdmissionPolicy, Rejection, RejectReason
from penstock.pool.slot import (
    CHECKED_OUT,
    CHECKING,
    CLOSING,
    IDLE,
    RECOVERING,
    Action,
    Close,
    CloseReason,
    Open,
    Ping,
    SlotState,
)

Thing = TypeVar("Thing")

NO = ConnectionError("no")
ROUNDS = 500
"""More than it takes to serve everybody who can have come to wait in one run."""

any_one = st.integers(0, 99)
seldom = st.sampled_from([False] * 15 + [True])
sizes = st.sampled_from([1, 1, 2, 3, 4, 0])
overflows = st.sampled_from([0, 0, 1, 2, -1])
ledgers = st.builds(
    new_ledger,
    sizes,
    overflows,
    recycle=st.sampled_from([-1.0, -1.0, 0.0, 4.0]),
    lifo=st.booleans(),
    connects_at_once=st.integers(1, 4),
    admission=st.builds(
        AdmissionPolicy,
        st.sampled_from([None, None, 0, 3]),
        st.sampled_from([None, 0.005]),
        st.sampled_from([0.1, 2.0]),
    ),
    seed=any_one,
)
policies = st.builds(
    HousekeeperPolicy, st.integers(0, 3), st.sampled_from([2.0, 60.0]), st.sampled_from([0, 5.0])
)


class NothingThereError(LookupError):
    """What was to happen needs something that is not there."""


def pick(things: Sequence[Thing], number: int) -> Thing:
    if not things:
        raise NothingThereError
    return things[number % len(things)]


def where_some_are(*states: SlotState) -> Callable[["LedgerMachine"], bool]:
    return lambda machine: bool(machine.model.in_state(*states))


class LedgerMachine(RuleBasedStateMachine):
    """A driver that does anything a driver may do."""

    @initialize(ledger=ledgers, worker=policies)
    def begin(self, ledger: Ledger, worker: HousekeeperPolicy) -> None:
        self.ledger = ledger
        self.housekeeper = Housekeeper(ledger, worker)
        self.model = Model(ledger)

    @invariant()
    def the_books_are_right(self) -> None:
        self.model.compare()

    # Those who ask.

    @rule(
        patience=st.sampled_from([0.05, 1.0, 30.0, float("inf")]),
        retry_for=st.sampled_from([float("inf"), float("inf"), 0.0, 2.0]),
    )
    def somebody_asks(self, patience: float, retry_for: float) -> None:
        if not self.checks_out():
            self.housekeeper.is_paused = False
            customer = Customer(self.model, self.model.now + patience, retry_for)
            must = self.must_be_refused()
            rejection = self.ledger.wait(customer, self.model.now)
            if rejection is None:
                assert must is None
                self.model.joined(customer)
            else:
                assert rejection == must or rejection.why is RejectReason.DEADLINE_UNREACHABLE
                assert rejection.why is not RejectReason.DEADLINE_UNREACHABLE or patience < float(
                    "inf"
                )
                self.model.tally.not_admitted += 1

    def checks_out(self) -> bool:
        slot = self.ledger.acquire(self.model.now)
        self.model.take_orders()
        if slot is None:
            return False
        assert not self.model.queue
        assert not self.ledger.suspended
        assert not self.ledger.closed
        self.model.checked_out(slot)
        return True

    def must_be_refused(self) -> Rejection | None:
        backoff = self.ledger.backoff
        if self.ledger.closed:
            return Rejection(RejectReason.CLOSED)
        if backoff.refused and self.model.now < backoff.until and not self.model.has_prospects():
            return Rejection(RejectReason.FAILED, backoff.last_error)
        most = self.ledger.waiters._admission.policy.max_waiting
        if most is not None:
            room = max(0, self.ledger.limit - self.ledger.open) + self.ledger.opening
            if len(self.model.queue) - room >= most:
                return Rejection(RejectReason.FULL)
        return None

    @precondition(lambda self: self.model.queue)
    @rule(number=any_one)
    def somebody_who_waits_is_cancelled(self, number: int) -> None:
        pick(self.model.queue, number).gone = True

    @precondition(lambda self: self.model.customers)
    @rule(number=any_one)
    def somebody_withdraws(self, number: int) -> None:
        customer = pick(self.model.customers, number)
        waits = customer in self.model.queue
        assert self.ledger.waiters.withdraw(customer) is waits
        if waits:
            self.model.queue.remove(customer)
            self.model.tally.withdrawn += 1

    @precondition(lambda self: self.model.customers)
    @rule(number=any_one)
    def a_deadline_passes(self, number: int) -> None:
        customer = pick(self.model.customers, number)
        waits, backoff = customer in self.model.queue, self.ledger.backoff
        could_have_more = self.ledger.open - self.ledger.opening < self.ledger.limit
        is_failing = customer.arrived < backoff.until and could_have_more
        self.ledger.expire(customer)
        assert customer not in self.model.queue
        if waits:
            is_told = customer.answers == [Rejection(RejectReason.FAILED, NO)]
            assert is_told == (is_failing and not self.ledger.suspended)

    # What is checked out.

    @precondition(where_some_are(CHECKED_OUT))
    @rule(number=any_one)
    def a_lease_comes_back(self, number: int) -> None:
        slot = self.model.free(pick(self.model.in_state(CHECKED_OUT), number))
        eviction = slot.eviction
        self.ledger.release(slot, self.model.now)
        assert eviction is None or slot.state is CLOSING

    @precondition(where_some_are(CHECKED_OUT))
    @rule(number=any_one)
    def a_lease_turns_out_to_be_broken(self, number: int) -> None:
        slot = pick(self.model.in_state(CHECKED_OUT), number)
        self.ledger.remove(self.model.gone(slot), self.model.now)
        if not self.checks_out():
            customer = Customer(self.model)
            customer.came_at -= self.model.now - slot.checked_out_at
            self.ledger.wait_again(customer, slot.checked_out_at, self.model.now)
            self.model.joined(customer, in_front=True)

    @precondition(where_some_are(CHECKED_OUT))
    @rule(number=any_one)
    def a_lease_comes_back_during_a_query(self, number: int) -> None:
        slot = pick(self.model.in_state(CHECKED_OUT), number)
        self.ledger.recover(slot)
        self.model.slots[slot] = RECOVERING

    @precondition(where_some_are(RECOVERING))
    @rule(number=any_one, recovered=st.booleans())
    def a_recovery_ends(self, number: int, recovered: bool) -> None:
        slot = pick(self.model.in_state(RECOVERING), number)
        if recovered:
            self.ledger.restore(self.model.free(slot), self.model.now)
        else:
            self.ledger.remove(self.model.gone(slot), self.model.now)

    @precondition(where_some_are(CHECKED_OUT, CHECKING, RECOVERING))
    @rule(number=any_one)
    def something_is_discarded(self, number: int) -> None:
        slot = self.model.free(pick(self.model.in_state(CHECKED_OUT, CHECKING, RECOVERING), number))
        self.model.to_do = [order for order in self.model.to_do if order.slot is not slot]
        self.ledger.close_connection(slot, CloseReason.DEAD)
        assert slot.state is CLOSING

    # What is ordered.

    @precondition(lambda self: self.model.to_do)
    @rule(number=any_one)
    def an_order_is_carried_out(self, number: int) -> None:
        order = pick(self.model.to_do, number)
        self.model.to_do.remove(order)
        self.succeed(order)

    def succeed(self, order: Action) -> None:
        match order:
            case Open(slot):
                self.ledger.opened(self.model.free(slot), self.model.now)
            case Close(slot):
                self.ledger.remove(self.model.gone(slot), self.model.now)
            case Ping(slot):
                self.ledger.restore(self.model.free(slot), self.model.now)

    @precondition(lambda self: any(isinstance(order, Open) for order in self.model.to_do))
    @rule(number=any_one, how=st.sampled_from(["refused", "transient", "otherwise"]))
    def a_connect_fails(self, number: int, how: str) -> None:
        order = pick([order for order in self.model.to_do if isinstance(order, Open)], number)
        self.model.to_do.remove(order)
        slot = self.model.gone(order.slot)
        told = self.model.must_learn(slot, transient=how == "transient")
        before = self.model.tally.rejected
        self.ledger.failed(
            slot, self.model.now, NO, refused=how == "refused", transient=how == "transient"
        )
        assert all(customer.answers == [Rejection(RejectReason.FAILED, NO)] for customer in told)
        assert self.model.tally.rejected == before + len(told)

    # Time and the operator.

    @rule(seconds=st.sampled_from([0.001, 0.02, 0.2, 1.0, 4.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.model.passes(seconds)
        self.ledger.open_for_waiters(self.model.now)

    @rule(seconds=st.sampled_from([0.01, 0.2, 6.0]))
    def the_loop_stands_still(self, seconds: float) -> None:
        self.model.stands_still(seconds)
        self.ledger.open_for_waiters(self.model.now)

    @rule()
    def housekeeping_runs(self) -> None:
        self.housekeeper.run(self.model.now)

    @precondition(where_some_are(IDLE))
    @rule(number=any_one)
    def a_ping_is_ordered(self, number: int) -> None:
        self.ledger.ping(pick(self.model.in_state(IDLE), number))

    @precondition(where_some_are(IDLE, CHECKED_OUT, CHECKING))
    @rule(number=any_one)
    def something_is_retired(self, number: int) -> None:
        slot = pick(self.model.in_state(IDLE, CHECKED_OUT, CHECKING), number)
        self.ledger.evict(slot, CloseReason.INVALID)

    @rule(size=sizes, overflow=overflows)
    def the_pool_is_resized(self, size: int, overflow: int) -> None:
        self.ledger.resize(size, overflow, self.model.now)

    @rule(suspended=st.booleans())
    def the_pool_is_suspended_or_resumed(self, suspended: bool) -> None:
        if suspended:
            self.ledger.suspend()
        else:
            self.ledger.resume(self.model.now)

    @rule(disposed_of=seldom, closed=seldom)
    def the_pool_is_disposed_of_or_closed(self, disposed_of: bool, closed: bool) -> None:
        if disposed_of:
            self.housekeeper.is_paused = True
            self.ledger.dispose()
        if closed:
            self.ledger.close()

    @rule()
    def everybody_is_served_in_the_end(self) -> None:
        model = self.model
        for _ in range(ROUNDS):
            model.compare()
            if model.to_do:
                self.succeed(model.to_do.pop(0))
            elif checked_out := model.in_state(CHECKED_OUT):
                self.ledger.release(model.free(checked_out[0]), model.now)
            elif recovery := model.in_state(RECOVERING):
                self.ledger.restore(model.free(recovery[0]), model.now)
            elif model.queue and not self.ledger.suspended:
                model.now = max(model.now, self.ledger.backoff.until)
                self.ledger.open_for_waiters(model.now)
            else:
                break
        assert not model.queue or self.ledger.suspended
        assert not model.slots or not self.ledger.closed


@pytest.mark.slow
def test_the_books_are_right_whatever_happens() -> None:
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=400, stateful_step_count=50, deadline=None, derandomize=True
        ),
    )
