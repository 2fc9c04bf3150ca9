"""What each setting accepts, said once, from the model itself."""

from dataclasses import dataclass
from enum import StrEnum
from types import UnionType
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

__all__ = ["OFF", "Accepted", "Unit", "accepted"]

OFF = "off"
"""What stands for None where a number is optional."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What a setting's number counts, such as ``seconds``."""

    name: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a setting accepts, where its type and bounds do not say it."""

    text: str


def accepted(field: FieldInfo) -> str:
    """Say what a setting accepts.

    Args:
        field: The setting, from ``DatabaseSettings.model_fields``.

    Returns:
        The range or the choices, such as ``a whole number of seconds from 1 to 86400``.
    """
    for item in field.metadata:
        if isinstance(item, Accepted):
            return item.text
    kind = _without_none(field.annotation)
    if kind is bool:
        return "true or false"
    if issubclass(kind, StrEnum):
        return f"one of {', '.join(kind)}"
    number = f"{_number(kind, field.metadata)} {_bounds(field.metadata)}"
    return number if kind is field.annotation else f"{OFF} or {number}"


def _without_none(annotation: Any) -> type:
    parts = get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)
    return next(part for part in parts if isinstance(part, type) and part is not type(None))


def _number(kind: type, metadata: list[Any]) -> str:
    number = "a whole number" if kind is int else "a number"
    units = [f"of {item.name}" for item in metadata if isinstance(item, Unit)]
    return " ".join([number, *units])


def _bounds(metadata: list[Any]) -> str:
    lowest = highest = ""
    for item in metadata:
        if isinstance(item, Ge):
            lowest = f"from {item.ge} to"
        elif isinstance(item, Gt):
            lowest = f"above {item.gt} and up to"
        elif isinstance(item, Le):
            highest = str(item.le)
    return f"{lowest} {highest}"
