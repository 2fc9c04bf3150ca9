"""What a log gets of a thousand lines of one kind."""

from penstock.log_limit import LINES, LogLimit


def test_ten_lines_are_written_in_a_second_and_the_rest_is_counted() -> None:
    now = 0.0
    limit = LogLimit(lambda: now)

    first = [limit.passes() for _ in range(1000)]
    now = 0.9
    late = limit.passes()
    now = 1.0
    second = [limit.passes() for _ in range(2)]

    assert first == [0] * LINES + [None] * (1000 - LINES)
    assert late is None
    assert second == [1000 - LINES + 1, 0]


def test_few_lines_all_pass() -> None:
    now = 0.0
    limit = LogLimit(lambda: now)
    for _ in range(100):
        now += 0.2
        assert limit.passes() == 0
