"""Tokens of Microsoft Entra for Azure Database for PostgreSQL."""

import asyncio
import importlib
import inspect
from typing import Any

from penstock.base_error import SettingsError
from penstock.credentials.provider import Credentials, CredentialsProvider, Server

SCOPE = "https://ossrdbms-aad.database.windows.net/.default"
"""Azure Database for PostgreSQL, "Use Microsoft Entra ID for authentication"."""


class EntraCredentials:
    """Gets tokens by azure-identity. It needs the extra ``azure``, TLS, and the user in the URL.

    Args:
        credential: Of ``azure.identity`` or ``azure.identity.aio``; None for a
            ``DefaultAzureCredential``.
        scope: What the token is for; another one in national clouds.
        max_age: Seconds after which a connection is replaced, as for :class:`Credentials`.

    Raises:
        SettingsError: azure-identity is not installed.
    """

    name = "entra_credentials"

    def __init__(
        self, credential: Any = None, *, scope: str = SCOPE, max_age: float | None = None
    ) -> None:
        self._credential = _default() if credential is None else credential
        self._scope, self._max_age = scope, max_age

    def for_server(self, server: Server) -> CredentialsProvider:
        """Return what gets tokens, which is this.

        Args:
            server: An Azure Database for PostgreSQL.

        Raises:
            SettingsError: It is not PostgreSQL with TLS.
        """
        server.require_token_login("tokens of Microsoft Entra")
        return self  # a token counts for every server

    async def __call__(self) -> Credentials:
        """Get a token.

        Raises:
            azure.core.exceptions.ClientAuthenticationError: There was none.
        """
        get = self._credential.get_token
        is_async = inspect.iscoroutinefunction(get)
        token = await (get(self._scope) if is_async else asyncio.to_thread(get, self._scope))
        return Credentials(
            password=token.token, expires_at=float(token.expires_on), max_age=self._max_age
        )


def _default() -> Any:
    try:
        identity = importlib.import_module("azure.identity")
    except ModuleNotFoundError as error:
        raise SettingsError(
            "entra_credentials: azure-identity is not installed: pip install 'penstock[azure]'"
        ) from error
    return identity.DefaultAzureCredential()
