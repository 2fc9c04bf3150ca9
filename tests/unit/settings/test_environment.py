"""Settings from variables and from a file: which are read, which win, what is refused."""

import logging
from pathlib import Path

import pytest

from penstock.errors import SettingsError
from penstock.settings import DatabaseSettings, settings_from_environment
from penstock.settings.environment import variable
from penstock.settings.validation import EXAMPLE_URL

URL = "postgresql://user:password@localhost/app"
EVERY_VARIABLE = {
    "DATABASE_URL": "postgresql+psycopg://user:password@localhost/app",
    "DATABASE_CREDENTIALS_FILE": "credentials.json",
    "DATABASE_MIGRATIONS_URL": "postgresql://owner:password@localhost/app",
    "ENVIRONMENT": "production",
    "DATABASE_PRESET": "medium",
    "DATABASE_PROXY": "aws-rds-proxy",
    "DATABASE_POOL_SIZE": "11",
    "DATABASE_MAX_OVERFLOW": "12",
    "DATABASE_POOL_TIMEOUT": "13.5",
    "DATABASE_POOL_RECYCLE": "14",
    "DATABASE_POOL_PRE_PING": "true",
    "DATABASE_MIN_IDLE": "6",
    "DATABASE_MAX_WAITING": "21",
    "DATABASE_CODEL_TARGET": "0.22",
    "DATABASE_CODEL_INTERVAL": "0.23",
    "DATABASE_OVERFLOW_IDLE": "24.5",
    "DATABASE_KEEPALIVE": "25.5",
    "DATABASE_IDLE_BEFORE_PING": "26.5",
    "DATABASE_LEAK_AFTER": "27.5",
    "DATABASE_RECLAIM_LEAKS": "true",
    "DATABASE_NESTED_CHECKOUT": "allow",
    "DATABASE_AUTOFLUSH": "true",
    "DATABASE_ISOLATION_LEVEL": "REPEATABLE READ",
    "DATABASE_ECHO": "false",
    "DATABASE_CONNECT_TIMEOUT": "15.5",
    "DATABASE_COMMAND_TIMEOUT": "16.5",
    "DATABASE_STATEMENT_CACHE_SIZE": "17",
    "DATABASE_APPLICATION_NAME": "orders",
    "DATABASE_JIT": "true",
    "DATABASE_SERVER_SETTINGS": '{"timezone": "UTC"}',
    "DATABASE_REQUIRES_CONTEXT": "app.tenant,role",
    "DATABASE_REPLICAS": "db-2:5432 dns:replicas.internal",
    "DATABASE_REPLICA_MAX_LAG": "9.5",
    "DATABASE_REPLICA_WAIT": "0.5",
    "DATABASE_REPLICA_PRIMARY_SHARE": "0.75",
    "DATABASE_REPLICA_CHECK_INTERVAL": "2.5",
    "DATABASE_POSITION_KEY": "0123456789abcdef",
    "DATABASE_POSITION_LIFETIME": "61.5",
    "DATABASE_HOLD_WRITES": "4.5",
    "DATABASE_TLS": "verify-full",
    "DATABASE_TLS_CA_FILE": "ca.pem",
    "DATABASE_TLS_CERT_FILE": "client.pem",
    "DATABASE_TLS_KEY_FILE": "client.key",
    "DATABASE_TCP_KEEPALIVE": "18",
    "DATABASE_WORKERS": "19",
    "DATABASE_INSTANCES": "20",
    "DATABASE_PLAN": "plan.toml",
    "DATABASE_CONNECTION_RESERVE": "0.3",
    "DATABASE_BUDGET": "refuse",
    "DATABASE_FLEET": "true",
    "DATABASE_FLEET_WEIGHT": "21",
    "DATABASE_FLEET_SURGE": "0.4",
    "DATABASE_UTILISATION_WARNING": "0.9",
    "DATABASE_SLOW_QUERY": "0.2",
    "DATABASE_BATCH_READS": "false",
    "DATABASE_TELEMETRY": "false",
    "DATABASE_TELEMETRY_DIR": "telemetry",
}


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def refusal(**arguments: str) -> str:
    with pytest.raises(SettingsError) as refused:
        settings_from_environment(**arguments)
    return str(refused.value)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "penstock.settings"]


def test_every_setting_has_a_variable_that_says_the_same_as_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("credentials.json", "ca.pem", "client.pem", "client.key", "plan.toml"):
        Path(name).touch()
    set_all(monkeypatch, EVERY_VARIABLE)
    in_python = {field: EVERY_VARIABLE[variable(field)] for field in DatabaseSettings.model_fields}
    url = in_python.pop("url")

    settings = settings_from_environment()

    assert len(EVERY_VARIABLE) == len(DatabaseSettings.model_fields)
    assert settings == DatabaseSettings.of(url, **in_python)
    defaults = DatabaseSettings.of(URL)
    assert all(getattr(settings, field) != getattr(defaults, field) for field in in_python)


