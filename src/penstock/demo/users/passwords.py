"""Passwords as Argon2 hashes, made beside the event loop."""

import os

from anyio import CapacityLimiter, to_thread
from argon2 import PasswordHasher
from pydantic import SecretStr


class PasswordHash(str):
    """A hash that only the database gets to see: statement logs print its ``repr``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Passwords:
    """Hashes passwords in threads, as many at once as the machine has processors.

    Hash before the first statement of a session: a hash takes some 20 ms of a processor, and a
    session holds a connection from its first statement on.

    The parameters are the ones that OWASP recommends for Argon2id: 19 MiB of memory, two passes,
    one lane (https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html).

    Attributes:
        limiter: Bounds the processors, and the memory as well: 19 MiB for each hash under way.
    """

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self.limiter = CapacityLimiter(os.cpu_count() or 1)

    async def hash(self, password: SecretStr) -> PasswordHash:
        """Return the hash to store, with its salt and parameters in it."""
        return PasswordHash(
            await to_thread.run_sync(
                self._hasher.hash, password.get_secret_value(), limiter=self.limiter
            )
        )
