"""A wrong value is refused by its name, itself, and what is accepted; all of them at once."""

from pathlib import Path
from typing import Any

import pytest

from penstock.errors import PenstockError, SettingsError
from penstock.settings import DatabaseSettings

URL = "postgresql://user:password@localhost/app"


def refusal(url: str = URL, **overrides: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        DatabaseSettings.of(url, **overrides)
    return str(refused.value)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"pool_size": "abc"}, "pool_size='abc': a whole number from 1 to 1000 is accepted"),
        ({"pool_size": ""}, "pool_size='': a whole number from 1 to 1000 is accepted"),
        ({"pool_size": None}, "pool_size=None: a whole number from 1 to 1000 is accepted"),
        ({"pool_size": True}, "pool_size=True: a whole number from 1 to 1000 is accepted"),
        ({"pool_size": 5.5}, "pool_size=5.5: a whole number from 1 to 1000 is accepted"),
        ({"pool_size": [5]}, "pool_size (a list): a whole number from 1 to 1000 is accepted"),
        (
            {"pool_timeout": 0},
            "pool_timeout=0: a number of seconds above 0 and up to 600 is accepted",
        ),
        (
            {"pool_timeout": float("nan")},
            "pool_timeout=nan: a number of seconds above 0 and up to 600 is accepted",
        ),
        (
            {"connection_reserve": 0.95},
            "connection_reserve=0.95: a number from 0 to 0.9 is accepted",
        ),
        ({"fleet": "perhaps"}, "fleet='perhaps': true or false is accepted"),
        ({"fleet_weight": 0}, "fleet_weight=0: a whole number from 1 to 1000 is accepted"),
        ({"fleet_surge": 0.6}, "fleet_surge=0.6: a number from 0 to 0.5 is accepted"),
        (
            {"fleet": True, "environment": "serverless"},
            "fleet=True: serverless keeps no connections that could be divided",
        ),
        (
            {"statement_cache_size": 501},
            "statement_cache_size=501: a whole number of statements from 0 to 500 is accepted",
        ),
        (
            {"codel_target": ""},
            "codel_target='': off or a number of seconds above 0 and up to 600 is accepted",
        ),
        (
            {"codel_target": 0},
            "codel_target=0: off or a number of seconds above 0 and up to 600 is accepted",
        ),
        (
            {"leak_after": "Off"},
            "leak_after='Off': off or a number of seconds above 0 and up to 86400 is accepted",
        ),
        (
            {"max_waiting": False},
            "max_waiting=False: off or a whole number from 0 to 100000 is accepted",
        ),
        (
            {"keepalive": "off"},
            "keepalive='off': a number of seconds from 0 to 86400 is accepted",
        ),
        (
            {"nested_checkout": "off"},
            "nested_checkout='off': one of refuse, warn, allow is accepted",
        ),
        (
            {"min_idle": 6},
            "min_idle=6: a whole number from 0 to pool_size, which is 5, is accepted",
        ),
        (
            {"min_idle": 3, "pool_size": 2},
            "min_idle=3: a whole number from 0 to pool_size, which is 2, is accepted",
        ),
        (
            {"reclaim_leaks": True, "leak_after": "off"},
            "reclaim_leaks=True: it takes effect with leak_after only, which is off",
        ),
        (
            {"reclaim_leaks": True, "environment": "testing"},
            "reclaim_leaks=True: it takes effect with leak_after only, which is off",
        ),
        ({"echo": "maybe"}, "echo='maybe': true or false is accepted"),
        (
            {"environment": "beta"},
            "environment='beta': one of development, testing, production, serverless is accepted",
        ),
        (
            {"preset": ""},
            "preset='': one of development, small, medium, high, container is accepted",
        ),
        (
            {"tls": "allow"},
            "tls='allow': one of disable, prefer, require, verify-ca, verify-full is accepted",
        ),
        ({"budget": "loud"}, "budget='loud': one of warn, refuse, off is accepted"),
        ({"application_name": ""}, "application_name='': text of 1 to 63 bytes is accepted"),
        (
            {"application_name": "a\0b"},
            r"application_name='a\x00b': text of 1 to 63 bytes is accepted",
        ),
        (
            {"application_name": "é" * 32},
            f"application_name='{'é' * 32}': text of 1 to 63 bytes is accepted",
        ),
        (
            {"slow_query": 0},
            "slow_query=0: off or a number of seconds above 0 and up to 3600 is accepted",
        ),
        ({"telemetry": "off?"}, "telemetry='off?': true or false is accepted"),
        (
            {"telemetry_dir": ""},
            "telemetry_dir='': the path of a folder, which need not exist, is accepted",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_accepted(wrong: dict[str, Any], line: str) -> None:
    assert refusal(**wrong) == line


def test_an_application_name_of_63_bytes_is_accepted() -> None:
    name = "é" * 31 + "x"

    assert DatabaseSettings.of(URL, application_name=name).application_name == name


def test_all_wrong_settings_are_reported_together_in_the_order_of_the_settings() -> None:
    lines = refusal("oracle://x", workers=0, pool_size=0, tls_ca_file="/missing").splitlines()

    assert [line.partition("=")[0].partition(":")[0] for line in lines] == [
        "url",
        "pool_size",
        "tls_ca_file",
        "workers",
    ]


@pytest.mark.parametrize(
    ("wrong", "reported"),
    [
        ({"min_idle": 9, "pool_size": 0}, "pool_size"),
        ({"reclaim_leaks": True, "leak_after": 0}, "leak_after"),
    ],
)
def test_what_depends_on_a_wrong_setting_is_not_reported_as_well(
    wrong: dict[str, Any], reported: str
) -> None:
    (line,) = refusal(**wrong).splitlines()

    assert line.startswith(f"{reported}=0: ")


def test_an_unknown_keyword_is_refused_with_the_setting_that_was_meant() -> None:
    assert refusal(pool_sise=5) == "pool_sise is not a setting; did you mean pool_size?"
    assert refusal(poolsize=5) == "poolsize is not a setting; did you mean pool_size?"


def test_an_unknown_keyword_like_no_setting_is_refused_without_a_guess() -> None:
    assert refusal(colour="red") == "colour is not a setting"


def test_a_long_value_is_cut() -> None:
    line = refusal(pool_size="9" * 5000)

    assert line.startswith(f"pool_size='{'9' * 199}...: ")
    assert len(line) < 300


def test_a_refusal_is_a_value_error_and_a_penstock_error() -> None:
    assert issubclass(SettingsError, ValueError)
    assert issubclass(SettingsError, PenstockError)


@pytest.mark.parametrize(
    ("server_settings", "reason"),
    [
        ({"jit": "off"}, "jit has its own setting"),
        ({"application_name": "me"}, "application_name has its own setting"),
    ],
)
def test_a_server_setting_with_a_setting_of_its_own_is_refused(
    server_settings: dict[str, str], reason: str
) -> None:
    assert refusal(server_settings=server_settings) == f"server_settings: {reason}"


@pytest.mark.parametrize(
    "server_settings",
    [{"work_mem": 4}, {4: "x"}, {"": "x"}, {"a\0": "x"}, {"a": "\0"}, "[]", "{", "null", 3],
)
def test_server_settings_that_are_no_names_and_texts_are_refused(server_settings: Any) -> None:
    assert refusal(server_settings=server_settings).startswith("server_settings: ")


def test_server_settings_may_be_given_as_json() -> None:
    settings = DatabaseSettings.of(URL, server_settings='{"timezone": "UTC"}')

    assert settings.server_settings == {"timezone": "UTC"}


@pytest.mark.parametrize("tls", ["verify-ca", "verify-full"])
def test_a_tls_ca_file_must_exist(tmp_path: Path, tls: str) -> None:
    authority = tmp_path / "ca.pem"

    assert refusal(tls=tls, tls_ca_file=authority).startswith(f"tls_ca_file='{authority}': ")
    authority.touch()
    assert DatabaseSettings.of(URL, tls=tls, tls_ca_file=authority).tls_ca_file == authority


def test_a_folder_is_no_tls_ca_file(tmp_path: Path) -> None:
    assert refusal(tls="verify-ca", tls_ca_file=tmp_path).startswith(f"tls_ca_file='{tmp_path}': ")


def test_a_telemetry_dir_is_a_folder_or_does_not_exist_yet(tmp_path: Path) -> None:
    missing, file = tmp_path / "numbers", tmp_path / "file"
    file.touch()

    assert DatabaseSettings.of(URL, telemetry_dir=missing).telemetry_dir == missing
    assert DatabaseSettings.of(URL, telemetry_dir=str(tmp_path)).telemetry_dir == tmp_path
    assert refusal(telemetry_dir=file) == f"telemetry_dir='{file}': it is not a folder"


@pytest.mark.parametrize("tls", [None, "disable", "prefer", "require"])
def test_a_tls_ca_file_that_would_not_be_used_is_refused(tmp_path: Path, tls: str | None) -> None:
    authority = tmp_path / "ca.pem"
    authority.touch()

    line = refusal(tls=tls, tls_ca_file=authority)

    assert line.startswith(f"tls_ca_file='{authority}': ")
    assert "verify-ca" in line
    assert "verify-full" in line


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"tls": "require"}, "tls='require': "),
        ({"tls": "disable"}, "tls='disable': "),
        ({"proxy": "pgbouncer"}, "proxy='pgbouncer': "),
        ({"server_settings": {"timezone": "UTC"}}, "server_settings: "),
        ({"requires_context": ("app.tenant",)}, "requires_context='app.tenant': "),
        ({"fleet": True}, "fleet=True: "),
    ],
)
def test_sqlite_refuses_what_needs_a_server(setting: dict[str, Any], line: str) -> None:
    told = refusal("sqlite:///app.db", **setting)

    assert told.startswith(line)
    assert "SQLite" in told


