"""Tokens of AWS IAM for Amazon RDS and Aurora, which are signed locally."""

import asyncio
import importlib
from typing import Any

from penstock.base_error import SettingsError
from penstock.credentials.provider import Credentials, CredentialsProvider, Server

TOKEN_LIFETIME = 900
"""Seconds; Amazon RDS User Guide, "IAM database authentication"."""


class RdsCredentials:
    """Signs tokens for each server with the AWS credentials of the environment.

    It needs the extra ``aws``, TLS, and the host as the server's own endpoint in the URL: the token
    is signed for that, its port and the user.

    Args:
        region: Such as ``eu-central-1``; None for the session's.
        session: A ``botocore.session.Session``, or a ``boto3.Session``; None for one that looks
            for AWS credentials where they usually are.
        max_age: Seconds after which a connection is replaced, as for :class:`Credentials`.

    Raises:
        SettingsError: botocore is not installed.
    """

    def __init__(
        self, region: str | None = None, *, session: Any = None, max_age: float | None = None
    ) -> None:
        self._create_client = _client_factory(session)
        self._region, self._max_age = region, max_age
        self._client: Any = None

    def for_server(self, server: Server) -> CredentialsProvider:
        """Return what signs tokens for a server.

        Args:
            server: On Amazon RDS or Aurora.

        Raises:
            SettingsError: It is not PostgreSQL with TLS, on one host, with a user.
        """
        server.require_token_login("tokens of AWS IAM")
        if len(server.hosts) != 1 or server.hosts[0][1] is None:
            raise SettingsError("credentials: a token of AWS IAM is signed for exactly one host")
        if not server.user:
            raise SettingsError("credentials: a token of AWS IAM is signed for the user of the URL")
        (host, port), user = server.hosts[0], server.user

        async def rds_token() -> Credentials:
            # AWS credentials may have to be fetched, too; botocore waits for them.
            token = await asyncio.to_thread(self._token, host, port, user)
            return Credentials(
                user=user, password=token, expires_in=TOKEN_LIFETIME, max_age=self._max_age
            )

        rds_token.name = f"rds_credentials for {user} at {host}:{port}"  # type: ignore[attr-defined]  # as CredentialsProvider has it
        return rds_token

    def _token(self, host: str, port: int | None, user: str) -> str:
        if self._client is None:
            self._client = self._create_client("rds", region_name=self._region)
        token: str = self._client.generate_db_auth_token(
            DBHostname=host, Port=port, DBUsername=user
        )
        return token


def _client_factory(session: Any) -> Any:
    if session is None:
        try:
            session = importlib.import_module("botocore.session").get_session()
        except ModuleNotFoundError as error:
            raise SettingsError(
                "rds_credentials: botocore is not installed: pip install 'penstock[aws]'"
            ) from error
    return session.create_client if hasattr(session, "create_client") else session.client
