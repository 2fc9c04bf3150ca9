"""The fixture that pytest-asyncio runs, in each of its modes."""

import pytest_asyncio

from pytest_penstock import open_for_test

penstock_opened_by_asyncio = pytest_asyncio.fixture(
    open_for_test, name="penstock_opened_by_asyncio"
)
