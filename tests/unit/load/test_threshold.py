import pytest

from penstock.errors import SettingsError
from penstock.load import Generator, LoadResult, Threshold
from penstock.load.result import Outcome, Recording


def result(*milliseconds: float, errors: int = 0, late: int = 0) -> LoadResult:
    recording = Recording(["any"])
    for each in milliseconds:
        recording.add("any", Outcome(error=None, latency=each / 1e3, status=200))
    for _ in range(errors):
        recording.add("any", Outcome(error="TimeoutError", latency=None))
    return recording.result(seconds=2.0, generator=Generator(late=late))


RUN = result(*range(1, 100), errors=1, late=5)


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("p99>50ms", True),
        ("p99>99ms", False),
        ("p99 >= 98ms", True),
        ("p50<=50ms", True),
        ("p50<0.0499s", False),
        ("p50<0.051s", True),
        ("p99.9>98900us", True),
        ("max>99ms", False),
        ("max>=99ms", True),
        ("mean>49ms", True),
        ("mean>50.1ms", False),
        ("success<99.9%", True),
        ("success<99%", False),
        ("errors>0", True),
        ("errors>1", False),
        ("errors>=1%", True),
        ("errors>1%", False),
        ("late>4", True),
        ("late>5%", False),
        ("rps<50", False),
        ("rps<=50", True),
        ("p50>+9%", True),
        ("p50>+11%", False),
        ("mean<-1%", False),
        ("rps<-0.5%", True),
        ("rps<-2%", False),
    ],
)
def test_a_run_fails_the_conditions_that_hold(text: str, fails: bool) -> None:
    before = result(*(each / 1.1 for each in range(1, 101)), errors=1)

    assert (Threshold.parse(text).failure(RUN, before) is not None) is fails


def test_a_failure_says_what_the_figure_is() -> None:
    assert Threshold.parse("success<99.9%").failure(RUN) == "success<99.9%: it is 99 %"
    assert Threshold.parse("max>1ms").failure(RUN) == "max>1ms: it is 99 ms"


@pytest.mark.parametrize("text", ["p99>50ms", "p99<50ms", "max>1s", "success<1%", "p50>+1%"])
def test_a_run_without_a_figure_fails(text: str) -> None:
    assert Threshold.parse(text).failure(result(), result(1.0)) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "p99",
        "p99>50",
        "p99=50ms",
        "p99>-5ms",
        "p100>5ms",
        "p>5ms",
        "p99>5%",
        "p99>+5ms",
        "success<99",
        "success<-1%",
        "errors>1ms",
        "rps<5%",
        "rps<+5",
        "latency>5ms",
        "p99>50ms or max>1s",
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--fail-if"):
        Threshold.parse(text)
