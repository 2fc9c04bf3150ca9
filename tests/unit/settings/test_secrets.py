"""Whatever goes wrong, the password is in no text that could reach a log or a page."""

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL, make_url

from penstock import Database
from penstock.errors import SettingsError
from penstock.settings import DatabaseSettings, settings_from_environment

# Distinctive, so that it cannot stand in a message by chance.
passwords = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).map(
    lambda text: f"QZ{text}ZQ"
)


def url_with(password: str, host: str = "localhost") -> str:
    url = URL.create("postgresql+asyncpg", "user", password, host, 5432, "app")
    return url.render_as_string(hide_password=False)


def as_written(password: str) -> str:
    return url_with(password).removeprefix("postgresql+asyncpg://user:").partition("@")[0]


def refused(act: Callable[[], object]) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        act()
    return caught.value


def locals_of_penstock(trace: TracebackType | None) -> str:
    frames = []
    while trace is not None:
        if trace.tb_frame.f_globals["__name__"].startswith("penstock."):
            frames.append(repr(trace.tb_frame.f_locals))
        trace = trace.tb_next
    assert frames
    return "\n".join(frames)


def everything_shown(error: SettingsError) -> str:
    """The message, the printed traceback, and the local variables that error reporters send."""
    assert error.__cause__ is None
    assert error.__context__ is None
    report = traceback.TracebackException.from_exception(error)
    return "\n".join([str(error), *report.format(), locals_of_penstock(error.__traceback__)])


@given(passwords)
def test_a_password_survives_and_is_not_shown(password: str) -> None:
    settings = DatabaseSettings.of(url_with(password))

    assert make_url(settings.url.get_secret_value()).password == password
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert password not in shown
        assert as_written(password) not in shown
    assert password not in repr(settings.model_dump())


def test_a_secret_among_the_servers_settings_is_in_no_dump_and_survives_one() -> None:
    settings = DatabaseSettings.of(url_with("x"), server_settings={"app.key": "hunter2"})
    dump = settings.model_dump()

    assert settings.server_settings == {"app.key": "hunter2"}
    assert "hunter2" not in repr(dump) + settings.model_dump_json() + repr(settings)
    assert DatabaseSettings.model_validate(dump) == settings


@pytest.mark.parametrize("wrong", ["postgresql://u:hunter2@h:port/db", "hunter2"])
def test_a_wrong_url_is_in_no_local_variable_of_from_url(wrong: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Database.from_url(wrong)

    assert "hunter2" not in everything_shown(raised.value)


@given(passwords, st.sampled_from(["localhost:port", "h@st", "[::1", "h1,[::2", "::1"]))
def test_a_password_in_a_wrong_url_is_not_shown(password: str, host: str) -> None:
    url = url_with(password).replace("localhost:5432", host)

    shown = everything_shown(refused(lambda: DatabaseSettings.of(url)))

    assert password not in shown
    assert as_written(password) not in shown


@given(st.sampled_from(["pool_size", "tls", "echo", "environment", "tls_ca_file", "workers"]))
def test_a_url_in_the_wrong_setting_is_not_shown(field: str) -> None:
    wrong = {field: url_with("QZhunterZQ")}

    error = refused(lambda: DatabaseSettings.of("sqlite://", **wrong))

    assert str(error).startswith(f"{field} (not shown, as it may hold a secret): ")


@pytest.mark.parametrize(
    "value", ["host=h password=QZhunterZQ", "QZhunterZQ@host", "PGPASSWORD=QZhunterZQ"]
)
def test_a_connection_string_in_the_wrong_setting_is_not_shown(value: str) -> None:
    error = refused(lambda: DatabaseSettings.of("sqlite://", pool_size=value))

    assert "QZ" not in str(error)


@pytest.mark.parametrize("server_settings", [{"app.jwt": "QZhunterZQ", "jit": "on"}, "QZ", ["QZ"]])
def test_server_settings_are_not_shown(server_settings: object) -> None:
    error = refused(lambda: DatabaseSettings.of("postgresql://", server_settings=server_settings))

    assert "QZ" not in str(error)
    sound = DatabaseSettings.of("postgresql://", server_settings={"app.jwt": "QZhunterZQ"})
    assert "QZ" not in repr(sound)


@pytest.mark.parametrize(
    "url",
    [
        url_with("QZhunterZQ", "h@st"),
        "QZhunterZQ",
        "user:QZhunterZQ@host",
        url_with("QZhunterZQ") + "?application_name=QZhunterZQ",
        url_with("QZhunterZQ"),
    ],
)
def test_a_refused_environment_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("DATABASE_POOL_SIZE", "0")
    monkeypatch.setenv("DATABASE_URLS", "QZhunterZQ")

    with caplog.at_level(logging.DEBUG):
        shown = everything_shown(refused(settings_from_environment))

    assert "QZ" not in shown
    assert "QZ" not in caplog.text


@pytest.mark.parametrize("line", ["hunter2", "DATABASE_POOL_SIZE=0"])
def test_a_refused_file_shows_no_secret(line: str) -> None:
    Path(".env").write_text(f"DATABASE_URL={url_with('QZhunterZQ')}\n{line}\n")

    assert "QZ" not in everything_shown(refused(settings_from_environment))
