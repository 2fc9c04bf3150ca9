"""What the TechEmpower peers serve: the six tests of the Framework Benchmarks, on their tables.

The rules: https://github.com/TechEmpower/FrameworkBenchmarks/wiki/Project-Information-Framework-Tests-Overview
"""

from collections.abc import Iterable
from random import Random
from typing import Annotated, Any

from jinja2 import Environment
from pydantic import BaseModel, BeforeValidator, ConfigDict
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

WORLDS = 10_000
ADDED = "Additional fortune added at request time."
PAGE = Environment(autoescape=True).from_string(
    "<!DOCTYPE html><html><head><title>Fortunes</title></head><body><table>"
    "<tr><th>id</th><th>message</th></tr>"
    "{% for id, message in fortunes %}<tr><td>{{ id }}</td><td>{{ message }}</td></tr>{% endfor %}"
    "</table></body></html>"
)

_random = Random()  # noqa: S311 - any rows, no secret


class Model(DeclarativeBase):
    """The registry of both tables."""


class World(Model):
    """A row with a number."""

    __tablename__ = "world"
    id: Mapped[int] = mapped_column(primary_key=True)
    randomNumber: Mapped[int] = mapped_column("randomnumber")  # noqa: N815 - the rules' name


class Fortune(Model):
    """A row with a text."""

    __tablename__ = "fortune"
    id: Mapped[int] = mapped_column(primary_key=True)
    message: Mapped[str]


class WorldOut(BaseModel):
    """A world as every peer answers it."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    randomNumber: int  # noqa: N815 - the rules' name


def _count(queries: Any) -> int:
    text = str(queries)
    return min(max(int(text), 1), 500) if text.isdecimal() else 1


Queries = Annotated[int, BeforeValidator(_count)]
"""How many worlds are asked for: 1 to 500, and 1 for what is no number."""


def random_ids(queries: int = 1) -> list[int]:
    """Return ids of that many worlds, each once, in the order in which they may be locked."""
    return sorted(_random.sample(range(1, WORLDS + 1), queries))


def random_number() -> int:
    """Return a number for a world."""
    return _random.randint(1, WORLDS)


def page_of(fortunes: Iterable[tuple[int, str]]) -> str:
    """Return the page of some fortunes and the added one, ordered by message, escaped."""
    return PAGE.render(fortunes=sorted([*fortunes, (0, ADDED)], key=lambda each: each[1]))
