"""Certificates for the test servers, made anew for each run."""

import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.servers.parts import require_part

NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
EXTENSIONS = """
subjectAltName=DNS:localhost
authorityKeyIdentifier=keyid
extendedKeyUsage=serverAuth
"""


@dataclass(frozen=True)
class Certificates:
    """A server's certificate for ``localhost``, and who vouches for it.

    Args:
        authority: File of the authority that signed it.
        stranger: File of another authority of the same name.
        certificate: The server's certificate, as PEM text.
        key: The server's private key, as PEM text.
        client: File of a client's certificate, signed by the same authority.
        client_key: File of its private key.
    """

    authority: Path
    stranger: Path
    certificate: str
    key: str
    client: Path
    client_key: Path


def make_certificates(directory: Path) -> Certificates:
    """Make two authorities, and a server's and a client's certificate signed by the first.

    Args:
        directory: Where the files go.
    """
    require_part("OpenSSL", present=shutil.which("openssl"), remedy="apt-get install openssl")
    (directory / "extensions").write_text(EXTENSIONS)
    name, usage = "-subj '/CN=Authority of the tests'", "-addext keyUsage=critical,keyCertSign"
    for authority in ("authority", "stranger"):
        files = f"-keyout {authority}.key -out {authority}.pem"
        _openssl(directory, f"req -x509 -days 2 {NEW_KEY} {files} {name} {usage}")
    _openssl(directory, f"req {NEW_KEY} -keyout server.key -out server.csr -subj /CN=localhost")
    signer = "-CA authority.pem -CAkey authority.key -CAcreateserial -extfile extensions"
    _openssl(directory, f"x509 -req -days 2 -in server.csr -out server.pem {signer}")
    _openssl(directory, f"req {NEW_KEY} -keyout client.key -out client.csr -subj /CN=postgres")
    signer = "-CA authority.pem -CAkey authority.key -CAcreateserial"
    _openssl(directory, f"x509 -req -days 2 -in client.csr -out client.pem {signer}")
    (directory / "client.key").chmod(0o600)
    return Certificates(
        authority=directory / "authority.pem",
        stranger=directory / "stranger.pem",
        certificate=(directory / "server.pem").read_text(),
        key=(directory / "server.key").read_text(),
        client=directory / "client.pem",
        client_key=directory / "client.key",
    )


def _openssl(directory: Path, arguments: str) -> None:
    command = ["openssl", *shlex.split(arguments)]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
