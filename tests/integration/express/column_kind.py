"""What is known of one type of column: its values, and what a session itself cannot do with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from sqlalchemy.types import TypeEngine

PG_TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
"""What PostgreSQL takes as text: no NUL, no half of a surrogate pair."""
WAYS = ("session", "session_many", "orm", "express", "express_many", "copy")
NO_BINARY = "asyncpg has no binary form of the type, which COPY takes"
NO_EQUALITY = {
    "equal": "the type has no equality operator",
    "in_list": "the type has no equality operator",
}


@dataclass(frozen=True)
class Kind:
    """One type of column.

    Args:
        name: Of the test, and of the table.
        type: SQLAlchemy's.
        values: What is written; never None, which is written for every kind.
        session_cannot: What fails in a session already, each with its reason: ``equal``,
            ``in_list``, ``null``, ``write``. The express lane fails there by the same error.
        copy_cannot: Why COPY refuses it, which only the express lane has; empty where it works.
    """

    name: str
    type: TypeEngine[Any]
    values: st.SearchStrategy[Any]
    session_cannot: Mapping[str, str] = field(default_factory=dict)
    copy_cannot: str = ""

    @property
    def ways(self) -> tuple[str, ...]:
        """How its values can be written."""
        return tuple(way for way in WAYS if way != "copy" or not self.copy_cannot)
