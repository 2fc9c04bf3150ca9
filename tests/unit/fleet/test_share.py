"""A member's share, whatever the others do and however late it sees them."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.fleet.processes import DIVIDED, LIMITS, Server

from penstock.fleet.member import Member
from penstock.fleet.share import CLAIM_WINDOW, OUTSIDE_WINDOW, Share
from penstock.fleet.view import View

SETTLED_AFTER = 5.0

EVENTS = st.lists(
    st.tuples(
        st.floats(0, 6),
        st.sampled_from(["join", "join", "leave", "kill", "outside"]),
        st.integers(0, 20),
        st.sampled_from([1, 1, 2, 7]),
        st.sampled_from([1, 3, 50]),
    ),
    min_size=1,
    max_size=25,
)


def happen(server: Server, kind: str, number: int, weight: int, most: int) -> None:
    alive = server.alive
    if kind == "join" or not alive:
        server.join(weight, most)
    elif kind == "outside":
        server.outside = number
    else:
        getattr(server, kind)(alive[number % len(alive)])


@given(events=EVENTS, seed=st.integers(0, 1_000))
def test_connections_stay_within_the_budget_once_the_fleet_has_settled(
    events: list[tuple[float, str, int, int, int]], seed: int
) -> None:
    server = Server(Random(seed))
    for delay, *event in events:
        server.run(delay)
        happen(server, *event)  # type: ignore[arg-type]  # mypy loses the types of the rest
    server.run(SETTLED_AFTER)

    def is_within() -> None:
        assert server.open <= server.budget
        assert all(1 <= each.limit <= each.member.most for each in server.alive)

    server.run(OUTSIDE_WINDOW + SETTLED_AFTER, is_within)

    assert {each.member.id: each.limit for each in server.alive} == server.due()


@given(
    events=st.lists(
        st.tuples(
            st.floats(0, 6),
            st.sampled_from(["join", "join", "leave", "kill", "blink", "blink"]),
            st.integers(0, 20),
            st.just(1),
            st.just(50),
        ),
        max_size=25,
    ),
    seed=st.integers(0, 1_000),
)
def test_at_every_moment_only_the_floors_of_new_members_are_above_what_is_divided(
    events: list[tuple[float, str, int, int, int]], seed: int
) -> None:
    server = Server(Random(seed))

    def is_within() -> None:
        new = [each for each in server.processes if server.now - each.joined_at < SETTLED_AFTER]
        assert server.open <= max(DIVIDED, len(server.alive)) + len(new)

    for delay, *event in events:
        server.run(delay, is_within)
        happen(server, *event)  # type: ignore[arg-type]  # mypy loses the types of the rest
        is_within()
    server.run(10, is_within)


ME, OTHER = Member("0000000a", 1, 50), Member("0000000b", 1, 50)


def seen(mine: int, others: int | None = None, outside: int = 0) -> View:
    """What I see: my own connections, and another member's if there is one."""
    rest = {} if others is None else {OTHER: others}
    return View(LIMITS, {ME: mine, **rest}, outside)


def my_share() -> Share:
    return Share(ME, reserve=0.25, surge=0.1)


def shares(share: Share, *views: tuple[float, View]) -> list[int]:
    """The share after each view, which comes at its time."""
    found = []
    for now, view in views:
        share.update(view, now, now)
        found.append(share.snapshot.share)
    return found


def test_the_only_member_has_all_after_a_while_and_half_as_soon_as_it_sees_another() -> None:
    alone = [(now, seen(1)) for now in range(4)]

    assert shares(my_share(), *alone, (5, seen(24, 1))) == [1, 1, 1, 24, 12]


def test_a_member_that_joins_is_at_its_floor_until_it_has_seen_the_others_shrink() -> None:
    views = [(now, seen(1, 24 if now < 2 else 12)) for now in range(6)]

    # At 3 and 4 it still counts what the other had 3 s ago.
    assert shares(my_share(), *views) == [1, 1, 1, 1, 1, 12]
    assert CLAIM_WINDOW == 3


def test_members_that_have_just_joined_do_not_keep_the_others_at_their_floor() -> None:
    third = Member("0000000c", 1, 50)
    views = [
        (0, seen(1)),
        (1, seen(1, 1)),
        (2, View(LIMITS, {ME: 1, OTHER: 1, third: 1}, 0)),
        (3, View(LIMITS, {ME: 1, OTHER: 1, third: 1}, 0)),
    ]

    # The one of second 1 may have taken its share of 8 by now, the third has its floor.
    assert shares(my_share(), *views)[-1] == 8


def test_what_another_holds_beyond_its_share_is_not_taken_from_it() -> None:
    views = [(now, seen(1, 20)) for now in range(10)]

    assert shares(my_share(), *views)[-1] == 24 - 20


def test_a_member_that_is_not_seen_for_a_moment_keeps_its_share() -> None:
    before = [(now, seen(12, 12)) for now in range(5)]
    gone = (5, seen(12))
    back = [(now, seen(12, 12)) for now in range(6, 10)]

    assert shares(my_share(), *before, gone, *back)[4:] == [12] * 6


def test_the_share_of_a_member_that_has_left_is_taken_after_the_window() -> None:
    before = [(now, seen(12, 12)) for now in range(5)]
    gone = [(now, seen(12)) for now in range(5, 9)]

    assert shares(my_share(), *before, *gone)[5:] == [12, 12, 12, 24]


def test_after_a_gap_nothing_is_known_of_the_others() -> None:
    share = my_share()
    assert shares(share, *((now, seen(12, 12)) for now in range(5)))[-1] == 12

    # After a restart of the server the first to come back sees itself alone.
    assert shares(share, *((now, seen(1)) for now in (60, 61, 62, 63))) == [12, 12, 12, 24]


def test_connections_of_other_clients_are_not_in_the_budget_until_a_while_after_their_end() -> None:
    share = my_share()
    assert shares(share, *((now, seen(1)) for now in (-2, -1, 0, 1)))[-1] == 24

    assert shares(share, (2, seen(24, outside=7)), (2.5, seen(18))) == [18, 18]
    assert str(share.snapshot) == "18 of 18 connections, for 1 member(s); 7 of other clients"
    rest = [(float(now), seen(18)) for now in range(3, 32)]
    assert shares(share, *rest)[-1] == 18
    assert shares(share, (2 + OUTSIDE_WINDOW + 0.5, seen(18))) == [24]


def test_one_connection_is_left_whatever_other_clients_take() -> None:
    assert shares(my_share(), (0, seen(1, 1, outside=36))) == [1]
