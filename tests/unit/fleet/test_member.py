"""A member, and the name of its connections."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.fleet.member import LARGEST_POOL, LARGEST_WEIGHT, LONGEST_NAME, Member
from penstock.fleet.view import View
from penstock.planner import ServerLimits


@given(st.text(max_size=63), st.integers(1, LARGEST_WEIGHT), st.integers(1, LARGEST_POOL))
def test_a_member_is_found_again_by_the_name_of_its_connections(
    application_name: str, weight: int, most: int
) -> None:
    member = Member.new(weight, most)
    name = member.name(application_name)

    assert Member.of_name(name) == member
    assert len(name.encode()) <= LONGEST_NAME


def test_a_name_begins_with_that_of_the_service() -> None:
    assert Member("0123abcd", 2, 50).name("orders") == "orders fleet:0123abcd/2/50"
    assert Member("0123abcd", 2, 50).name("é" * 31).startswith("é" * 21 + " fleet:")


def test_no_two_members_have_one_id() -> None:
    assert len({Member.new(1, 5).id for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "name",
    [
        "",
        "penstock",
        "fleet:0123abcd/1/50",
        "a fleet:0123abcd/0/50",
        "a fleet:0123abcd/1/0",
        "a fleet:0123abcd/1001/50",
        "a fleet:0123abcd/1/2001",
        "a fleet:0123abcd/1/50/1",
        "a fleet:0123ABCD/1/50",
        "a fleet:0123abcd/1/50\n",
        "a fleet:0123abcd/1/٣",
    ],
)
def test_other_clients_are_no_members(name: str) -> None:
    assert Member.of_name(name) is None


def test_a_view_counts_members_and_other_clients_apart() -> None:
    one, other = Member("0000000a", 1, 50), Member("0000000b", 2, 5)
    rows = [
        (40, 3, 7, one.name("a"), 3),
        (40, 3, 7, one.name("b"), 1),
        (40, 3, 7, other.name("a"), 2),
        (40, 3, 7, "psql", 4),
        (40, 3, 7, "", 1),
    ]

    assert View.of_rows(rows) == View(ServerLimits(40, 3), {one: 4, other: 2}, outside=5)
