"""The fixtures that pytest-asyncio runs, in each of its modes, one for each scope of a loop."""

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from pytest_penstock import LOOP_SCOPES, open_for_test


def _opened_in(scope: Any) -> Any:
    @pytest_asyncio.fixture(name=f"penstock_opened_by_asyncio_{scope}", loop_scope=scope)
    async def opened(request: Any, penstock_url: str, penstock_app: Any) -> AsyncIterator[Any]:
        async with open_for_test(request, penstock_url, penstock_app) as database_and_state:
            yield database_and_state

    return opened


globals().update({f"opened_in_{scope}": _opened_in(scope) for scope in LOOP_SCOPES})
