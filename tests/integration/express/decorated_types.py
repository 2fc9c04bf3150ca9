"""Types of a service's own, each by another part of what a ``TypeDecorator`` may do."""

import enum
from collections.abc import Callable
from typing import Any

from sqlalchemy import Dialect, Integer, LargeBinary, String, TypeDecorator, func
from sqlalchemy.types import TypeEngine, UserDefinedType


class Colour(enum.Enum):
    """Stored by its names."""

    RED = "r"
    GREEN = "g"
    BLUE = "b"


class Level(enum.IntEnum):
    """Stored by its names, though it is a number."""

    LOW = 1
    HIGH = 2


class Grade(enum.StrEnum):
    """Stored by its values."""

    GOOD = "very good"
    POOR = "it's poor"


class Joined(TypeDecorator[tuple[str, ...]]):
    """Words in one text: both ways."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else " ".join(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else tuple(value.split())


class Sealed(TypeDecorator[str]):
    """Text as turned bytes, over a type that converts values itself; NULL is something, too."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return b"nothing" if value is None else b":" + value.encode()[::-1]

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value in {None, b"nothing"} else value[:0:-1].decode()


class ReadOnlyUpper(TypeDecorator[str]):
    """Text that is read in capitals: one way only."""

    impl = String
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else value.upper()


class Coerced(TypeDecorator[int]):
    """A number stored by one more, which keeps its type in comparisons with other types."""

    impl = Integer
    cache_ok = True

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return self

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else int(value) + self.step

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else value - self.step


class Varying(TypeDecorator[int]):
    """A number that is text on PostgreSQL and a number elsewhere."""

    impl = Integer
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(String() if dialect.name == "postgresql" else Integer())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return value if value is None or dialect.name != "postgresql" else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else int(value)


class Processed(UserDefinedType[int]):
    """A number as text, by a type that no other is below."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "text"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        return lambda value: None if value is None else f"n{value}"

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return lambda value: None if value is None else int(value[1:])


class Expressed(TypeDecorator[str]):
    """Text that the server turns around, both ways; in Python it has one letter more."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        return func.reverse(bindparam, type_=self)

    def column_expression(self, column: Any) -> Any:
        return func.reverse(column, type_=self)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else f"x{value}"

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else value[1:]
