"""Settings from environment variables and from a ``.env`` file."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, create_model
from pydantic_settings import BaseSettings, SettingsConfigDict

from penstock.base_error import SettingsError
from penstock.settings.model import DatabaseSettings
from penstock.settings.profiles import Environment
from penstock.settings.validation import nearest

_logger = logging.getLogger("penstock.settings")

# A byte order mark, which Windows editors write, would hide the first variable.
ENCODING = "utf-8-sig"


def settings_from_environment(
    prefix: str = "DATABASE_",
    env_file: str | Path | None = ".env",
    *,
    environment: str | None = None,
) -> DatabaseSettings:
    """Settings of the database whose variables start with ``prefix``.

    Args:
        prefix: Start of each variable's name; a second database has another, such as
            ``ANALYTICS_``. ``ENVIRONMENT`` and ``WEB_CONCURRENCY`` have none.
        env_file: File with more variables, which those of the environment outrank; it need
            not exist. None for no file.
        environment: Whose profile applies, whatever ``ENVIRONMENT`` says; None to read it there. A
            stage of the application's own there, such as ``staging``, has the production profile,
            which a warning says.

    Returns:
        Complete settings.

    Raises:
        SettingsError: A value is wrong or the URL is missing, with a line for each, or the file
            cannot be read.
    """
    in_file = _names_in(env_file) if env_file is not None else []
    _warn_of_misspellings([*os.environ, *in_file], prefix)
    given = _reader(prefix)(_env_file=env_file, _env_file_encoding=ENCODING)
    values = given.model_dump(exclude_unset=True)
    names = {field: variable(field, prefix) for field in DatabaseSettings.model_fields}
    if environment is not None:
        values["environment"], names["environment"] = environment, "environment"
    elif "environment" in values:
        values["environment"] = _profile_of(values["environment"])
    return DatabaseSettings.accept(values, names)


def variable(field: str, prefix: str = "DATABASE_") -> str:
    """The name of the environment variable of a setting.

    Args:
        field: The setting's name in Python.
        prefix: Start of the variable's name.

    Returns:
        The prefix and the name in capitals; ``ENVIRONMENT`` stands for all databases.
    """
    return "ENVIRONMENT" if field == "environment" else f"{prefix}{field}".upper()


def _profile_of(stage: object) -> object:
    """Return the environment that a stage stands for; what is empty is left to be refused."""
    if not isinstance(stage, str) or not stage or stage.lower() in set(Environment):
        return stage.lower() if isinstance(stage, str) else stage
    _logger.warning(
        "ENVIRONMENT is none of %s: the profile of production applies. To have another one, "
        "give environment= to from_environment().",
        ", ".join(Environment),
    )
    return Environment.PRODUCTION.value


def _reader(prefix: str) -> type[BaseSettings]:
    fields: dict[str, Any] = {
        field: (
            SecretStr | None if field == "url" else Any,
            Field(None, validation_alias=variable(field, prefix)),
        )
        for field in DatabaseSettings.model_fields
    }
    return create_model("Variables", __base__=_Variables, **fields)


class _Variables(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True)


def _names_in(env_file: str | Path) -> list[str]:
    path = Path(env_file).expanduser()
    if not path.exists():
        return []
    try:
        names, malformed = _parsed(path)
    except (OSError, UnicodeDecodeError) as error:
        refused = f"{env_file} cannot be read: {type(error).__name__}"
    else:
        if malformed is None:
            return names
        refused = f"{env_file}, line {malformed}: NAME=value is accepted"
    raise SettingsError(refused)


def _parsed(path: Path) -> tuple[list[str], int | None]:
    """The names in a file and the number of its first malformed line; never a value."""
    with path.open(encoding=ENCODING) as lines:
        bindings = list(parse_stream(lines))
    malformed = (
        line.original.line
        for line in bindings
        if line.error or (line.key is not None and line.value is None)
    )
    return [line.key for line in bindings if line.key], next(malformed, None)


def _warn_of_misspellings(names: Iterable[str], prefix: str) -> None:
    settings = {field.upper(): variable(field, prefix) for field in DatabaseSettings.model_fields}
    start = prefix.upper()
    for name in sorted(set(names)):
        spelled = name.upper()
        if not spelled.startswith(start) or spelled in settings.values():
            continue
        meant = nearest(spelled.removeprefix(start), settings)
        if meant is not None:
            _logger.warning("%s is not a setting; did you mean %s?", name, settings[meant])
