"""What every peer reads and writes."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import DateTime, func, true
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Model(DeclarativeBase):
    """The registry of the table."""


class User(Model):
    """A row."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    username: Mapped[str] = mapped_column(unique=True)
    is_active: Mapped[bool] = mapped_column(server_default=true())
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class UserIn(BaseModel):
    """A user to be."""

    email: str
    username: str


class UserOut(BaseModel):
    """A user as every peer answers it."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    email: str
    username: str
    is_active: bool
    created_at: datetime
