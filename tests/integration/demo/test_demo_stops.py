"""However a demo is stopped, nothing of it is left."""

import signal
from collections.abc import Iterator

import httpx
import pytest
from tests.integration.demo.demo_process import Machine

OPEN = "Open until Ctrl-C"
MANY = ("--requests", "100000")


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.remove()


def test_it_stays_open_until_ctrl_c(machine: Machine) -> None:
    with machine.demo() as demo:
        demo.until(OPEN)
        for path in ("/docs", "/health", "/pool-stats", "/pool", "/users/1"):
            assert httpx.get(demo.url() + path, trust_env=False).status_code == 200
            assert path == "/users/1" or f"{demo.url()}{path} " in demo.output
        (database,) = httpx.get(f"{demo.url()}/pool/state", trust_env=False).json()["databases"]
        assert len(database["workers"]) == 1  # the demo itself is none
        assert database["counters"]["checkouts"] > 0

        demo.signal(signal.SIGINT)

        assert demo.exit_status() == 0
    assert "Traceback" not in demo.output
    assert machine.is_clean()


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "Starting a PostgreSQL"),
        (signal.SIGHUP, "making the table of users"),
        (signal.SIGTERM, "Serving on"),
        (signal.SIGINT, "Serving on"),
    ],
)
def test_a_signal_before_the_results_stops_it(
    machine: Machine, number: signal.Signals, moment: str
) -> None:
    with machine.demo(*MANY) as demo:
        demo.until(moment)

        demo.signal(number)

        assert demo.exit_status() == 128 + number, demo.output
    assert "Traceback" not in demo.output
    assert machine.is_clean()


def test_a_second_ctrl_c_changes_nothing(machine: Machine) -> None:
    with machine.demo() as demo:
        demo.until(OPEN)
        demo.signal(signal.SIGINT)
        demo.until("Stopping")

        demo.signal(signal.SIGINT)

        assert demo.exit_status() == 0
    assert "Traceback" not in demo.output
    assert machine.is_clean()


def test_it_stops_when_nobody_reads_it_any_more(machine: Machine) -> None:
    with machine.demo() as demo:
        demo.until("Starting a PostgreSQL")

        assert demo.stop_reading() == 1
    assert machine.is_clean()


def test_its_processes_and_files_go_also_when_it_is_killed(machine: Machine) -> None:
    with machine.demo() as demo:
        demo.until(OPEN)

        demo.signal(signal.SIGKILL)

        assert demo.exit_status() == -signal.SIGKILL
    assert machine.becomes_clean(), [machine.processes(), machine.files()]


def test_a_service_that_ends_by_itself_is_reported(machine: Machine) -> None:
    with machine.demo() as demo:
        demo.until(OPEN)
        machine.kill("penstock.demo.service")

        assert demo.exit_status() == 1
    assert "penstock: The users service has ended by itself." in demo.output
    assert machine.is_clean()
