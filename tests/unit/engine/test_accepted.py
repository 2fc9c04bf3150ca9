"""Connections that are looked at before they are used: none is left open that is not."""

import asyncio
from typing import Any

import pytest

from penstock.engine.standby import to_accepted

HOSTS = {"host": ["a", "b"], "port": [1, 2]}


class Connection:
    """What a driver has opened."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.is_open = True

    def terminate(self) -> None:
        """Close it."""
        self.is_open = False


class Server:
    """Opens connections, and has them looked at."""

    def __init__(self, *answers: object) -> None:
        self.opened: list[Connection] = []
        self._answers = list(answers)

    async def connect(self, *, host: str, port: int) -> Connection:
        """Open one."""
        assert port
        self.opened.append(Connection(host))
        return self.opened[-1]

    async def accepts(self, _: Connection) -> bool:
        """Look at one."""
        answer: Any = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await asyncio.Event().wait()
        return bool(answer)


@pytest.mark.parametrize("first", [False, OSError("gone"), None], ids=["no", "error", "silence"])
async def test_the_next_host_is_tried_and_the_first_is_closed(first: object) -> None:
    server = Server(first, True)

    used = await to_accepted(server.connect, server.accepts, 0.1)(**HOSTS)

    assert used.host == "b"
    assert [each.is_open for each in server.opened] == [False, True]


@pytest.mark.parametrize("last", [False, OSError("gone")], ids=["no", "error"])
async def test_where_none_is_accepted_none_is_open(last: object) -> None:
    server = Server(False, last)

    with pytest.raises(OSError, match=r"earlier timeline|gone"):
        await to_accepted(server.connect, server.accepts, 1)(**HOSTS)

    assert not any(each.is_open for each in server.opened)


async def test_a_cancelled_look_leaves_nothing_open() -> None:
    server = Server(None)
    opening = asyncio.ensure_future(to_accepted(server.connect, server.accepts, 60)(**HOSTS))
    await asyncio.sleep(0)
    opening.cancel()

    with pytest.raises(asyncio.CancelledError):
        await opening
    assert [each.is_open for each in server.opened] == [False]