def test_the_url_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)

    assert settings_from_environment() == DatabaseSettings.of(URL)


def test_a_missing_url_is_refused_with_an_example() -> None:
    assert refusal() == (
        "DATABASE_URL is not set: for example "
        "DATABASE_URL=postgresql+asyncpg://user:password@localhost:5432/app"
    )


def test_all_wrong_variables_are_reported_together_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_all(
        monkeypatch,
        {
            "DATABASE_POOL_SIZE": "abc",
            "DATABASE_ECHO": "perhaps",
            "ENVIRONMENT": "",
            "WEB_CONCURRENCY": "lots",
        },
    )

    assert refusal().splitlines() == [
        f"DATABASE_URL is not set: for example DATABASE_URL={EXAMPLE_URL}",
        "ENVIRONMENT='': one of development, testing, production, serverless is accepted",
        "DATABASE_POOL_SIZE='abc': a whole number from 1 to 1000 is accepted",
        "DATABASE_ECHO='perhaps': true or false is accepted",
        "WEB_CONCURRENCY='lots': a whole number from 1 to 1024 is accepted",
    ]


def test_an_empty_proxy_takes_back_the_one_of_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("DATABASE_PROXY=pgbouncer\n")
    set_all(monkeypatch, {"DATABASE_URL": URL, "DATABASE_PROXY": ""})

    assert settings_from_environment(env_file=tmp_path / ".env").proxy == ()


MAY_BE_EMPTY = {"DATABASE_PROXY", "DATABASE_REPLICAS"}
"""An empty one takes back what a base image or a file says."""


@pytest.mark.parametrize("name", sorted(EVERY_VARIABLE.keys() - MAY_BE_EMPTY))
def test_an_empty_variable_is_refused_like_any_other_wrong_value(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    set_all(monkeypatch, {"DATABASE_URL": URL, name: ""})

    assert refusal().startswith(name)


def test_another_prefix_reads_a_second_database(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch,
        {
            "ENVIRONMENT": "production",
            "DATABASE_URL": URL,
            "DATABASE_POOL_SIZE": "7",
            "ANALYTICS_URL": "sqlite:///analytics.db",
            "ANALYTICS_POOL_SIZE": "3",
        },
    )

    assert settings_from_environment() == DatabaseSettings.of(
        URL, environment="production", pool_size=7
    )
    assert settings_from_environment("ANALYTICS_") == DatabaseSettings.of(
        "sqlite:///analytics.db", environment="production", pool_size=3
    )


def test_another_prefix_is_named_in_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANALYTICS_POOL_SIZE", "0")

    assert refusal(prefix="ANALYTICS_").splitlines() == [
        f"ANALYTICS_URL is not set: for example ANALYTICS_URL={EXAMPLE_URL}",
        "ANALYTICS_POOL_SIZE='0': a whole number from 1 to 1000 is accepted",
    ]


def test_the_file_is_read_and_the_environment_outranks_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text(
        f"# settings\nexport DATABASE_URL='{URL}'\nDATABASE_POOL_SIZE=7\nDATABASE_MAX_OVERFLOW=8\n"
        "ENVIRONMENT=production\nSECRET_KEY=unrelated\n"
    )
    monkeypatch.setenv("DATABASE_POOL_SIZE", "9")

    assert settings_from_environment() == DatabaseSettings.of(
        URL, environment="production", pool_size=9, max_overflow=8
    )


def test_a_preset_in_the_environment_does_not_outrank_a_number_in_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text(f"DATABASE_URL={URL}\nDATABASE_POOL_SIZE=7\n")
    monkeypatch.setenv("DATABASE_PRESET", "high")

    settings = settings_from_environment()

    assert (settings.pool_size, settings.max_overflow) == (7, 20)


def test_variables_are_read_in_either_case(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"database_url": URL, "Database_Pool_Size": "7"})

    assert settings_from_environment() == DatabaseSettings.of(URL, pool_size=7)


def test_web_concurrency_counts_in_the_environment_and_not_in_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text(f"DATABASE_URL={URL}\nWEB_CONCURRENCY=8\n")

    assert settings_from_environment().workers == 1
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert settings_from_environment().workers == 4
    monkeypatch.setenv("DATABASE_WORKERS", "2")
    assert settings_from_environment().workers == 2


def test_a_dollar_written_as_percent_24_is_not_expanded_in_the_file() -> None:
    url = "postgresql+asyncpg://user:pa%24{HOME}ss@localhost/app"
    Path(".env").write_text(f"DATABASE_URL={url}\n")

    assert settings_from_environment().url.get_secret_value() == url


def test_another_file_or_none_may_be_named() -> None:
    Path(".env").write_text("DATABASE_URL=oracle://nowhere\n")
    Path("staging.env").write_text(f"DATABASE_URL={URL}\n")

    assert settings_from_environment(env_file="staging.env") == DatabaseSettings.of(URL)
    with pytest.raises(SettingsError, match="DATABASE_URL is not set"):
        settings_from_environment(env_file=None)


