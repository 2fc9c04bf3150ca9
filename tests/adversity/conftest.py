"""What every provoked fault needs: a report that tells why the pool did what it did."""

import logging

import pytest


@pytest.fixture(autouse=True)
def pool_log(caplog: pytest.LogCaptureFixture) -> None:
    """Have a failed test's report show why a connection was not saved."""
    caplog.set_level(logging.DEBUG, logger="penstock.pool")
