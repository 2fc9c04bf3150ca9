"""What the service accepts and answers; a password comes in and never goes out."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from penstock.demo.users.model import LONGEST_EMAIL, LONGEST_USERNAME

__all__ = ["UserChanges", "UserIn", "UserOut"]

SHORTEST_PASSWORD = 8
"""Characters; NIST SP 800-63B, 5.1.1.2, which also wants at least 64 to be allowed."""
LONGEST_PASSWORD = 128

# Neither pattern admits NUL, which PostgreSQL cannot store. Whether mail arrives at an address is
# found out by sending some, so this one asks for the shape only.
Email = Annotated[
    str,
    Field(
        max_length=LONGEST_EMAIL,
        pattern=r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+\.[^@\s\x00-\x1f\x7f]+$",
        examples=["ada@example.com"],
    ),
]
Username = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LONGEST_USERNAME,
        pattern=r"^[\w.-]+$",
        description="Letters and digits of any script, underscore, full stop and hyphen.",
        examples=["ada"],
    ),
]


def _acceptable(password: SecretStr) -> SecretStr:
    text = password.get_secret_value()
    if not SHORTEST_PASSWORD <= len(text) <= LONGEST_PASSWORD:
        raise ValueError(f"{SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters are accepted")
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("NUL and lone surrogates are not accepted")
    return password


Password = Annotated[
    SecretStr,
    AfterValidator(_acceptable),
    Field(
        examples=["correct horse battery staple"],
        json_schema_extra={"minLength": SHORTEST_PASSWORD, "maxLength": LONGEST_PASSWORD},
    ),
]


def _in_utc(moment: datetime) -> datetime:
    """Give a time from SQLite, which stores UTC without saying so, its zone."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Moment = Annotated[datetime, AfterValidator(_in_utc)]


class UserIn(BaseModel):
    """A user to create."""

    email: Email
    username: Username
    password: Password


class UserChanges(BaseModel):
    """What to change about a user; what is absent or ``null`` stays as it is."""

    email: Email | None = None
    username: Username | None = None
    password: Password | None = None


class UserOut(BaseModel):
    """A user as everybody may see it."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    email: str
    username: str
    is_active: bool
    created_at: Moment
    updated_at: Moment
