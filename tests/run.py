"""Run pytest, and once more alone what failed of the tests that depend on real time.

``python -m tests.run ARGUMENTS`` takes pytest's arguments. It returns 0 where all passed, some of
them perhaps in the second run. The last lines name those that needed it, and tell how many.
"""

import subprocess
import sys
from collections.abc import Sequence

import pytest

REAL_TIME = "real_time"
# So many failures are no matter of time.
MOST = 50


class Failures:
    """What failed in a run, as pytest reports it, also from other processes."""

    def __init__(self) -> None:
        self.of_real_time: dict[str, None] = {}
        self.others: dict[str, None] = {}
        self.is_whole = True

    @property
    def can_be_a_matter_of_time(self) -> bool:
        """Whether a second run may say something else."""
        return self.is_whole and not self.others and 0 < len(self.of_real_time) <= MOST

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a test that failed, or whose fixtures did."""
        if report.failed:
            kind = self.of_real_time if REAL_TIME in report.keywords else self.others
            kind[report.nodeid] = None

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record that a file could not be read."""
        if report.failed:
            self.is_whole = False

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Record whether the run was stopped before its end."""
        if session.shouldfail or session.shouldstop:
            self.is_whole = False


def main(arguments: Sequence[str]) -> int:
    """Run the tests, and return the status to exit with."""
    failures = Failures()
    status = int(pytest.main(list(arguments), plugins=[failures]))
    names = list(failures.of_real_time)
    if status == pytest.ExitCode.TESTS_FAILED and failures.can_be_a_matter_of_time:
        print(f"\nOnce more, alone: {len(names)}", flush=True)
        status = _alone(names)
        print("\n".join(["", *names]))
    elif status != pytest.ExitCode.OK:
        return status
    print(f"needed a second run: {len(names)}")
    return status


def _alone(names: Sequence[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", *names]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
