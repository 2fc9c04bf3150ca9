"""What the script is given is either right or refused before anything is looked at."""

import subprocess
from pathlib import Path

import pytest
from tests.provisioning.machine import ROOT

SCRIPT = ROOT / "install.sh"
REFUSED = 2
FULL = ["shop", "shop", "secret", "shop"]


def install(*arguments: str | Path, entering: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the script so that it changes nothing, whatever it makes of its arguments."""
    command = ["bash", SCRIPT, "--dry-run", *arguments]
    return subprocess.run(command, capture_output=True, check=False, input=entering, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["a b"], "DB_NAME"),
        (["a;b"], "DB_NAME"),
        (["a'b"], "DB_NAME"),
        (['a"b'], "DB_NAME"),
        (["$(id)"], "DB_NAME"),
        (["../etc"], "DB_NAME"),
        (["a\nb"], "DB_NAME"),
        (["naïve"], "DB_NAME"),
        (["1st"], "DB_NAME"),
        (["a" * 64], "DB_NAME"),
        (["template1"], "DB_NAME"),
        (["shop", 'x" SUPERUSER'], "DB_USER"),
        (["shop", "postgres"], "DB_USER"),
        (["shop", "pg_monitor"], "DB_USER"),
        (["shop", "Shop"], "APP_USER"),
        ([*FULL[:3], "-rf"], "there is no option -rf"),
        ([*FULL[:3], "root"], "APP_USER"),
        ([*FULL[:3], "a:b"], "APP_USER"),
        ([*FULL, "more"], "5 arguments"),
        (["--", *FULL, "-more"], "5 arguments"),
        ([*FULL[:2], "x" * 1025], "the password is longer than 1024 bytes"),
        (["--memory", "lots"], "--memory 'lots'"),
        (["--memory", "99999999"], "--memory '99999999'"),
        (["--memory"], "--memory needs a value"),
        (["--package", "--index-url=http://elsewhere"], "--package"),
        (["--password-file", "/nowhere"], "--password-file /nowhere"),
        (["--purge"], "--purge belongs to --uninstall"),
        (["--frce"], "there is no option --frce"),
    ],
)
def test_a_wrong_argument_is_refused_by_its_name(arguments: list[str], named: str) -> None:
    refused = install(*arguments)

    assert refused.returncode == REFUSED
    assert refused.stderr.decode().startswith(f"install.sh: {named}")
    assert not refused.stdout


@pytest.mark.parametrize(
    ("password", "reason"),
    [(b"", "it is empty"), (b"a\0b", "cannot have a NUL"), (b"\xff\n", "not valid UTF-8")],
)
def test_a_password_that_no_server_takes_is_refused(password: bytes, reason: str) -> None:
    refused = install("--password-file", "-", entering=password)

    assert refused.returncode == REFUSED
    assert reason in refused.stderr.decode()


def test_help_describes_every_option() -> None:
    shown = install("--help")
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    options = {word.rstrip(":") for word in shown.stdout.decode().split() if word[:2] == "--"}

    assert shown.returncode == 0
    assert len(options) >= 9
    assert not {option for option in options - {"--help"} if f"`{option}" not in page}
