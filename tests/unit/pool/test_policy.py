"""The settings of the pool: frozen, and wrong values are refused by name."""

import dataclasses
import math
from typing import Any

import pytest

from penstock.errors import SettingsError
from penstock.pool.policy import PoolPolicy, nested_checkout_policy
from penstock.pool.queue import AdmissionPolicy
from penstock.settings import NestedCheckoutPolicy

AT_LEAST_0 = ("min_idle", "max_waiting", "keepalive", "idle_before_ping", "connect_retry")
POSITIVE = (
    "codel_target",
    "codel_interval",
    "overflow_idle",
    "ping_timeout",
    "connect_timeout",
    "leak_after",
)
OPTIONAL = ("max_waiting", "codel_target", "connect_retry", "leak_after")
WHOLE = ("min_idle", "max_waiting", "connects_at_once")
NUMBERS = (*AT_LEAST_0, "connects_at_once", *POSITIVE)
NO_NUMBERS: tuple[object, ...] = (math.nan, "5", True, [], b"5")


def policy_with(name: str, value: Any) -> PoolPolicy:
    """Return a policy with one setting that need not have the right type."""
    return PoolPolicy(**{name: value})


def refusal_of(name: str, value: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        policy_with(name, value)
    return str(caught.value)


def test_the_defaults_are_accepted_and_leave_the_costly_features_off() -> None:
    policy = PoolPolicy()

    assert policy.max_waiting is None
    assert policy.codel_target is None
    assert policy.leak_after is None
    assert not policy.records_checkouts


@pytest.mark.parametrize("name", AT_LEAST_0)
def test_a_negative_number_is_refused_where_0_is_the_least(name: str) -> None:
    assert refusal_of(name, -1) == f"{name}=-1: a number of 0 or more is accepted"
    assert getattr(policy_with(name, 0), name) == 0


@pytest.mark.parametrize("value", [0, -1])
def test_less_than_one_connect_at_once_is_refused(value: int) -> None:
    expected = f"connects_at_once={value}: a number of 1 or more is accepted"
    assert refusal_of("connects_at_once", value) == expected
    assert PoolPolicy(connects_at_once=1).connects_at_once == 1


@pytest.mark.parametrize("name", POSITIVE)
@pytest.mark.parametrize("value", [0, 0.0, -0.5, -math.inf])
def test_a_time_that_is_not_positive_is_refused(name: str, value: float) -> None:
    expected = f"{name}={value!r}: a number greater than 0 is accepted"
    assert refusal_of(name, value) == expected


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_number_is_refused(name: str, value: object) -> None:
    assert refusal_of(name, value).startswith(f"{name}={value!r}: a number ")


@pytest.mark.parametrize("name", OPTIONAL)
def test_none_switches_an_optional_feature_off(name: str) -> None:
    assert getattr(policy_with(name, None), name) is None


@pytest.mark.parametrize("name", sorted(set(NUMBERS) - set(OPTIONAL)))
def test_none_is_refused_where_nothing_can_be_off(name: str) -> None:
    assert refusal_of(name, None).startswith(f"{name}=None: ")


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [2.5, math.inf])
def test_what_is_no_whole_number_is_refused_where_things_are_counted(
    name: str, value: float
) -> None:
    assert refusal_of(name, value).startswith(f"{name}={value!r}: ")


def test_a_policy_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PoolPolicy().min_idle = 3  # type: ignore[misc]  # that is the point


def test_the_arguments_make_an_equal_policy() -> None:
    policy = PoolPolicy(min_idle=3, max_waiting=7, leak_after=1.5, reclaim_leaks=True)
    arguments: dict[str, Any] = policy.as_arguments()

    assert PoolPolicy(**arguments) == policy
    assert set(arguments) == {field.name for field in dataclasses.fields(PoolPolicy)}


def test_the_queue_gets_its_part() -> None:
    policy = PoolPolicy(
        max_waiting=7,
        codel_target=0.01,
        codel_interval=0.2,
    )

    assert policy.admission == AdmissionPolicy(7, 0.01, 0.2)


@pytest.mark.parametrize(
    ("policy", "notes"),
    [
        (PoolPolicy(leak_after=1.0), True),
        (PoolPolicy(nested_checkout=NestedCheckoutPolicy.REFUSE), True),
        (PoolPolicy(nested_checkout=NestedCheckoutPolicy.WARN), False),
        (PoolPolicy(nested_checkout=NestedCheckoutPolicy.ALLOW), False),
    ],
)
def test_leases_are_noted_where_somebody_will_ask(policy: PoolPolicy, notes: bool) -> None:
    assert policy.records_checkouts is notes


@pytest.mark.parametrize("value", ["refuse", "warn", "allow"])
def test_nested_checkout_is_known_by_name(value: str) -> None:
    assert nested_checkout_policy(value) == value
    assert isinstance(nested_checkout_policy(value), NestedCheckoutPolicy)


@pytest.mark.parametrize("value", ["", "REFUSE", "never"])
def test_an_unknown_way_with_nested_checkouts_is_refused(value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        nested_checkout_policy(value)

    assert str(caught.value) == f"nested_checkout={value!r}: one of refuse, warn, allow is accepted"
