"""What every peer reads and writes."""

from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Model(DeclarativeBase):
    """The registry of the table."""


class User(Model):
    """A row."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class UserIn(BaseModel):
    """A user to be."""

    name: str


class UserOut(BaseModel):
    """A user as every peer answers it."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str
