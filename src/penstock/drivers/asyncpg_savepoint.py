"""A read-only savepoint in an open transaction, which costs no round trip."""

import asyncio
from typing import Any, Self

from asyncpg.exceptions import PostgresError

from penstock.drivers.asyncpg_statements import STAY_READ_ONLY, context_statement
from penstock.drivers.pipelining import Parameters, Pipeline, always, may_pipeline

BEGIN: list[tuple[str, Parameters]] = [("SAVEPOINT penstock_read", ()), STAY_READ_ONLY]
END = "ROLLBACK TO SAVEPOINT penstock_read;RELEASE SAVEPOINT penstock_read"


class ReadOnlySavepoint:
    """The turn of one read on a connection, in a savepoint that is rolled back with it.

    Args:
        mutex: Held by what is in progress on the connection.
        driver: asyncpg's connection.
    """

    def __init__(self, mutex: asyncio.Lock, driver: Any) -> None:
        self._mutex = mutex
        self._driver = driver
        self._has_begun = False
        self._ending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._mutex.acquire()
        return self

    def begin(self, settings: tuple[tuple[str, str], ...]) -> None:
        """Begin the savepoint with the driver's next statement.

        Args:
            settings: Names and values that hold within it.
        """
        context = [context_statement(settings)] if settings else []
        Pipeline.of(self._driver._transport).send_batch([*BEGIN, *context])
        self._has_begun = True

    async def __aexit__(self, *_: object) -> None:
        if self._has_begun and not may_pipeline(self._driver):
            # The driver waits until the server has ended what was cancelled.
            self._ending = asyncio.create_task(self._end())
            return
        if self._has_begun:
            Pipeline.of(self._driver._transport).send_query(END, always)
        self._mutex.release()

    async def _end(self) -> None:
        try:
            await self._driver.execute(END)
        except PostgresError:
            pass  # the transaction has failed as a whole, which the next statement meets as well
        except Exception:  # noqa: BLE001 - whatever it is, nothing is known of the transaction
            self._driver.terminate()
        finally:
            self._mutex.release()
