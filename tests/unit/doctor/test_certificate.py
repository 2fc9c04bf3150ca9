"""The end of a certificate is what OpenSSL says it is."""

import shutil
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.servers.parts import require_part

from penstock.doctor.certificate import valid_until


@pytest.mark.parametrize("days", [1, 10_000])
@pytest.mark.parametrize("key", ["rsa:2048", "ec -pkeyopt ec_paramgen_curve:prime256v1"])
def test_the_end_is_the_one_that_openssl_shows(days: int, key: str, tmp_path: Path) -> None:
    require_part("OpenSSL", present=shutil.which("openssl"), remedy="apt-get install openssl")
    make = f"openssl req -x509 -nodes -newkey {key} -days {days} -subj /CN=a -out a.pem -keyout key"
    subprocess.run(make.split(), cwd=tmp_path, check=True, capture_output=True)
    show = ["openssl", "x509", "-noout", "-enddate", "-in", "a.pem"]
    said = subprocess.run(show, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    end = ssl.cert_time_to_seconds(said.strip().removeprefix("notAfter="))

    pem = (tmp_path / "a.pem").read_text()

    assert valid_until(f"a chain\n{pem}") == datetime.fromtimestamp(end, UTC)


def test_a_file_without_a_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="no certificate"):
        valid_until("-----BEGIN PRIVATE KEY-----")
