"""The ledger on long walks: what chance brings about in thousands of steps, beside the model."""

import contextlib
from collections.abc import Callable
from random import Random

import pytest
from tests.unit.pool.callers import new_ledger
from tests.unit.pool.test_ledger_machine import LedgerMachine, NothingThereError

from penstock.pool.housekeeper import HousekeeperPolicy
from penstock.pool.queue import AdmissionPolicy

STEPS = 3000
REGULAR = {
    "somebody_asks": 12,
    "an_order_is_carried_out": 12,
    "a_lease_comes_back": 8,
    "time_passes": 4,
    "housekeeping_runs": 2,
    "a_deadline_passes": 1,
    "somebody_who_waits_is_cancelled": 1,
    "somebody_withdraws": 1,
}
"""How often each happens, against the others."""
TROUBLE = {
    "a_connect_fails": 1,
    "the_loop_stands_still": 0.5,
    "a_lease_turns_out_to_be_broken": 1,
    "a_lease_comes_back_during_a_query": 1,
    "a_recovery_ends": 1,
    "something_is_discarded": 1,
    "something_is_retired": 1,
    "a_ping_is_ordered": 1,
    "the_pool_is_suspended_or_resumed": 1,
    "the_pool_is_resized": 0.2,
    "the_pool_is_disposed_of_or_closed": 0.2,
    "everybody_is_served_in_the_end": 0.1,
}
Say = Callable[[Random], dict[str, object]]
DETAILS: dict[str, Say] = {
    "somebody_asks": lambda random: {
        "patience": random.choice([0.05, 1.0, 30.0, float("inf")]),
        "retry_for": random.choice([float("inf"), float("inf"), 0.0, 2.0]),
    },
    "a_recovery_ends": lambda random: {"number": 0, "recovered": random.random() < 0.7},
    "a_connect_fails": lambda random: {
        "number": 0,
        "how": random.choice(["refused", "transient", "transient", "otherwise"]),
    },
    "the_loop_stands_still": lambda random: {"seconds": random.choice([0.01, 0.2, 6.0])},
    "time_passes": lambda random: {"seconds": random.choice([0.001, 0.02, 0.2, 1.0, 4.0])},
    "housekeeping_runs": lambda random: {},
    "the_pool_is_resized": lambda random: {
        "size": random.choice([1, 2, 3, 4]),
        "overflow": random.choice([0, 1, 2]),
    },
    "the_pool_is_suspended_or_resumed": lambda random: {"suspended": random.random() < 0.2},
    "the_pool_is_disposed_of_or_closed": lambda random: {
        "disposed_of": True,
        "closed": random.random() < 0.02,
    },
    "everybody_is_served_in_the_end": lambda random: {},
}
"""What else has to be said; a number says which one, where it says nothing else."""


def machine_of(random: Random) -> LedgerMachine:
    machine = LedgerMachine()
    machine.begin(
        ledger=new_ledger(
            random.choice([1, 2, 3, 4]),
            random.choice([0, 0, 1, 2]),
            recycle=random.choice([-1.0, -1.0, 4.0, 30.0]),
            lifo=random.random() < 0.5,
            connects_at_once=random.choice([1, 2, 4]),
            admission=AdmissionPolicy(
                random.choice([None, 6]),
                random.choice([None, 0.005, 0.005]),
                random.choice([0.1, 2.0, 8.0]),
            ),
            seed=random.randrange(100),
        ),
        worker=HousekeeperPolicy(random.choice([0, 2]), 8.0, random.choice([0, 5.0])),
    )
    return machine


def _any_number(random: Random) -> dict[str, object]:
    return {"number": random.randrange(100)}


@pytest.mark.parametrize("trouble", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("seed", range(10))
def test_the_books_are_right_on_a_long_walk(seed: int, trouble: float) -> None:
    random = Random(seed)
    machine = machine_of(random)
    names = [*REGULAR, *TROUBLE]
    weights = [*REGULAR.values(), *(weight * trouble for weight in TROUBLE.values())]

    for name in random.choices(names, weights, k=STEPS):
        say: Say = DETAILS.get(name, _any_number)
        with contextlib.suppress(NothingThereError):
            getattr(machine, name)(**say(random))
        machine.model.compare()
    machine.the_pool_is_suspended_or_resumed(suspended=False)
    machine.everybody_is_served_in_the_end()

    assert machine.model.tally.handed_over
    assert machine.model.queue == []
