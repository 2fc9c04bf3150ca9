"""How connections are divided."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.fleet.division import divide
from penstock.fleet.member import Member

WEIGHTS = st.integers(1, 1000)
MEMBERS = st.lists(
    st.tuples(WEIGHTS, st.integers(1, 60)).map(lambda each: ("", *each)), min_size=1, max_size=30
).map(lambda each: [Member(f"{id_:08x}", *rest) for id_, (_, *rest) in enumerate(each)])
BUDGETS = st.integers(-5, 300)


def of_weights(*weights: int, most: int = 50) -> list[Member]:
    return [Member(f"{id_:08x}", weight, most) for id_, weight in enumerate(weights)]


@pytest.mark.parametrize(
    ("budget", "weights", "expected"),
    [
        (24, (1,) * 12, [2] * 12),
        (24, (1,) * 9, [3, 3, 3, 3, 3, 3, 2, 2, 2]),
        (8, (1, 3), [2, 6]),
        (30, (1, 2, 3), [5, 10, 15]),
        (12, (1000, 1), [11, 1]),
        (3, (1,) * 5, [1] * 5),
        (0, (1, 1), [1, 1]),
        (100, (1, 1), [50, 50]),
        (200, (1, 1), [50, 50]),
    ],
)
def test_shares_are_in_proportion_to_the_weights(
    budget: int, weights: tuple[int, ...], expected: list[int]
) -> None:
    assert list(divide(budget, of_weights(*weights)).values()) == expected


def test_what_a_small_pool_cannot_use_goes_to_the_others() -> None:
    members = [Member("a", 1, 2), Member("b", 1, 50), Member("c", 1, 50)]

    assert divide(20, members) == {"a": 2, "b": 9, "c": 9}


def test_every_member_divides_alike_in_whatever_order_it_sees_the_others() -> None:
    members = of_weights(1, 1, 2, 5)

    assert len({tuple(sorted(divide(14, each).items())) for each in permutations(members)}) == 1


@given(BUDGETS, MEMBERS)
def test_all_is_divided_and_no_more_but_for_the_floor(budget: int, members: list[Member]) -> None:
    shares = divide(budget, members)

    assert all(1 <= shares[each.id] <= each.most for each in members)
    usable = sum(each.most for each in members)
    assert sum(shares.values()) == max(len(members), min(budget, usable))


@given(BUDGETS, MEMBERS)
def test_shares_are_the_weights_within_rounding(budget: int, members: list[Member]) -> None:
    shares = divide(budget, members)
    above_floor = [each for each in members if shares[each.id] > 1]
    below_most = [each for each in members if shares[each.id] < each.most]

    for more in above_floor:
        for less in below_most:
            # A connection that moved from the one to the other would not come closer.
            assert (2 * shares[more.id] - 1) * less.weight <= (
                2 * shares[less.id] + 1
            ) * more.weight


@given(BUDGETS, MEMBERS)
def test_a_larger_budget_and_a_smaller_fleet_take_nothing_away(
    budget: int, members: list[Member]
) -> None:
    shares = divide(budget, members)
    more = divide(budget + 1, members)
    fewer = divide(budget, members[1:])

    assert all(more[each] >= share for each, share in shares.items())
    assert all(fewer[each.id] >= shares[each.id] for each in members[1:])
