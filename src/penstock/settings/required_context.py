"""Names of the settings without which no transaction may begin."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from penstock.context import refused_name
from penstock.settings.acceptance import Accepted

__all__ = ["RequiredContext"]


def _from_text(value: object) -> object:
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(","))
    return tuple(value) if isinstance(value, Sequence | set | frozenset) else value


def _checked(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        why = None if name.lower() == "role" else refused_name(name)
        if why is not None:
            raise ValueError(f"the name {name!r} is refused: {why}")
    return names


RequiredContext = Annotated[
    tuple[str, ...],
    BeforeValidator(_from_text),
    AfterValidator(_checked),
    Accepted("names of settings with commas between, such as app.tenant,role,"),
]
