"""A folder that is made when it is first needed."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

__all__ = ["Folder"]


def _no_empty(value: object) -> object:
    if value == "" or "\0" in str(value):
        raise PydanticCustomError("folder", "empty, or a NUL")
    return value


def _checked(value: Path) -> Path:
    if value.exists() and not value.is_dir():
        raise ValueError("it is not a folder")
    return value


Folder = Annotated[Path, BeforeValidator(_no_empty), AfterValidator(_checked)]
