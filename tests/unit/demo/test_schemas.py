from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from penstock.demo.users.routes import UserChanges, UserIn, UserOut

GOOD = {"email": "ada@example.com", "username": "ada", "password": "12345678"}


def test_a_good_user_is_accepted_and_the_password_is_not_shown() -> None:
    user = UserIn.model_validate(GOOD)

    assert (user.email, user.username) == ("ada@example.com", "ada")
    assert user.password.get_secret_value() == "12345678"
    assert "12345678" not in f"{user!r} {user} {user.model_dump()} {user.model_dump_json()}"


@pytest.mark.parametrize("length", [8, 128])
def test_a_password_of_8_to_128_characters_is_accepted(length: int) -> None:
    UserIn.model_validate({**GOOD, "password": "é" * length})


@pytest.mark.parametrize("username", ["a", "Ada_Lovelace-1.0", "żółć", "李", "x" * 50])
def test_a_username_of_letters_digits_and_a_few_signs_is_accepted(username: str) -> None:
    assert UserIn.model_validate({**GOOD, "username": username}).username == username


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", ""),
        ("email", "ada"),
        ("email", "ada@example"),
        ("email", "ada@@example.com"),
        ("email", "a da@example.com"),
        ("email", "ada@example.com\n"),
        ("email", "ada\0@example.com"),
        ("email", "ada\ud800@example.com"),
        ("email", f"{'a' * 243}@example.com"),
        ("email", None),
        ("username", ""),
        ("username", "ada lovelace"),
        ("username", "ada\n"),
        ("username", "ada\0"),
        ("username", "\udfff"),
        ("username", "x" * 51),
        ("password", "1234567"),
        ("password", "x" * 129),
        ("password", "12345678\0"),
        ("password", "12345678\ud800"),
        ("password", 12345678),
    ],
)
def test_what_cannot_be_stored_or_is_no_such_thing_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as refusal:
        UserIn.model_validate({**GOOD, field: value})

    assert [error["loc"] for error in refusal.value.errors()] == [(field,)]


def test_a_change_may_leave_anything_out() -> None:
    assert UserChanges().model_dump(exclude_none=True) == {}


@pytest.mark.parametrize("stored", [datetime(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC)])  # noqa: DTZ001 - as SQLite gives it
def test_a_time_goes_out_with_its_zone(stored: datetime) -> None:
    user = UserOut(
        id=1, email="", username="", is_active=True, created_at=stored, updated_at=stored
    )

    assert user.model_dump(mode="json")["created_at"] == "2026-01-02T00:00:00Z"
