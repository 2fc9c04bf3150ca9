from collections import Counter
from random import Random

import pytest

from penstock.errors import SettingsError
from penstock.load import Request, RequestKind, Scenario


def kind(name: str, weight: float = 1.0) -> RequestKind:
    return RequestKind(name, weight, lambda random: Request(f"/{name}/{random.randrange(1000)}"))


def drawn(scenario: Scenario, seed: int, count: int) -> list[tuple[str, Request]]:
    random = Random(seed)
    return [scenario.draw(random) for _ in range(count)]


def test_equal_seeds_give_equal_requests() -> None:
    scenario = Scenario((kind("read", 3), kind("write")))

    assert drawn(scenario, 7, 50) == drawn(scenario, 7, 50)
    assert drawn(scenario, 7, 50) != drawn(scenario, 8, 50)


def test_a_kind_is_drawn_as_often_as_its_weight_says() -> None:
    scenario = Scenario((kind("read", 3), kind("write", 1)))

    counts = Counter(name for name, _ in drawn(scenario, 1, 4000))

    assert counts.keys() == {"read", "write"}
    assert 2850 < counts["read"] < 3150


@pytest.mark.parametrize("weight", [0, -1, float("nan")])
def test_a_weight_that_is_not_above_zero_is_refused(weight: float) -> None:
    with pytest.raises(SettingsError, match="read weighs"):
        Scenario((kind("read", weight),))


def test_a_scenario_without_kinds_is_refused() -> None:
    with pytest.raises(SettingsError, match="at least one"):
        Scenario(())


def test_two_kinds_of_one_name_are_refused() -> None:
    with pytest.raises(SettingsError, match="each name once"):
        Scenario((kind("read"), kind("read")))
