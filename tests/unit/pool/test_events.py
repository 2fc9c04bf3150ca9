"""Those who listen to a pool, and cannot break it."""

import logging

import pytest

from penstock.pool.events import CheckedIn, CheckedOut, Listeners, PoolEvent

OUT, BACK = CheckedOut(0.0), CheckedIn(1.5)


def failing(event: PoolEvent) -> None:
    raise ValueError("the exporter is broken")


def test_everybody_is_told_in_the_order_of_joining() -> None:
    heard: list[tuple[str, PoolEvent]] = []
    listeners = Listeners()
    listeners.add(lambda event: heard.append(("first", event)))
    listeners.add(lambda event: heard.append(("second", event)))

    listeners.notify(OUT)
    listeners.notify(BACK)

    assert heard == [("first", OUT), ("second", OUT), ("first", BACK), ("second", BACK)]


def test_a_listener_that_fails_is_logged_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before: list[PoolEvent] = []
    after: list[PoolEvent] = []
    listeners = Listeners()
    for listener in (before.append, failing, after.append):
        listeners.add(listener)

    with caplog.at_level(logging.ERROR, "penstock.pool"):
        listeners.notify(OUT)

    assert before == after == [OUT]
    [record] = caplog.records
    assert record.name == "penstock.pool"
    assert "CheckedOut" in record.getMessage()
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "the exporter is broken"


def test_a_listener_that_failed_is_told_of_the_next_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listeners = Listeners()
    listeners.add(failing)

    listeners.notify(OUT)
    listeners.notify(BACK)

    assert len(caplog.records) == 2


def test_a_listener_that_was_removed_hears_nothing_more() -> None:
    heard: list[PoolEvent] = []
    others: list[PoolEvent] = []
    listeners = Listeners()
    listeners.add(heard.append)
    listeners.add(others.append)
    listeners.notify(OUT)

    listeners.remove(heard.append)
    listeners.notify(BACK)

    assert heard == [OUT]
    assert others == [OUT, BACK]


def test_removing_somebody_who_does_not_listen_changes_nothing() -> None:
    listeners = Listeners()
    listeners.add(failing)

    listeners.remove(print)

    assert listeners.all == (failing,)


def test_a_listener_may_remove_itself_while_it_is_told() -> None:
    heard: list[PoolEvent] = []
    others: list[PoolEvent] = []
    listeners = Listeners()

    def once(event: PoolEvent) -> None:
        heard.append(event)
        listeners.remove(once)

    listeners.add(once)
    listeners.add(others.append)
    listeners.notify(OUT)
    listeners.notify(BACK)

    assert heard == [OUT]
    assert others == [OUT, BACK]


def test_a_cancellation_in_a_listener_goes_on() -> None:
    def interrupted(event: PoolEvent) -> None:
        raise KeyboardInterrupt

    listeners = Listeners()
    listeners.add(interrupted)

    with pytest.raises(KeyboardInterrupt):
        listeners.notify(OUT)


def test_without_listeners_an_event_need_not_be_made() -> None:
    assert Listeners().all == ()
