"""What the settings of replicas accept, and what their refusals show."""

import pytest

from penstock.errors import SettingsError
from penstock.settings import DatabaseSettings
from penstock.settings.replicas import ReplicaSource, sources

URL = "postgresql://app:secret@db-1,db-4/app?target_session_attrs=primary"
FORMS = {
    "db-2": ("server", "postgresql+asyncpg://app:secret@db-2:5432/app", 1.0, True),
    "db-2:5433": ("server", "postgresql+asyncpg://app:secret@db-2:5433/app", 1.0, True),
    "[::1]:5433": ("server", "postgresql+asyncpg://app:secret@[::1]:5433/app", 1.0, True),
    "[::1]": ("server", "postgresql+asyncpg://app:secret@[::1]:5432/app", 1.0, True),
    "dns:replicas": ("dns", "postgresql+asyncpg://app:secret@replicas:5432/app", 1.0, True),
    "postgres://me:mine@db-2/app": (
        "server",
        "postgresql+asyncpg://me:mine@db-2/app",
        1.0,
        True,
    ),
    "postgresql://db-2/app?weight=2.5": ("server", "postgresql+asyncpg://db-2/app", 2.5, True),
    "postgresql://db-2/app?position=no": ("server", "postgresql+asyncpg://db-2/app", 1.0, False),
}


def found(replicas: object, url: str = URL) -> list[ReplicaSource]:
    settings = DatabaseSettings.of(url, replicas=replicas)
    return sources(settings.replicas, settings.url.get_secret_value())


@pytest.mark.parametrize("text", FORMS)
def test_an_entry_is_a_server_or_a_place_that_has_some(text: str) -> None:
    (source,) = found(text)

    assert (source.kind, source.url.text(), source.weight, source.reports_position) == FORMS[text]


def test_entries_are_separated_by_spaces_or_are_a_list() -> None:
    entries = list(FORMS)

    assert (
        found(" ".join(entries))
        == found("\n".join(entries))
        == found(entries)
        == found(tuple(entries))
    )


def test_patroni_has_several_addresses() -> None:
    (source,) = found("patroni:http://db-1:8008,https://db-2:8008/")

    assert source.api == ("http://db-1:8008", "https://db-2:8008")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://app:hunter2@db-2/app?weight=0",
        "postgresql://app:hunter2@db-2/app?weight=nan",
        "postgresql://app:hunter2@db-2/app?weight=1001",
        "postgresql://app:hunter2@db-2/app?position=maybe",
        "postgresql://app:hunter2@db-2/app?nothing=1",
        "postgresql://app:hun@ter2@db-2/app",
        "mysql://app:hunter2@db-2/app",
        "postgresql+psycopg://app:hunter2@db-2/app",
        "hunter2@db-2",
        "db-2/hunter2",
        "db-2:99999",
        "dns:",
        "dns:a/b",
        "patroni:",
        "patroni:db-1:8008",
        "patroni:ftp://db-1",
        "patroni:http://db-1/hunter2",
        "patroni:http://admin:hunter2@db-1:8008",
        "postgresql://app:hunter2@db-2,db-3/app",
        "postgresql://app:hunter2@db-2/another",
    ],
)
def test_a_wrong_entry_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^replicas") as refused:
        DatabaseSettings.of(URL, replicas=text)

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("value", ["", "  ", [], ()])
def test_an_empty_value_is_none(value: object) -> None:
    assert DatabaseSettings.of(URL, replicas=value).replicas == ()


@pytest.mark.parametrize("value", [5, ["db-2", 3], {"db-2": 1}, b"db-2"], ids=str)
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match=r"^replicas"):
        DatabaseSettings.of(URL, replicas=value)


def test_a_short_key_is_refused_without_being_shown() -> None:
    with pytest.raises(SettingsError, match=r"^position_key: .*\b16\b") as refused:
        DatabaseSettings.of(URL, position_key="hunter2")

    assert "hunter2" not in str(refused.value)


def test_a_token_outlives_the_lag_of_what_is_read_from() -> None:
    with pytest.raises(SettingsError, match=r"^position_lifetime=10: .*replica_max_lag=10"):
        DatabaseSettings.of(URL, position_lifetime=10)


@pytest.mark.parametrize("url", ["sqlite:///app.db", "mysql+asyncmy://db/app"])
def test_other_databases_have_no_replicas(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^replicas"):
        DatabaseSettings.of(url, replicas="db-2")


def test_secrets_of_replicas_are_in_no_text_of_the_settings() -> None:
    settings = DatabaseSettings.of(
        URL, replicas="postgresql://app:hunter2@db-2/app", position_key="hunter2hunter2hunter2"
    )

    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_serverless_has_no_replicas() -> None:
    with pytest.raises(SettingsError, match=r"^replicas.*serverless"):
        DatabaseSettings.of(URL, replicas="db-2", environment="serverless")
