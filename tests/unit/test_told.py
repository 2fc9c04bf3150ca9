"""What the tests read out of a remedy."""

import pytest
from tests.told import advised, numbers


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("Raise pool_size from 20 to 31, or look.", {"pool_size": "31"}),
        ("Set min_idle and pool_recycle to 60.", {"min_idle": "60", "pool_recycle": "60"}),
        ("Set max_waiting to 5, so that none waits for 0.5 s.", {"max_waiting": "5"}),
        ("Raise leak_after if they last. 7 did.", {}),
        ("Set reclaim_leaks to true. wal_keep_size: 8MB is too little.", {"reclaim_leaks": "true"}),
        ("pool_size 3; max_overflow from 4 to 5 (now 6).", {"pool_size": "3", "max_overflow": "5"}),
    ],
)
def test_a_remedy_is_read_by_its_settings(text: str, settings: dict[str, str]) -> None:
    assert advised(text) == settings


def test_numbers_have_their_seconds_and_are_no_parts_of_names() -> None:
    assert numbers("3 of 0.5 s, at v1 and 20%, in 7 seconds.") == ["3", "0.5 s", "20", "7"]
