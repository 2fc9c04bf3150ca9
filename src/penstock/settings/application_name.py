"""The name under which the server lists a connection."""

from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from penstock.settings.acceptance import Accepted

__all__ = ["ApplicationName"]

# PostgreSQL cuts a longer application_name (NAMEDATALEN - 1).
LONGEST_NAME = 63


def _checked(value: str) -> str:
    if not 1 <= len(value.encode(errors="surrogatepass")) <= LONGEST_NAME or "\0" in value:
        raise PydanticCustomError("name", "too short or too long")
    return value


ApplicationName = Annotated[
    str, AfterValidator(_checked), Accepted(f"text of 1 to {LONGEST_NAME} bytes")
]
