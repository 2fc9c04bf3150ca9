"""Tokens of AWS IAM and of Microsoft Entra: whether the services would accept them, and where."""

import asyncio
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, urlencode, urlsplit

import pytest
from azure.identity import ManagedIdentityCredential
from botocore.session import Session

from penstock import Database
from penstock.credentials import Server, entra_credentials, rds_credentials
from penstock.credentials.cache import CredentialSource
from penstock.engine import build_engine
from penstock.engine.build import EngineOptions
from penstock.errors import SettingsError
from penstock.settings import DatabaseSettings

HOST, PORT, USER, REGION = "orders.abc.eu-central-1.rds.amazonaws.com", 5433, "app", "eu-central-1"
KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SERVER = Server(((HOST, PORT),), USER, is_encrypted=True, is_postgresql=True)


@pytest.fixture
def session() -> Session:
    session = Session()
    session.set_credentials(KEY, SECRET)
    return session


async def test_the_signature_of_a_token_is_that_of_aws(session: Session) -> None:
    """Recomputed as AWS documents it: "Signature Version 4 signing process", for query strings."""
    provider = rds_credentials(REGION, session=session).for_server(SERVER)

    brought = await provider()

    token = brought.password.get_secret_value()
    address, _, query = token.partition("/?")
    given = dict(parse_qsl(query))
    assert address == f"{HOST}:{PORT}"
    assert (given["Action"], given["DBUser"], given["X-Amz-Expires"]) == ("connect", USER, "900")
    assert given.pop("X-Amz-Signature") == signature(given)
    assert brought.user == USER
    assert 890 < brought.expires_at - time.time() <= 900


def signature(given: dict[str, str]) -> str:
    canonical_query = urlencode(sorted(given.items()), quote_via=quote, safe="-_.~")
    empty = hashlib.sha256(b"").hexdigest()
    request = f"GET\n/\n{canonical_query}\nhost:{HOST}:{PORT}\n\nhost\n{empty}"
    moment = given["X-Amz-Date"]
    scope = f"{moment[:8]}/{REGION}/rds-db/aws4_request"
    assert given["X-Amz-Credential"] == f"{KEY}/{scope}"
    hashed = hashlib.sha256(request.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashed}"
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, to_sign.encode(), "sha256").hexdigest()


def test_each_server_has_tokens_of_its_own(session: Session) -> None:
    source = CredentialSource(rds_credentials(REGION, session=session), 5.0)
    replica = Server((("replica", 5432),), USER, is_encrypted=True, is_postgresql=True)

    assert source.cache_of(SERVER) is not source.cache_of(replica)


@pytest.mark.parametrize("tls", [None, "disable", "prefer"])
@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_a_token_is_not_sent_in_the_clear(cloud: str, tls: Any, session: Session) -> None:
    credentials = provider_of(cloud, session)

    with pytest.raises(SettingsError, match="need tls 'require', 'verify-ca' or 'verify-full'"):
        Database.from_url(f"postgresql://{USER}@{HOST}/x", tls=tls, credentials=credentials)


@pytest.mark.parametrize("tls", ["require", "verify-full"])
@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_it_is_with_tls(cloud: str, tls: Any, session: Session) -> None:
    settings = DatabaseSettings.of(f"postgresql://{USER}@{HOST}/x", tls=tls)

    build_engine(settings, EngineOptions(credentials=provider_of(cloud, session)))


def provider_of(cloud: str, session: Session) -> Any:
    if cloud == "aws":
        return rds_credentials(REGION, session=session)
    return entra_credentials(ManagedIdentityCredential())


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"mysql+asyncmy://{USER}@{HOST}/x", "for PostgreSQL only"),
        (f"postgresql://{HOST}/x", "for the user of the URL"),
        (f"postgresql://{USER}@a,b/x", "for exactly one host"),
        (f"postgresql://{USER}@/x?host=/run", "for exactly one host"),
    ],
)
def test_a_server_that_aws_signs_nothing_for_is_refused(
    url: str, message: str, session: Session
) -> None:
    with pytest.raises(SettingsError, match=message):
        Database.from_url(url, tls="require", credentials=rds_credentials(REGION, session=session))


class Endpoint(http.server.BaseHTTPRequestHandler):
    """Azure's endpoint of managed identities in App Service, as its documentation has it."""

    asked: list[dict[str, list[str]]]

    def do_GET(self) -> None:
        assert self.headers["X-IDENTITY-HEADER"] == "header"
        self.asked.append(parse_qs(urlsplit(self.path).query))
        answer = {
            "access_token": f"token {len(self.asked)}",
            "expires_on": str(int(time.time()) + 3600),
            "resource": self.asked[-1]["resource"][0],
            "token_type": "Bearer",
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Endpoint]]:
    handler = type("Handler", (Endpoint,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{server.server_port}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "header")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield handler
        server.shutdown()
        thread.join()


async def test_a_token_of_entra_is_for_azures_databases(endpoint: type[Endpoint]) -> None:
    credential = ManagedIdentityCredential()
    brought = await entra_credentials(credential)()
    await asyncio.to_thread(credential.close)

    assert brought.password.get_secret_value() == "token 1"
    assert brought.user is None
    assert 3500 < brought.expires_at - time.time() <= 3600
    (asked,) = endpoint.asked
    assert asked["resource"] == ["https://ossrdbms-aad.database.windows.net"]


async def test_an_asynchronous_credential_is_awaited() -> None:
    class Token:
        token, expires_on = "of-async", int(time.time()) + 60

    class Credential:
        async def get_token(self, scope: str) -> Token:
            assert scope == "https://ossrdbms-aad.database.windows.net/.default"
            return Token()

    brought = await entra_credentials(Credential())()

    assert brought.password.get_secret_value() == "of-async"


def test_all_servers_share_a_token_of_entra() -> None:
    source = CredentialSource(entra_credentials(ManagedIdentityCredential()), 5.0)
    replica = Server((("replica", 5432),), USER, is_encrypted=True, is_postgresql=True)

    assert source.cache_of(SERVER) is source.cache_of(replica)
