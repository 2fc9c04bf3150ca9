"""The numbers that settings hold, and how one that is optional is switched off."""

from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from penstock.settings.acceptance import OFF, Unit

__all__ = ["SECONDS", "Real", "RealOrOff", "Whole", "WholeOrOff"]

SECONDS = Unit("seconds")


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("bool", "a bool is no number")
    return value


def _none_for_off(value: object) -> object:
    return None if value == OFF else _no_bool(value)


Whole = Annotated[int, BeforeValidator(_no_bool)]
Real = Annotated[float, BeforeValidator(_no_bool)]

# A variable cannot hold None, and an empty one is more often a mistake than a wish.
WholeOrOff = Annotated[int | None, BeforeValidator(_none_for_off)]
RealOrOff = Annotated[float | None, BeforeValidator(_none_for_off)]
