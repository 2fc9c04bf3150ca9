"""The table of users, and their passwords as Argon2 hashes, made beside the event loop."""

import os
from datetime import datetime

from anyio import CapacityLimiter, to_thread
from argon2 import PasswordHasher
from pydantic import SecretStr
from sqlalchemy import BigInteger, DateTime, Identity, Index, Integer, MetaData, String, func, true
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

LONGEST_EMAIL = 254
"""Characters; RFC 5321, 4.5.3.1.3 allows a path of 256, two of which are its brackets."""
LONGEST_USERNAME = 50
_LONGEST_HASH = 255


class Base(DeclarativeBase):
    """The service's tables, with names for constraints and indexes that migrations rely on."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class User(Base):
    """A person with an account; deactivated, never deleted."""

    __tablename__ = "users"
    __table_args__ = (
        Index(None, "email", "is_active"),
        Index(None, "username", "is_active"),
    )
    # An UPDATE returns the new updated_at: a refresh would cost a round trip.
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012 - SQLAlchemy's own protocol

    id: Mapped[int] = mapped_column(
        # SQLite numbers rows by itself only in a column that is declared INTEGER.
        BigInteger().with_variant(Integer(), "sqlite"),
        Identity(),
        primary_key=True,
    )
    email: Mapped[str] = mapped_column(String(LONGEST_EMAIL), unique=True)
    username: Mapped[str] = mapped_column(String(LONGEST_USERNAME), unique=True)
    hashed_password: Mapped[str] = mapped_column(String(_LONGEST_HASH))
    is_active: Mapped[bool] = mapped_column(default=True, server_default=true())
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), onupdate=func.now()
    )


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
