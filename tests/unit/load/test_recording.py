from dataclasses import FrozenInstanceError

import pytest

from penstock.load.result import Outcome, Recording


def answered(milliseconds: float, error: str | None = None) -> Outcome:
    return Outcome(error=error, latency=milliseconds / 1000)


def test_the_figures_of_a_kind_are_those_of_its_own_requests() -> None:
    recording = Recording(["read", "write"])
    for milliseconds in range(1, 101):
        recording.add("read", answered(milliseconds))
    recording.add("write", answered(500, error="409"))

    result = recording.result(seconds=2.0)

    read, write = result.kinds["read"], result.kinds["write"]
    assert (read.requests, read.successes, read.success_rate, dict(read.errors)) == (
        100,
        100,
        1,
        {},
    )
    assert read.requests_per_second == 50
    assert [read.p50_ms, read.p90_ms, read.p99_ms, read.max_ms] == pytest.approx(
        [50, 90, 99, 100], rel=1e-3
    )
    assert (write.requests, write.successes, write.success_rate) == (1, 0, 0)
    assert dict(write.errors) == {"409": 1}


def test_the_total_is_over_the_requests_of_all_kinds() -> None:
    recording = Recording(["read", "write"])
    recording.add("read", answered(1))
    recording.add("read", Outcome(error="TimeoutError", latency=None))
    recording.add("write", answered(3))
    recording.add("write", answered(9, error="500"))

    total = recording.result(seconds=1.0).total

    assert (total.requests, total.successes, total.success_rate) == (4, 2, 0.5)
    assert dict(total.errors) == {"TimeoutError": 1, "500": 1}
    assert [total.p50_ms, total.max_ms] == pytest.approx([3, 9])


def test_a_kind_without_an_answer_has_no_latency() -> None:
    recording = Recording(["read", "never"])
    recording.add("read", Outcome(error="TimeoutError", latency=None))

    kinds = recording.result(seconds=1.0).kinds

    assert [kinds["read"].p50_ms, kinds["read"].max_ms] == [None, None]
    assert (kinds["never"].requests, kinds["never"].success_rate, kinds["never"].p99_ms) == (
        0,
        0,
        None,
    )


def test_a_run_of_no_duration_has_no_rate() -> None:
    assert Recording(["read"]).result(seconds=0.0).total.requests_per_second == 0


def test_a_result_cannot_be_changed() -> None:
    result = Recording(["read"]).result(seconds=1.0)

    with pytest.raises(FrozenInstanceError):
        result.total.requests = 3  # type: ignore[misc]  # the refusal is what is tested
    with pytest.raises(TypeError):
        result.kinds["write"] = result.total  # type: ignore[index]  # the same