def test_a_file_that_is_not_there_counts_as_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)

    assert settings_from_environment(env_file="absent.env") == DatabaseSettings.of(URL)


def test_a_file_with_a_byte_order_mark_is_read() -> None:
    Path(".env").write_text(f"DATABASE_URL={URL}\n", encoding="utf-8-sig")

    assert settings_from_environment() == DatabaseSettings.of(URL)


@pytest.mark.parametrize("line", ["DATABASE_URL", "DATABASE_URL='hunter2", "hunter2 is = it"])
def test_a_malformed_line_is_refused_by_its_number_and_not_shown(line: str) -> None:
    Path(".env").write_text(f"A=1\nB=2\n{line}\n")

    assert refusal() == ".env, line 3: NAME=value is accepted"


def test_a_file_that_is_no_text_is_refused_by_its_name() -> None:
    Path("binary.env").write_bytes(b"DATABASE_URL=\xff\xfe\n")

    assert refusal(env_file="binary.env") == "binary.env cannot be read: UnicodeDecodeError"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
def test_a_file_that_cannot_be_read_is_refused_by_its_name() -> None:
    assert refusal(env_file="/proc/self/mem") == "/proc/self/mem cannot be read: OSError"


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    assert refusal(env_file=str(tmp_path)) == f"{tmp_path} cannot be read: IsADirectoryError"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DATABASE_POOLSIZE", "DATABASE_POOL_SIZE"),
        ("DATABASE_MAX_OVERFLOWS", "DATABASE_MAX_OVERFLOW"),
        ("DATABASE_CONECT_TIMEOUT", "DATABASE_CONNECT_TIMEOUT"),
        ("DATABASE_UTILIZATION_WARNING", "DATABASE_UTILISATION_WARNING"),
        ("DATABASE_ENVIRONMENT", "ENVIRONMENT"),
    ],
)
@pytest.mark.parametrize("in_file", [True, False])
def test_a_misspelled_variable_is_logged_with_the_one_that_was_meant(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    meant: str,
    in_file: bool,
) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    if in_file:
        Path(".env").write_text(f"{name}=hunter2\n")
    else:
        monkeypatch.setenv(name, "hunter2")

    settings_from_environment()

    assert warnings(caplog) == [f"{name} is not a setting; did you mean {meant}?"]
    assert caplog.records[0].levelno == logging.WARNING


def test_variables_of_other_programs_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_all(
        monkeypatch,
        {
            "DATABASE_URL": URL,
            "DATABASE_HOST": "localhost",
            "DATABASE_PORT": "5432",
            "DATABASE_NAME": "app",
            "DATABASE_USER": "user",
            "DATABASE_PASSWORD": "hunter2",
            "DATABASE_TYPE": "postgres",
            "DATABASE_SCHEMA": "public",
            "POOLSIZE": "3",
        },
    )

    settings_from_environment()

    assert warnings(caplog) == []


@pytest.mark.parametrize("stage", ["staging", "prod", "local", "Prod-EU", "develpment"])
def test_a_stage_of_the_applications_own_has_the_profile_of_production_and_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stage: str
) -> None:
    set_all(monkeypatch, {"DATABASE_URL": URL, "ENVIRONMENT": stage})

    settings = settings_from_environment()

    assert settings == DatabaseSettings.of(URL, environment="production")
    (line,) = caplog.messages
    assert line.startswith("ENVIRONMENT is none of development, testing, production, serverless")


@pytest.mark.parametrize("stage", ["testing", "Testing", "TESTING"])
def test_the_case_of_an_environment_does_not_matter_in_its_variable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stage: str
) -> None:
    set_all(monkeypatch, {"DATABASE_URL": URL, "ENVIRONMENT": stage})

    assert settings_from_environment() == DatabaseSettings.of(URL, environment="testing")
    assert not caplog.messages


@pytest.mark.parametrize("stage", ["production", "staging", None])
def test_an_environment_in_python_outranks_the_variable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stage: str | None
) -> None:
    set_all(monkeypatch, {"DATABASE_URL": URL} | ({"ENVIRONMENT": stage} if stage else {}))

    settings = settings_from_environment(environment="testing")

    assert settings == DatabaseSettings.of(URL, environment="testing")
    assert settings.names_environment
    assert not caplog.messages


def test_an_unknown_environment_in_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"DATABASE_URL": URL})
    with pytest.raises(SettingsError, match=r"^environment='staging': one of development"):
        settings_from_environment(environment="staging")


def test_values_are_shown_in_a_development_that_was_named_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = {
        name: DatabaseSettings.of(URL, environment=name).shows_values
        for name in ("development", "testing", "production", "serverless")
    }
    assert [name for name, shows in shown.items() if shows] == ["development"]

    unnamed = DatabaseSettings.of(URL)
    assert unnamed.environment == "development"
    assert not unnamed.names_environment
    assert not unnamed.shows_values
