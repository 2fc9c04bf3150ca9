"""What an engine is given in Python alone: functions and arguments that no variable can hold."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from penstock.errors import SettingsError

__all__ = ["EngineOptions"]

_HAVE_A_SETTING = {
    "application_name": "application_name",
    "async_creator_fn": "async_creator",
    "command_timeout": "command_timeout",
    "connect_timeout": "connect_timeout",
    "prepared_statement_cache_size": "statement_cache_size",
    "statement_cache_size": "statement_cache_size",
    "timeout": "connect_timeout",
}
"""Names in ``connect_args``, and what is to be used in their place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What ``create_async_engine`` takes as well, by its names there.

    Args:
        json_serializer: Makes the text of a JSON value; None for ``json.dumps``.
        json_deserializer: Makes a JSON value of its text; None for ``json.loads``.
        connect_args: Further arguments of the driver's ``connect``. Its ``server_settings`` are
            added to those of the settings.
        execution_options: For every statement, such as ``schema_translate_map``. With any, the
            express lane runs by sessions.
        async_creator: Opens a connection of the driver, in the place of its ``connect``, without
            arguments: neither the URL nor the settings of the connection reach it.

    Raises:
        SettingsError: An argument is something else, or has a setting.
    """

    json_serializer: Callable[[Any], str] | None = None
    json_deserializer: Callable[[str], Any] | None = None
    connect_args: Mapping[str, Any] = field(default_factory=dict, repr=False)
    execution_options: Mapping[str, Any] = field(default_factory=dict)
    async_creator: Callable[[], Awaitable[Any]] | None = None

    def __post_init__(self) -> None:
        for name in ("json_serializer", "json_deserializer", "async_creator"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise SettingsError(f"{name}: a function is accepted, not {_kind(value)}")
        for name in ("connect_args", "execution_options"):
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                raise SettingsError(f"{name}: values by name are accepted, not {_kind(value)}")
        for name in self.connect_args:
            if name in _HAVE_A_SETTING:
                raise SettingsError(
                    f"connect_args: its {name} has an argument of its own: {_HAVE_A_SETTING[name]}"
                )
        if "isolation_level" in self.execution_options:
            raise SettingsError("execution_options: its isolation_level is a setting")

    @classmethod
    def among(cls, given: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """Take the options from among the arguments of a database.

        Args:
            given: The options, and settings.

        Returns:
            The options, and the rest.
        """
        names = {each.name for each in fields(cls)}
        own = {name: value for name, value in given.items() if name in names}
        return cls(**own), {name: value for name, value in given.items() if name not in names}

    def of_engine(self) -> dict[str, Any]:
        """Return the arguments of ``create_async_engine``."""
        given = {
            "json_serializer": self.json_serializer,
            "json_deserializer": self.json_deserializer,
            "execution_options": dict(self.execution_options),
        }
        return {name: value for name, value in given.items() if value}

    def of_connect(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the driver's ``connect``.

        Args:
            arguments: What the settings have become.
        """
        merged = {**arguments, **self.connect_args}
        if "server_settings" in self.connect_args:
            ours = arguments.get("server_settings", {})
            merged["server_settings"] = {**ours, **self.connect_args["server_settings"]}
        return merged


def _kind(value: object) -> str:
    return type(value).__name__
