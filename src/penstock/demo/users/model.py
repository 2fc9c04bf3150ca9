"""The table of users."""

from datetime import datetime

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
