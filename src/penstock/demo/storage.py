"""A database that the demo may fill, and how a worker finds it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.settings import DatabaseSettings

__all__ = ["Storage", "without_database_variables"]

_PREFIX = "DATABASE_"


@dataclass(frozen=True, slots=True)
class Storage:
    """A database that the demo may fill.

    Args:
        kind: What it is, for people.
        settings: How the demo itself connects.
        variables: The environment variables with which a worker connects; they hold passwords.
    """

    kind: str
    settings: DatabaseSettings
    variables: Mapping[str, str]


def without_database_variables() -> dict[str, str]:
    """Return the environment without the variables that penstock reads a database from."""
    return {
        name: value for name, value in os.environ.items() if not name.upper().startswith(_PREFIX)
    }
