"""Requests in numbers."""

import asyncio
from collections.abc import Awaitable, Callable

Send = Callable[[], Awaitable[object]]


async def at_once(send: Send, times: int) -> None:
    """Send so many requests at the same moment, and wait for their answers."""
    await asyncio.gather(*(send() for _ in range(times)))


async def in_turn(send: Send, *, clients: int, seconds: float) -> None:
    """Let each of the clients send its next request when the one before was answered."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds

    async def client() -> None:
        while loop.time() < end:
            await send()

    await at_once(client, clients)


async def steadily(send: Send, *, per_second: float, seconds: float) -> None:
    """Send requests at equal distances, however long the answers take, and wait for them."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as answers:
        for number in range(int(per_second * seconds)):
            await asyncio.sleep(began + number / per_second - loop.time())
            answers.create_task(_answer(send))


async def _answer(send: Send) -> None:
    await send()
