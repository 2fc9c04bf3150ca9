"""A call's values, by name, made into the driver's arguments, by position."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter

from penstock.express.defaults import Defaults

__all__ = ["FixedParameters", "Parameters", "VaryingParameters"]

_Processor = Callable[[Any], Any]


class Parameters(Protocol):
    """What makes values into arguments."""

    def bind(self, values: Mapping[str, Any], /) -> tuple[str, Sequence[Any]]:
        """Return the SQL and its arguments.

        Args:
            values: Of the named parameters, by name, complete and without others.

        Raises:
            KeyError: A value is missing.
        """
        ...


class FixedParameters:
    """Those of a statement whose text is always the same.

    Args:
        compiled: The statement.
    """

    def __init__(self, compiled: SQLCompiler) -> None:
        self._sql = compiled.string
        constants = compiled.construct_params(escape_names=False, _check=False)
        processors: Mapping[str, _Processor] = compiled._bind_processors  # type: ignore[assignment]  # noqa: SLF001 - as SQLAlchemy's own execution
        given = {name: bind.key for bind, name in compiled.bind_names.items() if not bind.unique}
        self._template: list[Any] = []
        self._constants: list[tuple[int, Any, _Processor]] = []
        """Those that their types convert: at each call, as a type may look at who calls."""
        self._given: list[tuple[int, str, _Processor | None]] = []
        self._optional: list[tuple[int, str, _Processor | None]] = []
        for position, name in enumerate(compiled.positiontup or ()):
            processor = processors.get(name)
            bind = compiled.binds[name]
            self._template.append(constants[name])
            if processor is not None and not bind.required:
                self._constants.append((position, constants[name], processor))
            if name in given:
                place = (position, given[name], processor)
                (self._given if bind.required else self._optional).append(place)

    def bind(self, values: Mapping[str, Any], /) -> tuple[str, Sequence[Any]]:
        """As the protocol says."""
        arguments = self._template.copy()
        for position, value, convert in self._constants:
            arguments[position] = convert(value)
        for position, name, processor in self._given:
            value = values[name]
            arguments[position] = value if processor is None else processor(value)
        for position, name, processor in self._optional:
            if name in values:
                value = values[name]
                arguments[position] = value if processor is None else processor(value)
        return self._sql, arguments


class VaryingParameters:
    """Those of a statement whose text or arguments depend on the values: lists, defaults.

    Args:
        compiled: The statement.
    """

    def __init__(self, compiled: SQLCompiler) -> None:
        self._compiled = compiled
        self._processors: Mapping[str, Any] = compiled._bind_processors  # noqa: SLF001 - as above
        self._defaults = Defaults(compiled)
        self._is_expanded = bool(compiled.post_compile_params or compiled.literal_execute_params)

    def bind(
        self, values: Mapping[str, Any], extracted: Sequence[BindParameter[Any]] | None = None, /
    ) -> tuple[str, Sequence[Any]]:
        """As the protocol says.

        Args:
            values: As there.
            extracted: As in ``Plan.bind``.
        """
        compiled = self._compiled
        bound = dict(
            compiled.construct_params(
                dict(values), extracted_parameters=extracted, escape_names=False
            )
        )
        self._defaults.add_to(bound)
        if not self._is_expanded:
            names = compiled.positiontup or ()
            return compiled.string, [_processed(self._processors, n, bound[n]) for n in names]
        # By the names of the compiled statement, which are found first.
        state = compiled.construct_expanded_state(bound, escape_names=False)
        everything = {**bound, **state.parameters}
        processors = {**self._processors, **state.processors}
        positions = state.positiontup or ()
        return state.statement, [_processed(processors, n, everything[n]) for n in positions]


def _processed(processors: Mapping[str, Any], name: str, value: Any) -> Any:
    processor = processors.get(name)
    return value if processor is None else processor(value)
