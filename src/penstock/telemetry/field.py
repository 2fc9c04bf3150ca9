"""The declaration of a number that workers count or measure, and what follows from it."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from math import isnan, nan
from types import MappingProxyType
from typing import Any, TypeVar


class Kind(Enum):
    """How a number behaves, and with it how it is exported."""

    COUNTER = "counter"
    """Grows by one with each event; a :class:`Sample` has its growth within one second."""
    GAUGE = "gauge"
    """Goes up and down; exporters show the newest value."""
    PEAK = "peak"
    """Goes up and down; exporters show the largest value of the last minute."""
    HISTOGRAM = "histogram"
    """Durations, counted by bucket."""


def largest(numbers: Iterable[float]) -> float:
    """Return the largest of the numbers that are known; NaN when none is."""
    return max((number for number in numbers if not isnan(number)), default=nan)


Aggregation = Callable[[Iterable[Any]], Any]
"""Makes one number of those of several workers: ``sum`` or :func:`largest`."""


@dataclass(frozen=True, slots=True)
class Field:
    """The declaration of one number.

    Args:
        kind: How it behaves.
        description: What it is, as a sentence; the help of its metric.
        unit: In UCUM notation, as OpenTelemetry writes it: ``s``, ``By``, ``{connection}``.
        metric: Name under which it is exported, as OpenTelemetry writes it; empty when it is not
            exported as a metric of its own.
        aggregation: Makes one number of those of several workers.
        state: Value of the metric's attribute ``db.client.connection.state``; empty for none.
        absent: Value with which the metric is left out, besides NaN.
        name: Attribute of the class that has it; :func:`declared` fills it in.
        is_whole: Whether it is an ``int``; :func:`declared` fills it in.
    """

    kind: Kind
    description: str
    unit: str
    metric: str = ""
    aggregation: Aggregation = sum
    state: str = ""
    absent: float = nan
    name: str = ""
    is_whole: bool = False

    def is_exported(self, value: float) -> bool:
        """Return whether the metric is shown with this value."""
        return not isnan(value) and value != self.absent


_KEY = "penstock"
_Number = TypeVar("_Number", int, float)


def declared(table: type, *, keys: Collection[str] = ()) -> Mapping[str, Field]:
    """Return the declarations of a dataclass's numbers by name, in the order of its fields.

    Args:
        table: The dataclass.
        keys: Its fields that are texts, and tell one object from another.

    Raises:
        TypeError: A number has no declaration, no unit, or no description that is a sentence.
    """
    numbers = [each for each in fields(table) if each.name not in keys]
    found = {each.name: each.metadata.get(_KEY) for each in numbers}
    whole = {each.name for each in numbers if each.type is int}
    return named(table.__name__, found, whole)


def named(
    table: str, found: Mapping[str, Field | None], whole: Collection[str] = ()
) -> Mapping[str, Field]:
    """Return declarations that have their names; as :func:`declared` does for a dataclass.

    Args:
        table: What has them, for the error.
        found: The declarations by name; None for one that is missing.
        whole: Names of those that are ``int``.

    Raises:
        TypeError: As for :func:`declared`.
    """
    complete = {}
    for name, each in found.items():
        if each is None or not each.unit or not each.description.endswith("."):
            raise TypeError(f"{table}.{name}: must be declared with a unit and a description")
        complete[name] = replace(each, name=name, is_whole=name in whole)
    return MappingProxyType(complete)


def aggregate(items: Sequence[Any], table: Mapping[str, Field]) -> dict[str, Any]:
    """Return the numbers of several workers together, by field.

    Args:
        items: One object of each worker; at least one.
        table: The fields to aggregate.
    """
    return {
        name: each.aggregation([getattr(item, name) for item in items])
        for name, each in table.items()
    }


def typed(table: Mapping[str, Field], numbers: Sequence[float]) -> dict[str, Any]:
    """Return numbers by field, in the type of each.

    Args:
        table: The fields.
        numbers: One for each, in the same order.
    """
    return {
        name: int(number) if each.is_whole else number
        for (name, each), number in zip(table.items(), numbers, strict=True)
    }


def declare(default: _Number, declaration: Field) -> _Number:
    """Return a dataclass field for a number.

    Args:
        default: Its value as long as nothing was counted or measured.
        declaration: What it is; the name is filled in.
    """
    return field(default=default, metadata={_KEY: declaration})