def test_mysql_refuses_server_settings() -> None:
    line = refusal("mysql+asyncmy://localhost/app", server_settings={"timezone": "UTC"})

    assert line.startswith("server_settings: ")
    assert "PostgreSQL" in line


def test_mysql_refuses_a_fleet() -> None:
    assert refusal("mysql+asyncmy://localhost/app", fleet="true") == (
        "fleet='true': it is understood for PostgreSQL only"
    )


def test_mysql_refuses_required_settings() -> None:
    line = refusal("mysql+asyncmy://localhost/app", requires_context="app.tenant")

    assert line.startswith("requires_context='app.tenant': ")
    assert "PostgreSQL" in line


@pytest.mark.parametrize("names", ["", "app.tenant,", "app tenant", "app.tenant;", "9.x", "a..b"])
def test_a_required_setting_that_none_can_be_is_refused_by_its_name(names: str) -> None:
    wrong = names.rsplit(",", maxsplit=1)[-1]
    line = refusal(requires_context=names)

    assert line.startswith(f"requires_context={names!r}: ")
    assert f" {wrong!r} " in line


@pytest.mark.parametrize("names", [4, None, [4], {"app.tenant": "7"}])
def test_what_is_no_names_of_settings_is_refused(names: Any) -> None:
    assert refusal(requires_context=names).endswith(
        ": names of settings with commas between, such as app.tenant,role, is accepted"
    )


def test_required_settings_may_be_given_with_commas_or_one_by_one() -> None:
    for names in ("app.tenant, role", ("app.tenant", "role"), ["app.tenant", "role"]):
        settings = DatabaseSettings.of(URL, requires_context=names)
        assert settings.requires_context == ("app.tenant", "role")


@pytest.mark.parametrize("parameter", ["sslmode", "sslrootcert"])
@pytest.mark.parametrize("values", [("require", "disable"), ("require", "require")])
def test_a_parameter_of_tls_that_is_there_twice_is_refused(
    parameter: str, values: tuple[str, str]
) -> None:
    query = "&".join(f"{parameter}={value}" for value in values)

    assert f"its {parameter} is there twice" in refusal(f"{URL}?{query}")


@pytest.mark.parametrize("name", ["", "a b", "1a", "a;b", "a..b", "a.", "ä", "a\0", "a'b"])
def test_a_name_that_no_setting_of_the_server_has_is_refused(name: str) -> None:
    assert "server_settings" in refusal(server_settings={name: "1"})


@pytest.mark.parametrize("name", ["timezone", "app.tenant", "TimeZone", "_a.b_1.c$"])
def test_a_name_that_a_setting_of_the_server_may_have_is_accepted(name: str) -> None:
    assert DatabaseSettings.of(URL, server_settings={name: "1"}).server_settings == {name: "1"}


def test_text_that_was_no_utf_8_is_refused_and_not_shown() -> None:
    message = refusal("postgresql://user:pass\udce4word@localhost/app")

    assert "lone surrogate" in message
    assert "word" not in message


def test_a_folder_whose_name_is_too_long_is_refused(tmp_path: Path) -> None:
    assert "telemetry_dir" in refusal(telemetry_dir=tmp_path / ("x" * 300))
